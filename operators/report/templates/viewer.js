"use strict";
// Shows all slices of a series before and after. The slices are decoded when they are needed.
const data = JSON.parse(document.getElementById("data").textContent);
const lines = document.getElementById("slices").textContent.split("\n");
const [rows, columns] = data.shape, depth = data.slices.length / data.volumes;
const get = id => document.getElementById(id), KEPT = 64e6 / (rows * columns);
const stage = get("stage"), canvases = [...stage.querySelectorAll("canvas")], caption = get("caption");
const DIGITS = Array.from({ length: 94 }, (_, at) => String.fromCharCode(33 + at)).filter(each => !"\"&'<>\\".includes(each)).slice(0, 85).join("");
const VALUE = new Uint8Array(128);
[...DIGITS].forEach((digit, value) => { VALUE[digit.charCodeAt(0)] = value; });
const CAPTIONS = { after: "derived", removed: "removed: grey is 0, black and white are \u22123 and +3 times the noise", put: "put back by the gate, up to 3 times the noise", sigma: "noise", spread: "uncertainty" };

const state = { at: Math.floor(data.slices.length / 2), mode: "side", shown: "after", low: data.window[0], high: data.window[1], zoom: 1, x: 0.5, y: 0.5, divider: 0.5, original: false };
if (data.volumes > 1) state.at = Math.floor(depth / 2);

// --- decoding: base 85, deflate, differences to the neighbours (operators/report/slices.py)

async function bytesOf(text) {
  const added = +text[0], made = new Uint8Array((text.length - 1) / 5 * 4);
  for (let from = 1, to = 0; from < text.length; from += 5, to += 4) {
    let value = 0;
    for (let digit = 0; digit < 5; digit++) value = value * 85 + VALUE[text.charCodeAt(from + digit)];
    made[to] = value >>> 24; made[to + 1] = value >>> 16; made[to + 2] = value >>> 8; made[to + 3] = value;
  }
  const stream = new Blob([made.subarray(0, made.length - added)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function imageOf(text, planes, width, height) {
  const bytes = await bytesOf(text), size = width * height, image = new Int32Array(size);
  for (let at = 0; at < size; at++) {
    let code = 0;
    for (let plane = 0; plane < planes; plane++) code = code << 8 | bytes[plane * size + at];
    const x = at % width, a = x ? image[at - 1] : 0, b = at >= width ? image[at - width] : 0, c = x && at >= width ? image[at - width - 1] : 0;
    const low = a < b ? a : b, high = a < b ? b : a, middle = a + b - c | 0;
    image[at] = (code >>> 1 ^ -(code & 1)) + (middle < low ? low : middle > high ? high : middle) | 0;
  }
  return image;
}

async function mapOf(text, top, side) {
  if (!text) return null;
  const width = Math.max(1, Math.floor(data.full[1] / side)), height = Math.max(1, Math.floor(data.full[0] / side));
  const image = await imageOf(text, 1, width, height);
  return (x, y) => image[Math.min(height - 1, Math.floor(y * data.factor / side)) * width + Math.min(width - 1, Math.floor(x * data.factor / side))] * top / 63;
}

const decoded = new Map();
function slice(at) {
  if (!decoded.has(at)) {
    decoded.set(at, decode(at));
    if (decoded.size > KEPT) decoded.delete(decoded.keys().next().value);
  }
  return decoded.get(at);
}

async function decode(at) {
  const known = data.slices[at], [before, after, sigma, spread, put] = lines[at].split(" ");
  const values = async text => {
    const stored = await imageOf(text, known.planes, columns, rows);
    return Float32Array.from(stored, each => (data.unsigned ? each >>> 0 : each) * known.slope + known.intercept);
  };
  return { before: await values(before), after: await values(after), sigma: await mapOf(sigma, known.sigma, known.map), spread: await mapOf(spread, known.spread, known.map), put: put ? await imageOf(put, 1, columns, rows) : null, top: known };
}

// --- drawing

function picture(paint) {
  const made = new ImageData(columns, rows), pixels = new Uint32Array(made.data.buffer);
  paint(pixels);
  const canvas = document.createElement("canvas");
  canvas.width = columns; canvas.height = rows;
  canvas.getContext("2d").putImageData(made, 0, 0);
  return canvas;
}

const rgb = (red, green, blue) => (255 << 24 | blue << 16 | green << 8 | red) >>> 0;
const GREYS = Uint32Array.from({ length: 256 }, (_, grey) => rgb(grey, grey, grey));
// black, violet, orange, yellow: brighter means more
const HEAT = Uint32Array.from({ length: 256 }, (_, at) => { const t = at / 255; return rgb(255 * Math.min(1, 1.6 * t), 255 * t ** 1.8, 255 * Math.max(0, Math.min(0.6 * Math.sin(Math.PI * 1.4 * t) + Math.max(0, 4 * t - 3.4), 1))); });

function greys(values) {
  const scale = 255 / (state.high - state.low || 1), flip = data.inverted ? 255 : 0;
  return pixels => {
    for (let at = 0; at < pixels.length; at++) {
      const grey = (values[at] - state.low) * scale, bound = grey < 0 ? 0 : grey > 255 ? 255 : grey + 0.5 | 0;
      pixels[at] = GREYS[flip ? flip - bound : bound];
    }
  };
}

function second(image) {
  if (state.shown === "after") return greys(image.after);
  const map = image[state.shown === "removed" ? "sigma" : state.shown], top = image.top[state.shown];
  if (!map) return state.shown === "put" ? greys(image.after) : pixels => pixels.fill(GREYS[60]);
  if (state.shown === "put") return pixels => {
    greys(image.after)(pixels);
    for (let at = 0; at < pixels.length; at++) if (map[at] !== 128) { const share = Math.min(1, 0.25 + Math.abs(map[at] - 128) / 100), grey = pixels[at] & 255, rest = (1 - share) * grey; pixels[at] = map[at] > 128 ? rgb(rest + 255 * share, rest + 140 * share, rest) : rgb(rest, rest + 170 * share, rest + 255 * share); }
  };
  return pixels => {
    for (let y = 0, at = 0; y < rows; y++) for (let x = 0; x < columns; x++, at++) {
      if (state.shown === "removed") { const share = (image.before[at] - image.after[at]) / (map(x, y) || Infinity); pixels[at] = GREYS[Math.max(0, Math.min(255, Math.round(128 + share * 42.5)))]; }
      else pixels[at] = HEAT[Math.round(map(x, y) / top * 255)];
    }
  };
}

let wanted = 0, flick = false, frames = 0;
async function show() {
  const turn = ++wanted, image = await slice(state.at);
  if (turn !== wanted) return;
  const before = picture(greys(image.before)), after = picture(second(image));
  stage.classList.toggle("one", state.mode !== "side");
  const original = state.original || state.mode === "flicker" && flick;
  place(canvases[0], before, null);
  place(canvases[1], original ? before : after, state.mode === "slider" && !original ? before : null);
  caption.textContent = original ? "original" : state.mode === "slider" ? "left of the line: original; right: " + captionOf(image) : captionOf(image);
  words();
  if (!frames) performance.mark("first slice");
  stage.dataset.frame = ++frames;
  for (const next of [state.at + 1, state.at - 1]) if (data.slices[next]) slice(next);
}

function captionOf(image) {
  const top = image.top[state.shown];
  if (state.shown === "sigma" || state.shown === "spread") return top ? `${CAPTIONS[state.shown]}: black is 0, yellow ${+top.toPrecision(3)}${data.unit}` : CAPTIONS[state.shown] + ": not measured";
  return state.shown === "put" && !image.put ? "derived: nothing was put back in this slice" : CAPTIONS[state.shown];
}

function place(canvas, image, left) {
  const width = Math.round(canvas.clientWidth * (window.devicePixelRatio || 1));
  if (!width) return;
  const height = Math.round(Math.min(width * rows * data.aspect / columns, width * 1.6));
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  const context = canvas.getContext("2d"), fit = Math.min(width / columns, height / (rows * data.aspect)) * state.zoom;
  const draw = from => context.drawImage(from, width / 2 - state.x * columns * fit, height / 2 - state.y * rows * data.aspect * fit, columns * fit, rows * data.aspect * fit);
  context.imageSmoothingEnabled = fit < 4;
  context.fillStyle = "#000"; context.fillRect(0, 0, width, height);
  draw(image);
  if (!left) return;
  const line = state.divider * width;
  context.save(); context.beginPath(); context.rect(0, 0, line, height); context.clip();
  context.fillRect(0, 0, width, height); draw(left); context.restore();
  context.fillStyle = "#7cc4c4"; context.fillRect(line - 1, 0, 3, height);
}

function words() {
  const known = data.slices[state.at], at = state.at % depth, volume = Math.floor(state.at / depth), unit = data.unit;
  const number = value => value === null ? "not measured" : +value.toPrecision(3) + unit;
  get("slice").value = at + 1; get("volume").value = volume + 1;
  get("slice").nextElementSibling.textContent = `${at + 1} of ${depth}` + (known.position === null ? "" : `, ${known.position.toFixed(1)} mm`);
  get("volume").nextElementSibling.textContent = `${volume + 1} of ${data.volumes}`;
  get("under").textContent = `Noise of the bright half of this slice: ${number(known.noise[0])} before, ${number(known.noise[1])} after.`;
  for (const bound of ["low", "high"]) if (document.activeElement !== get(bound)) get(bound).value = +state[bound].toPrecision(5);
  get("plot").querySelector(".here")?.setAttribute("x1", across(state.at));
  get("plot").querySelector(".here")?.setAttribute("x2", across(state.at));
}

// --- the noise of each slice

let span = 1; // pixels of the plot without its margins
const across = at => 44 + (data.slices.length > 1 ? at / (data.slices.length - 1) : 0.5) * span;
function plot() {
  span = Math.max(100, get("plot").clientWidth - 56);
  get("plot").replaceChildren();
  const top = 1.1 * Math.max(0, ...data.slices.flatMap(each => each.noise.map(value => value || 0)));
  const add = (kind, attributes, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", kind);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.textContent = text || "";
    get("plot").append(made);
  };
  if (!top) return add("text", { x: 44, y: 60 }, "The noise of the slices: not measured.");
  const up = value => 122 - value / top * 112;
  add("line", { class: "here", x1: 0, x2: 0, y1: 4, y2: 126 });
  ["before", "after"].forEach((name, which) => {
    const points = data.slices.map((each, at) => [at, each.noise[which]]).filter(each => each[1] !== null).map(([at, value]) => [across(at), up(value)]);
    add("polyline", { class: name, points: points.join(" ") });
    if (points.length < 60) points.forEach(([x, y]) => add("circle", { class: name, cx: x, cy: y, r: 2 }));
  });
  add("text", { x: 2, y: 16 }, (top / 1.1).toPrecision(3));
  add("text", { x: 2, y: 126 }, "0" + data.unit);
}
get("plot").addEventListener("click", event => {
  const at = (event.clientX - get("plot").getBoundingClientRect().left - 44) / span;
  go(Math.round(at * (data.slices.length - 1)));
});

// --- what the reader does

let planned = false;
function change(changes) {
  Object.assign(state, changes);
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => { planned = false; show(); });
}
const go = at => change({ at: Math.max(0, Math.min(data.slices.length - 1, at)) });
const zoom = factor => change({ zoom: Math.max(0.5, Math.min(32, state.zoom * factor)) });
const reset = () => change({ zoom: 1, x: 0.5, y: 0.5, low: data.window[0], high: data.window[1], divider: 0.5 });
const step = by => { const inside = state.at % depth + by; if (inside >= 0 && inside < depth) go(state.at + by); };

let flicker = 0;
function arrange(mode) {
  for (const button of document.querySelectorAll("[data-mode]")) button.setAttribute("aria-pressed", button.dataset.mode === mode);
  get("dividing").hidden = mode !== "slider";
  clearInterval(flicker);
  if (mode === "flicker") flicker = setInterval(() => { flick = !flick; change({}); }, 600);
  change({ mode });
}
function reveal(shown) { get("shown").value = shown; change({ shown }); }

for (const button of document.querySelectorAll("[data-mode]")) button.addEventListener("click", () => arrange(button.dataset.mode));
get("shown").addEventListener("change", () => change({ shown: get("shown").value }));
for (const name of Object.keys(data.presets)) get("preset").add(new Option(name, name));
get("preset").addEventListener("change", () => { const [low, high] = data.presets[get("preset").value] || data.window; change({ low, high }); });
for (const bound of ["low", "high"]) get(bound).addEventListener("change", () => { if (Number.isFinite(get(bound).valueAsNumber)) change({ [bound]: get(bound).valueAsNumber }); });
get("closer").addEventListener("click", () => zoom(1.25));
get("further").addEventListener("click", () => zoom(0.8));
get("reset").addEventListener("click", reset);
get("divider").addEventListener("input", () => change({ divider: get("divider").valueAsNumber }));
get("slice").max = depth; get("volume").max = data.volumes;
get("volumes").hidden = data.volumes === 1;
get("slice").addEventListener("input", () => go(state.at - state.at % depth + get("slice").valueAsNumber - 1));
get("volume").addEventListener("input", () => go((get("volume").valueAsNumber - 1) * depth + state.at % depth));

const KEYS = { ArrowUp: () => step(-1), ArrowDown: () => step(1), PageUp: () => step(-1), PageDown: () => step(1), Home: () => go(state.at - state.at % depth), End: () => go(state.at - state.at % depth + depth - 1), ArrowLeft: () => data.volumes > 1 && go(state.at - depth), ArrowRight: () => data.volumes > 1 && go(state.at + depth), "+": () => zoom(1.25), "-": () => zoom(0.8), 0: reset, s: () => arrange("side"), d: () => arrange("slider"), f: () => arrange("flicker"), o: () => change({ original: true }), r: () => reveal("removed"), n: () => reveal("after") };
document.addEventListener("keydown", event => {
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || event.ctrlKey || event.altKey || event.metaKey || !KEYS[event.key]) return;
  event.preventDefault(); KEYS[event.key]();
});
document.addEventListener("keyup", event => { if (event.key === "o") change({ original: false }); });
stage.addEventListener("wheel", event => {
  event.preventDefault();
  if (event.ctrlKey) zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15); else step(Math.sign(event.deltaY));
}, { passive: false });

const fingers = new Map();
let swiped = 0;
for (const canvas of canvases) {
  canvas.addEventListener("pointerdown", event => { fingers.set(event.pointerId, event); swiped = 0; canvas.setPointerCapture(event.pointerId); });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, event => fingers.delete(event.pointerId));
  canvas.addEventListener("pointermove", event => {
    const last = fingers.get(event.pointerId);
    if (!last) return;
    const right = event.clientX - last.clientX, down = event.clientY - last.clientY, size = canvas.clientWidth * state.zoom, other = [...fingers.values()].find(each => each.pointerId !== event.pointerId);
    fingers.set(event.pointerId, event);
    if (other) {
      const apart = from => Math.hypot(from.clientX - other.clientX, from.clientY - other.clientY) || 1;
      zoom(apart(event) / apart(last));
    }
    if (other || event.shiftKey || event.buttons === 4) change({ x: state.x - right / size, y: state.y - down / size * columns / (rows * data.aspect) });
    else if (state.mode === "slider") { const box = canvas.getBoundingClientRect(); get("divider").value = (event.clientX - box.left) / box.width; change({ divider: get("divider").valueAsNumber }); }
    else if (event.pointerType === "touch") { swiped += right; if (Math.abs(swiped) > 24) { step(-Math.sign(swiped)); swiped = 0; } }
    else {
      const unit = (data.window[1] - data.window[0]) / 300, width = Math.max(unit, state.high - state.low + right * unit), centre = (state.high + state.low) / 2 + down * unit;
      change({ low: centre - width / 2, high: centre + width / 2 });
    }
  });
}
window.addEventListener("resize", () => { plot(); change({}); });
window.addEventListener("beforeprint", () => { for (const each of document.querySelectorAll("details")) each.open = true; });
plot();
show();
