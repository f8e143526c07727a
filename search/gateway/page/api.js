// Requests to the gateway, with the API key where it needs one.

export class Refused extends Error {}

const key = () => sessionStorage.getItem("key");
const headers = () => (key() ? { Authorization: `Bearer ${key()}` } : {});
let login = null; // one dialog for all requests that wait for a key

function askForKey() {
  login ??= new Promise((resolve) => {
    const dialog = document.getElementById("login"), field = document.getElementById("key");
    field.value = "";
    dialog.addEventListener("close", () => {
      login = null;
      if (field.value) sessionStorage.setItem("key", field.value);
      resolve(Boolean(field.value));
    }, { once: true });
    dialog.showModal();
  });
  return login;
}

async function answer(path, options = {}) {
  const given = key();
  let found;
  try {
    found = await fetch(path, { ...options, headers: { ...headers(), ...options.headers } });
  } catch {
    throw new Refused("The shop does not answer. Check that it runs, and try again.");
  }
  if (found.status === 401 && (key() !== given || await askForKey())) return answer(path, options);
  if (found.ok) return found;
  const problem = await found.json().catch(() => ({}));
  throw new Refused(problem.detail ?? `The shop answered ${found.status}.`);
}

export const get = async (path) => (await answer(path)).json();
export const post = async (path, body) =>
  (await answer(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) })).json();
export const send = async (path, form) => (await answer(path, { method: "POST", body: form })).json();
export const blob = async (path) => (await answer(path)).blob();

// Show a photo of the gateway. An <img> cannot send a key, so a shop with keys is asked by fetch.
export async function show(image, path) {
  if (!key()) { image.src = path; return; }
  try {
    image.src = URL.createObjectURL(await blob(path));
    image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
  } catch { image.removeAttribute("src"); }
}
