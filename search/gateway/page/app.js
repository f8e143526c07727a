// The shop's page. The address holds the question, so that it can be shared and the browser's "back" works.

const $ = (id) => document.getElementById(id);
const filters = { types: new Set(), attributes: {} };
let photo = null; // { image: ImageBitmap, blob: Blob, box: [x0, y0, x1, y1] or null }
let turn = 0; // numbers the questions, so that a late answer does not replace a newer one

class Refused extends Error {}

async function call(path, options = {}) {
  const key = sessionStorage.getItem("key");
  const headers = { ...(key ? { Authorization: `Bearer ${key}` } : {}), ...options.headers };
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401) {
    const given = prompt("This shop needs an API key:");
    if (given) { sessionStorage.setItem("key", given); return call(path, options); }
  }
  const body = await answer.json();
  if (!answer.ok) throw new Refused(body.detail ?? answer.statusText);
  return body;
}

const post = (path, body) =>
  call(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

function asked() {
  const question = { limit: 24 };
  if (filters.types.size) question.product_types = [...filters.types];
  const chosen = Object.entries(filters.attributes).filter(([, values]) => values.size);
  if (chosen.length) question.filters = Object.fromEntries(chosen.map(([name, values]) => [name, [...values]]));
  return question;
}

async function show(work) {
  const mine = ++turn;
  const started = performance.now();
  say("Searching …");
  $("results").setAttribute("aria-busy", "true");
  try {
    const { lists, note } = await work();
    if (mine !== turn) return;
    const count = Math.max(...lists.map((list) => list.products.length));
    say(`${count ? `${count} products` : "No products found. Remove a filter, or use other words"}${note ? `. ${note}` : ""}` +
      ` (${Math.round(performance.now() - started)} ms)`);
    $("results").replaceChildren(...lists.map(grid));
    $("results").classList.toggle("pair", lists.length > 1);
  } catch (error) {
    if (mine !== turn) return;
    say(error instanceof Refused ? error.message : "The shop does not answer. Is it running?", true);
    $("results").replaceChildren();
  } finally {
    if (mine === turn) $("results").removeAttribute("aria-busy");
  }
}

function grid({ title, products }) {
  const part = document.createElement("div");
  if (title) part.append(Object.assign(document.createElement("h2"), { textContent: title }));
  const cards = Object.assign(document.createElement("div"), { className: "grid" });
  cards.append(...products.map(card));
  part.append(cards);
  return part;
}

const named = (product) => product.title || product.text || product.product;

function card(product) {
  const made = $("card").content.firstElementChild.cloneNode(true);
  const image = made.querySelector("img");
  image.src = `${product.photo}?crop=1&width=320`;
  image.alt = `${named(product)} (${product.product_type || "no type"})`;
  made.querySelector("a").href = `#product=${encodeURIComponent(product.product)}`;
  made.querySelector("h3").textContent = named(product);
  made.querySelector(".about").textContent = product.product_type + (product.grounded ? "" : " · not found in its photo");
  made.querySelector(".score").textContent = product.score.toFixed(3);
  const similar = made.querySelector(".similar");
  similar.setAttribute("aria-label", `Products similar to ${named(product)}`);
  similar.addEventListener("click", () => { location.hash = `similar=${encodeURIComponent(product.product)}`; });
  return made;
}

// Questions

const byText = (text) => show(async () => ({ lists: [await post("/v1/search", { ...asked(), text })] }));

const similarTo = (product) => show(async () => {
  const question = { ...asked(), product };
  const alike = await post("/v1/similar", question);
  const others = await post("/v1/similar", { ...question, limit: 12, widen: true, diversity: 0.3 });
  return { lists: [{ title: "Similar", ...alike }, { title: "Goes with", ...others }] };
});

async function ask(file, productType) {
  const form = new FormData();
  form.append("photo", file, "photo");
  if (productType !== null) form.append("product_type", productType);
  for (const [name, value] of Object.entries(asked())) {
    form.append(name, typeof value === "object" ? JSON.stringify(value) : value);
  }
  return call("/v1/search", { method: "POST", body: form });
}

const byPhoto = () => show(async () => {
  const whole = photo.box ? await cut(photo.box) : photo.blob;
  const kind = photo.box ? "" : $("kind").value === "?" ? null : $("kind").value;
  const answer = await ask(whole, kind);
  if (!photo.box) {
    const found = answer.photo;
    draw(found.grounded ? found.box : null);
    $("seen").textContent = found.grounded
      ? `Found: ${found.product_type} (confidence ${found.score.toFixed(2)})`
      : found.product_type ? `No ${found.product_type} was found, so the whole photo was searched.`
      : "The whole photo was searched.";
  }
  if (!$("compare").checked || photo.box) return { lists: [answer] };
  const plain = await ask(photo.blob, "");
  return { lists: [{ title: "What was found in the photo", ...answer }, { title: "The whole photo", ...plain }] };
});

// The photo of a question

async function usePhoto(blob) {
  try {
    photo = { blob, image: await createImageBitmap(blob), box: null };
  } catch {
    say("This file is not an image that the browser can show.", true);
    return;
  }
  $("photo").hidden = false;
  $("product").hidden = true;
  $("seen").textContent = "";
  history.replaceState(null, "", "#photo");
  draw(null);
  byPhoto();
}

function draw(box) {
  const canvas = $("canvas"), { image } = photo;
  canvas.width = image.width;
  canvas.height = image.height;
  const pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0);
  if (!box) return;
  pen.lineWidth = Math.max(3, image.width / 120);
  pen.strokeStyle = "#0a5bd3";
  pen.strokeRect(box[0], box[1], box[2] - box[0], box[3] - box[1]);
}

function cut([x0, y0, x1, y1]) {
  const part = Object.assign(document.createElement("canvas"), { width: x1 - x0, height: y1 - y0 });
  part.getContext("2d").drawImage(photo.image, x0, y0, x1 - x0, y1 - y0, 0, 0, x1 - x0, y1 - y0);
  return new Promise((resolve) => part.toBlob(resolve, "image/png"));
}

let start = null;
const place = (event) => {
  const canvas = $("canvas"), area = canvas.getBoundingClientRect();
  const limit = (value, most) => Math.round(Math.min(Math.max(value, 0), most));
  return [limit((event.clientX - area.left) / area.width * canvas.width, canvas.width),
    limit((event.clientY - area.top) / area.height * canvas.height, canvas.height)];
};
const dragged = (event) => {
  const [x, y] = place(event);
  return [Math.min(start[0], x), Math.min(start[1], y), Math.max(start[0], x), Math.max(start[1], y)];
};
$("canvas").addEventListener("pointerdown", (event) => {
  start = place(event);
  $("canvas").setPointerCapture(event.pointerId);
});
$("canvas").addEventListener("pointermove", (event) => { if (start) draw(dragged(event)); });
$("canvas").addEventListener("pointerup", (event) => {
  if (!start) return;
  const box = dragged(event);
  start = null;
  const isBox = box[2] - box[0] > 8 && box[3] - box[1] > 8;
  photo.box = isBox ? box : null;
  if (isBox) { draw(box); $("seen").textContent = "Your box was searched."; }
  byPhoto();
});

$("kind").addEventListener("change", () => { photo.box = null; byPhoto(); });
$("compare").addEventListener("change", byPhoto);
$("file").addEventListener("change", () => { if ($("file").files[0]) usePhoto($("file").files[0]); });
addEventListener("dragover", (event) => { event.preventDefault(); $("drop").hidden = false; });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").hidden = true; });
addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").hidden = true;
  if (event.dataTransfer.files[0]) usePhoto(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => { if (event.clipboardData.files[0]) usePhoto(event.clipboardData.files[0]); });

// A product's page

async function openProduct(id) {
  let product;
  try {
    product = await call(`/v1/products/${encodeURIComponent(id)}`);
  } catch (error) {
    say(error instanceof Refused ? error.message : "The shop does not answer. Is it running?", true);
    return;
  }
  const pictures = document.createElement("div");
  for (const one of product.photos) {
    const figure = document.createElement("figure");
    const image = Object.assign(new Image(), { src: one.photo, alt: `Photo of ${named(product)}` });
    figure.append(image);
    if (one.grounded) image.addEventListener("load", () => figure.append(outline(one.box, one.size)));
    pictures.append(figure);
  }
  const text = document.createElement("div");
  const rows = { Type: product.product_type, ...product.attributes, Description: product.description, "Text for search": product.text };
  const list = document.createElement("dl");
  for (const [name, value] of Object.entries(rows)) {
    if (value === "" || value === null) continue;
    list.append(Object.assign(document.createElement("dt"), { textContent: name }),
      Object.assign(document.createElement("dd"), { textContent: Array.isArray(value) ? value.join(", ") : value }));
  }
  text.append(Object.assign(document.createElement("h2"), { textContent: named(product) }), list);
  if (product.duplicates.length) {
    const note = document.createElement("p");
    note.append("The same photo: ", ...product.duplicates.flatMap((other, n) => [n ? ", " : "",
      Object.assign(document.createElement("a"), { href: `#product=${encodeURIComponent(other)}`, textContent: other })]));
    text.append(note);
  }
  $("product").replaceChildren(pictures, text);
  $("product").hidden = false;
  $("photo").hidden = true;
  scrollTo(0, 0);
  similarTo(id);
}

function outline([x0, y0, x1, y1], [width, height]) {
  const box = Object.assign(document.createElement("span"), { className: "box" });
  const share = (value, whole) => `${100 * value / whole}%`;
  Object.assign(box.style, { left: share(x0, width), top: share(y0, height), width: share(x1 - x0, width), height: share(y1 - y0, height) });
  return box;
}

// Filters

function checks(box, counts, chosen) {
  box.replaceChildren(...Object.entries(counts).filter(([value]) => value).map(([value, count]) => {
    const label = document.createElement("label");
    const check = Object.assign(document.createElement("input"), { type: "checkbox", checked: chosen.has(value) });
    check.addEventListener("change", () => { check.checked ? chosen.add(value) : chosen.delete(value); refine(); });
    label.append(check, value, Object.assign(document.createElement("span"), { textContent: count }));
    return label;
  }));
}

async function loadFilters() {
  const { facets } = await call(`/v1/facets?${new URLSearchParams([...filters.types].map((kind) => ["product_type", kind]))}`);
  checks($("types"), facets.product_type, filters.types);
  $("attributes").replaceChildren(...Object.entries(facets).filter(([name]) => name !== "product_type").map(([name, counts]) => {
    const part = document.createElement("details"), values = document.createElement("div");
    filters.attributes[name] ??= new Set();
    part.open = filters.attributes[name].size > 0;
    part.append(Object.assign(document.createElement("summary"), { textContent: name }), values);
    checks(values, counts, filters.attributes[name]);
    return part;
  }));
  if (!$("kind").options.length) {
    $("kind").append(new Option("whatever is found", "?"), new Option("the whole photo", ""),
      ...Object.keys(facets.product_type).filter(Boolean).sort().map((kind) => new Option(kind, kind)));
  }
}

function refine() {
  loadFilters();
  photo && !$("photo").hidden ? byPhoto() : route();
}

// Addresses

function route() {
  const [name, value] = location.hash.slice(1).split("=").map(decodeURIComponent);
  if (name === "photo" && photo) return;
  $("product").hidden = $("photo").hidden = true;
  if (name === "product") openProduct(value);
  else if (name === "similar") similarTo(value);
  else {
    $("text").value = name === "text" ? value : "";
    if (name === "text" && value) byText(value);
    else { $("results").replaceChildren(); say("Search with words, or with a photo: drop one here."); }
  }
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const address = `#text=${encodeURIComponent($("text").value.trim())}`;
  if (location.hash === address) route(); else location.hash = address;
});
addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== $("text")) { event.preventDefault(); $("text").focus(); }
});
addEventListener("hashchange", route);
if (matchMedia("(max-width: 46rem)").matches) document.querySelector("nav details").open = false;
loadFilters().then(route, (error) => say(error instanceof Refused ? error.message : "The shop does not answer. Is it running?", true));
