// The shop's page. The address holds the question and its filters, so that it can be shared and "back" works.

import { get, post, send, blob, show, Refused } from "/page/api.js";
import { photo, take, mark, outline, cut, listen } from "/page/photo.js";
import { facets, chips } from "/page/filters.js";

const $ = (id) => document.getElementById(id);
const PAGE = 24; // products that are shown at once
const VIEWS = ["text", "similar", "product", "photo"];
let turn = 0; // numbers the questions, so that a late answer does not replace a newer one

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const named = (product) => product.title || product.text || product.product;

// The address: the question, and `type` and `where` for the filters.

function read() {
  const given = new URLSearchParams(location.hash.slice(1));
  const view = VIEWS.find((name) => given.has(name)) ?? "home";
  let where = {};
  try { where = JSON.parse(given.get("where") ?? "{}"); } catch { /* an address that was cut off */ }
  return { view, value: given.get(view) ?? "", types: given.getAll("type"), where };
}

const address = (view, value, { types, where } = read()) => {
  const made = new URLSearchParams(view === "home" ? [] : [[view, value]]);
  for (const kind of types) made.append("type", kind);
  if (Object.keys(where).length) made.set("where", JSON.stringify(where));
  return `#${made}`;
};

function filter(change) {
  const now = read();
  location.hash = address(now.view, now.value, { types: now.types, where: now.where, ...change(now) });
}

const narrowed = ({ types, where } = read()) => ({
  ...(types.length ? { product_types: types } : {}),
  ...(Object.keys(where).length ? { filters: where } : {}),
});

const asked = () => ({ ...narrowed(), collapse: true });

// Results

async function answer(work) {
  const mine = ++turn;
  const started = performance.now();
  $("status").textContent = "Searching …";
  $("error").hidden = true;
  $("results").setAttribute("aria-busy", "true");
  try {
    const lists = await work(() => mine === turn);
    if (mine !== turn) return;
    const count = lists.reduce((most, list) => Math.max(most, list.products.length), 0);
    const more = lists.some((list) => list.more && list.products.length === PAGE);
    $("status").textContent = count
      ? `${more ? "The first " : ""}${count} product${count > 1 ? "s" : ""} in ${Math.round(performance.now() - started)} ms`
      : "No products found. Remove a filter, or use other words.";
    $("results").replaceChildren(...lists.filter((list) => list.products.length || lists.length === 1).map(section));
    $("results").classList.toggle("pair", lists.some((list) => list.beside));
  } catch (error) {
    if (mine === turn) fail(error);
  } finally {
    if (mine === turn) $("results").removeAttribute("aria-busy");
  }
}

function fail(error) {
  if (!(error instanceof Refused)) console.error(error);
  $("status").textContent = "";
  $("results").replaceChildren();
  $("error").textContent = error instanceof Refused ? error.message : "The page failed. Load it again.";
  $("error").hidden = false;
}

function section({ title, note, products, more }) {
  const cards = make("div", { className: "grid" }, ...products.map(card));
  const made = make("section", {}, ...(title ? [make("h2", { textContent: title })] : []), ...(note ? [make("p", { className: "quiet", textContent: note })] : []), cards);
  if (!more || products.length < PAGE) return made;
  const button = make("button", { type: "button", className: "more", textContent: "Show more" });
  let offset = PAGE;
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const next = (await more(offset)).products.map(card);
      cards.append(...next);
      offset += PAGE;
      next[0]?.querySelector("a").focus();
      button.hidden = next.length < PAGE;
    } catch (error) { fail(error); }
    button.disabled = false;
  });
  made.append(button);
  return made;
}

function card(product) {
  const made = $("card").content.firstElementChild.cloneNode(true);
  const image = made.querySelector("img");
  show(image, `${product.photo}?crop=1&width=400`);
  image.alt = `${named(product)} (${product.product_type || "no type"})`;
  made.querySelector(".open").href = address("product", product.product);
  made.querySelector("h3").textContent = named(product);
  made.querySelector(".about").textContent = [product.product_type, product.grounded ? "" : "whole photo"].filter(Boolean).join(" · ");
  made.querySelector(".score").textContent = product.score === null ? "" : product.score.toFixed(2);
  const similar = made.querySelector(".similar");
  similar.href = address("similar", product.product);
  similar.setAttribute("aria-label", `Products similar to ${named(product)}`);
  return made;
}

// Questions

const paged = (question) => async (offset) => question({ ...asked(), limit: PAGE, offset });

const byText = (text) => answer(async () => {
  const more = paged((rest) => post("/v1/search", { ...rest, text }));
  return [{ ...(await more(0)), more }];
});

async function alike(product, limit) {
  const question = { ...asked(), product };
  const ask = (rest) => post("/v1/similar", { ...question, ...rest });
  const [near, others] = await Promise.all([ask({ limit }), ask({ limit: 12, widen: true, diversity: 0.3 })]);
  return [{ title: "Similar", ...near }, { title: "Goes with", ...others }];
}

const similarTo = (product) => answer(async () => alike(product, PAGE));

async function ask(file, kind, rest) {
  const form = new FormData();
  form.append("photo", file, "photo");
  if (kind !== null) form.append("product_type", kind);
  for (const [name, value] of Object.entries(rest)) form.append(name, typeof value === "object" ? JSON.stringify(value) : value);
  return send("/v1/search", form);
}

const byPhoto = () => answer(async (isCurrent) => {
  const { own } = photo;
  const chosen = $("kind").value === "?" ? null : $("kind").value;
  const part = own ? await cut(own) : photo.blob;
  const more = paged((rest) => ask(part, own ? "" : chosen, rest));
  const [first, plain] = await Promise.all([more(0), $("compare").checked ? ask(photo.blob, "", { ...asked(), limit: PAGE }) : null]);
  if (!isCurrent()) return [];
  const found = first.photo;
  if (own) $("seen").textContent = "Your box was searched.";
  else {
    mark(found.grounded ? found.box : null);
    $("seen").textContent = found.grounded
      ? `Found: ${found.product_type} (confidence ${found.score.toFixed(2)})`
      : found.product_type ? `No ${found.product_type} was found, so the whole photo was searched.`
        : chosen === null ? "No product type was recognised, so the whole photo was searched. Choose what to look for, or drag a box."
          : "The whole photo was searched.";
  }
  if (!plain) return [{ ...first, more }];
  return [
    { title: own ? "Your box" : "What was found", note: "with grounding", beside: true, ...first },
    { title: "The whole photo", note: "without grounding", beside: true, ...plain },
  ];
});

// The photo of a question

async function usePhoto(given) {
  try { await take(given); } catch {
    fail(new Refused("This file is not an image that the browser can show. Choose a JPEG, PNG or WebP photo."));
    return;
  }
  $("seen").textContent = "";
  $("kind").value = "?";
  location.hash = address("photo", String(Date.now())); // differs from the address of the photo before
  scrollTo(0, 0);
}

listen(byPhoto);
$("kind").addEventListener("change", () => { photo.own = null; byPhoto(); });
$("compare").addEventListener("change", byPhoto);
for (const id of ["file", "file2"]) {
  $(id).addEventListener("change", () => { if ($(id).files[0]) usePhoto($(id).files[0]); $(id).value = ""; });
}
addEventListener("dragover", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  $("drop").hidden = false;
});
addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").hidden = true; });
addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").hidden = true;
  if (event.dataTransfer.files[0]) usePhoto(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => { if (event.clipboardData.files[0]) usePhoto(event.clipboardData.files[0]); });

// A product's page

const looked = () => JSON.parse(sessionStorage.getItem("looked") ?? "[]");

const openProduct = (id) => answer(async (isCurrent) => {
  const product = await get(`/v1/products/${encodeURIComponent(id)}`);
  if (!isCurrent()) return [];
  $("product").replaceChildren(pictures(product), facts(product));
  $("product").hidden = false;
  document.title = named(product);
  const recent = [id, ...looked().filter((other) => other !== id)].slice(0, 20);
  sessionStorage.setItem("looked", JSON.stringify(recent));
  const [near, others] = await alike(id, 12);
  const lists = [near, others];
  if (recent.length > 1) {
    const recommended = await post("/v1/recommend", { ...asked(), recent, limit: 12, diversity: 0.3 }).catch(() => ({ products: [] }));
    lists.push({ title: "For you", note: "From the products that you looked at", ...recommended });
  }
  const same = product.duplicates.map((one) => ({ ...one, score: null }));
  return [{ title: "With the same photo", products: same }, ...lists];
});

function pictures(product) {
  const [main, ...others] = product.photos;
  const large = make("img", { alt: `Photo of ${named(product)}`, className: "large" });
  const box = make("div", { className: "box" });
  const stage = make("div", { className: "stage" }, large, box);
  let current;
  const choose = (one) => {
    current = one;
    show(large, `${one.photo}?width=1024`);
    outline(box, one.grounded ? one.box : null, one.size);
  };
  choose(main);
  const search = make("button", { type: "button", textContent: "Search with this photo" });
  search.addEventListener("click", async () => {
    try { await usePhoto(await blob(`${current.photo}?width=2048`)); } catch (error) { fail(error); }
  });
  const part = make("div", { className: "pictures" }, stage);
  if (others.length) part.append(make("div", { className: "thumbs" }, ...product.photos.map((one, n) => {
    const small = make("img", { alt: "" });
    show(small, `${one.photo}?width=160`);
    const button = make("button", { type: "button", ariaLabel: `Photo ${n + 1} of ${product.photos.length}` }, small);
    button.addEventListener("click", () => choose(one));
    return button;
  })));
  part.append(search);
  return part;
}

function facts(product) {
  const rows = { ...product.attributes, Description: product.description.replace(/<[^>]*>/g, " "), "Text for search": product.text, Id: product.product };
  const list = make("dl");
  for (const [name, value] of Object.entries(rows)) {
    if (value === "" || value === null) continue;
    const text = Array.isArray(value) ? value.join(", ") : value === true ? "yes" : value === false ? "no" : String(value);
    list.append(make("div", {}, make("dt", { textContent: name.replaceAll("_", " ") }), make("dd", { textContent: text })));
  }
  const grounded = product.photos.filter((one) => one.grounded);
  const note = grounded.length
    ? `The detector found the ${product.product_type} in ${grounded.length} of ${product.photos.length} photo${product.photos.length > 1 ? "s" : ""} (best confidence ${Math.max(...grounded.map((one) => one.detector_score)).toFixed(2)}).`
    : "The detector did not find the product in its photos, so they were embedded whole.";
  return make("div", { className: "side" }, make("p", { className: "quiet kind", textContent: product.product_type || "no type" }),
    make("h1", { textContent: named(product) }), list, make("p", { className: "quiet", textContent: note }));
}

// Views

let counted = ""; // the filters that the counts are for

async function count(now) {
  const key = JSON.stringify([now.types, now.where]);
  if (counted === key) return;
  counted = key;
  const counts = await post("/v1/facets", narrowed(now));
  if (counted !== key) return;
  facets(counts, now, filter);
  if ($("kind").options.length) return;
  const kinds = Object.keys(counts.product_types).filter(Boolean);
  $("kind").append(new Option("whatever is found", "?"), new Option("the whole photo", ""), ...kinds.sort().map((kind) => new Option(kind, kind)));
  $("browse").replaceChildren(...kinds.slice(0, 24).map((kind) => make("a", { href: address("text", kind, { types: [kind], where: {} }), textContent: kind })));
}

function route() {
  const now = read();
  const view = now.view === "photo" && !photo ? "home" : now.view; // a photo does not outlive its page
  $("intro").hidden = view !== "home";
  $("photo").hidden = view !== "photo";
  $("product").hidden = true;
  $("error").hidden = true;
  document.body.dataset.view = view;
  document.title = view === "text" ? `${now.value} – Shop` : "Shop";
  if (view !== "product" && view !== "similar") $("text").value = view === "text" ? now.value : "";
  chips($("chosen"), now, filter);
  count(now).catch((error) => { counted = ""; if (view === "home") fail(error); });
  if (view === "product") { scrollTo(0, 0); return openProduct(now.value); }
  if (view === "similar") { scrollTo(0, 0); return similarTo(now.value); }
  if (view === "photo") return byPhoto();
  if (view === "text" && now.value) return byText(now.value);
  turn++;
  $("status").textContent = "";
  $("results").replaceChildren();
  return null;
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  const wanted = address(text ? "text" : "home", text);
  if (location.hash === wanted) route(); else location.hash = wanted;
});
addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) return;
  event.preventDefault();
  $("text").focus();
});
$("skip").addEventListener("click", (event) => { event.preventDefault(); $("main").focus(); });
addEventListener("hashchange", route);
const phone = matchMedia("(max-width: 52rem)");
const fold = () => { $("filters").open = !phone.matches; };
phone.addEventListener("change", fold);
fold();
route();
