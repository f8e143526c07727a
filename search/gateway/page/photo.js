// The photo of a question: the box that was found in it, and another box by mouse, finger or keyboard.

const $ = (id) => document.getElementById(id);
const KINDS = ["image/jpeg", "image/png", "image/webp"]; // what the server decodes
const SMALLEST = 8; // pixels

let image = null; // ImageBitmap
let found = null; // the box that was found, x0 y0 x1 y1 in pixels of the photo
let box = null; // the box that is drawn
export let photo = null; // { blob, own: the user's box or null }

// Take a photo. Throws if the browser cannot decode it.
export async function take(given) {
  image = await createImageBitmap(given);
  photo = { blob: KINDS.includes(given.type) ? given : await cut([0, 0, image.width, image.height]), own: null };
  URL.revokeObjectURL($("picture").src);
  $("picture").src = URL.createObjectURL(given);
  mark(null);
}

// Show the box that was found, or none.
export function mark(given) {
  found = given;
  draw(given);
}

function draw(given) {
  box = given;
  outline($("box"), box, [image.width, image.height]);
}

// Place an element over a photo.
export function outline(element, corners, [width, height]) {
  element.hidden = !corners;
  if (!corners) return element;
  const share = (value, whole) => `${(100 * value) / whole}%`;
  const [x0, y0, x1, y1] = corners;
  Object.assign(element.style, { left: share(x0, width), top: share(y0, height), width: share(x1 - x0, width), height: share(y1 - y0, height) });
  return element;
}

// A part of the photo as a JPEG.
export function cut([x0, y0, x1, y1]) {
  const part = Object.assign(document.createElement("canvas"), { width: x1 - x0, height: y1 - y0 });
  const pen = part.getContext("2d");
  pen.fillStyle = "#fff"; // behind a transparent photo
  pen.fillRect(0, 0, part.width, part.height);
  pen.drawImage(image, x0, y0, x1 - x0, y1 - y0, 0, 0, x1 - x0, y1 - y0);
  return new Promise((resolve) => part.toBlob(resolve, "image/jpeg", 0.95));
}

// Call `search` whenever another box was chosen, and after the box that was found was chosen again.
export function listen(search) {
  const stage = $("stage");
  let start = null;

  const choose = (next) => { photo.own = next; search(); };
  const within = (value, most) => Math.round(Math.min(Math.max(value, 0), most));
  const place = (event) => {
    const area = $("picture").getBoundingClientRect();
    return [within(((event.clientX - area.left) / area.width) * image.width, image.width),
      within(((event.clientY - area.top) / area.height) * image.height, image.height)];
  };
  const span = ([x, y]) => [Math.min(start[0], x), Math.min(start[1], y), Math.max(start[0], x), Math.max(start[1], y)];
  const isBox = ([x0, y0, x1, y1]) => x1 - x0 >= SMALLEST && y1 - y0 >= SMALLEST;

  stage.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    start = place(event);
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => { if (start) draw(span(place(event))); });
  stage.addEventListener("pointerup", (event) => {
    if (!start) return;
    const last = span(place(event));
    start = null;
    if (isBox(last)) choose(last);
    else draw(photo.own ?? found); // a click, which is not a box
  });
  stage.addEventListener("pointercancel", () => { start = null; draw(photo.own ?? found); });

  stage.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Enter" && box && isBox(box)) choose(box);
    if (event.key === "Escape") choose(null);
    if (!step) return;
    event.preventDefault();
    const { width, height } = image;
    let [x0, y0, x1, y1] = box ?? [width / 4, height / 4, (width * 3) / 4, (height * 3) / 4].map(Math.round);
    const [dx, dy] = [(step[0] * width) / 40, (step[1] * height) / 40];
    if (event.shiftKey) {
      x1 = within(Math.max(x1 + dx, x0 + SMALLEST), width);
      y1 = within(Math.max(y1 + dy, y0 + SMALLEST), height);
    } else {
      const [right, down] = [Math.min(Math.max(dx, -x0), width - x1), Math.min(Math.max(dy, -y0), height - y1)];
      [x0, x1, y0, y1] = [x0 + right, x1 + right, y0 + down, y1 + down].map(Math.round);
    }
    draw([x0, y0, x1, y1].map(Math.round));
  });
}
