// Filters by product type and attribute, with counts, and the chosen ones as chips.

const $ = (id) => document.getElementById(id);
const FEW = 8; // groups with fewer values than this start open

const label = (name) => name.replaceAll("_", " ");
const list = (value) => (Array.isArray(value) ? value : value === undefined ? [] : [value]);

function checks(box, counts, chosen, toggle) {
  const values = { ...Object.fromEntries(chosen.map((value) => [value, 0])), ...counts };
  box.replaceChildren(...Object.entries(values).filter(([value]) => value).map(([value, count]) => {
    const made = document.createElement("label");
    const check = Object.assign(document.createElement("input"), { type: "checkbox", checked: chosen.includes(value) });
    check.addEventListener("change", () => toggle(value, check.checked));
    made.append(check, Object.assign(document.createElement("span"), { textContent: value }),
      Object.assign(document.createElement("output"), { textContent: count.toLocaleString() }));
    return made;
  }));
}

const toggled = (values, value, isOn) => (isOn ? [...values, value] : values.filter((one) => one !== value));

function without(where, name) {
  const { [name]: _, ...rest } = where;
  return rest;
}

// The condition of an attribute, as the gateway takes it.
function condition(where, name, kind, values) {
  if (!values.length || (kind === "bool" && values.length > 1)) return without(where, name);
  return { ...where, [name]: kind === "bool" ? values[0] === "true" : values };
}

function range(box, name, where, filter) {
  const known = where[name] ?? {};
  const field = (bound, text) => {
    const input = Object.assign(document.createElement("input"), { type: "number", step: "any", inputMode: "decimal", placeholder: text, ariaLabel: `${label(name)}, ${text}`, value: known[bound] ?? "" });
    input.addEventListener("change", () => filter(({ where: now }) => {
      const { [bound]: _, ...rest } = now[name] ?? {};
      const next = input.value === "" ? rest : { ...rest, [bound]: Number(input.value) };
      return { where: Object.keys(next).length ? { ...now, [name]: next } : without(now, name) };
    }));
    return input;
  };
  box.className = "range";
  box.append(field("gte", "from"), field("lte", "to"));
}

function group(name, { kind, values }, where, filter) {
  const made = document.createElement("details"), box = document.createElement("div");
  const chosen = list(where[name]).map(String);
  box.className = "values";
  made.dataset.name = name;
  const summary = document.createElement("summary");
  summary.append(Object.assign(document.createElement("span"), { textContent: label(name) }));
  made.append(summary, box);
  if (kind === "number") range(box, name, where, filter);
  else {
    checks(box, values, chosen, (value, isOn) => filter(({ where: now }) =>
      ({ where: condition(now, name, kind, toggled(list(now[name]).map(String), value, isOn)) })));
  }
  made.open = name in where || (kind !== "number" && Object.keys(values).length <= FEW);
  return made;
}

// Show what can be filtered by. What the user opened or focused stays so.
export function facets({ product_types: types, attributes }, now, filter) {
  const open = Object.fromEntries([...$("attributes").children].map((one) => [one.dataset.name, one.open]));
  const focused = document.activeElement?.closest?.("#filters label")?.textContent.replace(/[\d.,\s]+$/, "");
  checks($("types"), types, now.types, (value, isOn) => filter((was) => ({ types: toggled(was.types, value, isOn) })));
  $("attributes").replaceChildren(...Object.entries(attributes).map(([name, facet]) => {
    const made = group(name, facet, now.where, filter);
    if (name in open) made.open = open[name];
    return made;
  }));
  if (focused) [...document.querySelectorAll("#filters label")].find((one) => one.textContent.startsWith(focused))?.querySelector("input").focus();
}

const SIGNS = { gte: "from", lte: "to", gt: "above", lt: "below" };

function words(name, value) {
  if (typeof value === "object" && !Array.isArray(value)) {
    return `${label(name)} ${Object.entries(value).map(([bound, number]) => `${SIGNS[bound] ?? bound} ${number}`).join(" ")}`;
  }
  return `${label(name)}: ${list(value).join(", ")}`;
}

// The chosen filters. A click removes one.
export function chips(box, { types, where }, filter) {
  const chip = (text, change) => {
    const made = Object.assign(document.createElement("button"), { type: "button", textContent: text });
    made.setAttribute("aria-label", `Remove the filter ${text}`);
    made.addEventListener("click", () => filter(change));
    return made;
  };
  box.replaceChildren(
    ...types.map((kind) => chip(kind, (now) => ({ types: toggled(now.types, kind, false) }))),
    ...Object.entries(where).map(([name, value]) => chip(words(name, value), (now) => ({ where: without(now.where, name) }))),
  );
}
