// The page: an image, a mask, and the samples that window.inkfill.complete draws.

const SIZE = AREA * CHANNELS, SAMPLES = 8, SHORT = RECIPE.objective === "few";
const DIGITS = ABOUT.classifier && ["mnist", "rendered"].includes(RECIPE.trained_on);
const HIDDEN = [58, 110, 190]; // colour of a missing pixel
const PER_PIXEL = Math.max(1, Math.floor(448 / Math.max(HEIGHT, WIDTH)));

const state = { pixels: new Uint8Array(SIZE), mask: new Uint8Array(AREA), truth: new Uint8Array(AREA).fill(1), seed: 0, digit: -1,
  steps: RECIPE.sampling_steps };
const undone = [], done = [];
let pointing = false; // whether the pointer moved on the image after the last key: then Tab shows the original
let tool = "hide", brush = Math.max(1, Math.round(HEIGHT / 6)), cursor = null, corner = null, peeking = false, chosen = 0;
let painting = false, again = false, running = null, results = null, paths = new Map(), wanted = false, shownStep = -1;

const say = (text) => (element("said").textContent = text);
const copied = ({ pixels, mask, truth, digit }) => ({ pixels: pixels.slice(), mask: mask.slice(), truth: truth.slice(), digit });

// ---- drawing --------------------------------------------------------------------------------------------------------

// Draw bytes [H, W, C] on a canvas; `paint(p, rgb)` may change the colour of pixel p.
function show(canvas, bytes, paint = null) {
  canvas.width = WIDTH, canvas.height = HEIGHT;
  canvas.getContext("2d").putImageData(imageData(bytes, paint), 0, 0);
}

function imageData(bytes, paint = null) {
  const drawn = new ImageData(WIDTH, HEIGHT), rgb = [0, 0, 0];
  for (let p = 0; p < AREA; p++) {
    for (let c = 0; c < 3; c++) rgb[c] = bytes[p * CHANNELS + (CHANNELS === 3 ? c : 0)];
    if (paint) paint(p, rgb);
    drawn.data.set([...rgb, 255], 4 * p);
  }
  return drawn;
}

const hiding = (p, rgb) => {
  if (!state.mask[p]) return;
  const light = (Math.floor(p / WIDTH) + p) % 2 ? 12 : 0;
  for (let c = 0; c < 3; c++) rgb[c] = HIDDEN[c] + light;
};

function drawEditor() {
  const canvas = element("editor"), context = canvas.getContext("2d");
  canvas.width = WIDTH * PER_PIXEL, canvas.height = HEIGHT * PER_PIXEL;
  const small = new OffscreenCanvas(WIDTH, HEIGHT);
  small.getContext("2d").putImageData(imageData(state.pixels, peeking ? null : hiding), 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  if (PER_PIXEL >= 6) {
    context.fillStyle = "rgba(128,128,128,.22)";
    for (let x = 1; x < WIDTH; x++) context.fillRect(x * PER_PIXEL, 0, 1, canvas.height);
    for (let y = 1; y < HEIGHT; y++) context.fillRect(0, y * PER_PIXEL, canvas.width, 1);
  }
  if (!cursor) return;
  context.lineWidth = 2;
  context.strokeStyle = "#ffb000";
  context.beginPath();
  if (tool === "box" && corner) {
    const [x, y] = [Math.min(corner.x, cursor.x), Math.min(corner.y, cursor.y)];
    const [w, h] = [Math.abs(corner.x - cursor.x) + 1, Math.abs(corner.y - cursor.y) + 1];
    context.rect(x * PER_PIXEL, y * PER_PIXEL, w * PER_PIXEL, h * PER_PIXEL);
  } else context.arc((cursor.x + 0.5) * PER_PIXEL, (cursor.y + 0.5) * PER_PIXEL, (Math.max(1, brush) / 2) * PER_PIXEL, 0, 7);
  context.stroke();
}

// ---- strokes --------------------------------------------------------------------------------------------------------

function remember() {
  done.push(copied(state));
  if (done.length > 200) done.shift();
  undone.length = 0;
}

function ink() {
  const hex = element("colour").value;
  return CHANNELS === 3 ? [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)) : [255];
}

// One dab of the tool at a pixel.
function dab({ x, y }) {
  const radius = brush / 2, colour = tool === "rub" ? ink().map(() => 0) : ink();
  for (let row = Math.max(0, Math.floor(y - radius)); row <= Math.min(HEIGHT - 1, y + radius); row++)
    for (let column = Math.max(0, Math.floor(x - radius)); column <= Math.min(WIDTH - 1, x + radius); column++) {
      const p = row * WIDTH + column, far = Math.hypot(row - y, column - x);
      if (far >= Math.max(0.6, radius)) continue;
      if (tool === "hide") state.mask[p] = 1;
      else if (tool === "show") state.mask[p] = 1 - state.truth[p];
      else {
        const cover = Math.min(1, Math.max(0.6, radius) - far + 0.15);
        for (let c = 0; c < CHANNELS; c++) {
          const i = p * CHANNELS + c, mixed = Math.round(state.pixels[i] + (colour[c] - state.pixels[i]) * cover);
          state.pixels[i] = CHANNELS === 1 && tool === "ink" ? Math.max(mixed, state.pixels[i]) : mixed;
        }
        if (tool === "ink" || tool === "rub") state.truth[p] = 1, state.mask[p] = 0, (state.digit = -1);
      }
    }
}

function line(from, to) {
  const steps = Math.max(1, Math.abs(to.x - from.x), Math.abs(to.y - from.y));
  for (let i = 0; i <= steps; i++)
    dab({ x: Math.round(from.x + ((to.x - from.x) * i) / steps), y: Math.round(from.y + ((to.y - from.y) * i) / steps) });
}

function fillBox(a, b) {
  for (let y = Math.min(a.y, b.y); y <= Math.max(a.y, b.y); y++)
    for (let x = Math.min(a.x, b.x); x <= Math.max(a.x, b.x); x++) state.mask[y * WIDTH + x] = 1;
}

function placeOf(event) {
  const box = element("editor").getBoundingClientRect();
  const within = (value, most) => Math.min(most - 1, Math.max(0, Math.floor(value)));
  return {
    x: within(((event.clientX - box.left) / box.width) * WIDTH, WIDTH),
    y: within(((event.clientY - box.top) / box.height) * HEIGHT, HEIGHT),
  };
}

function listenToStrokes() {
  const canvas = element("editor");
  let last = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    canvas.focus({ preventScroll: true });
    remember();
    last = cursor = placeOf(event), painting = true;
    if (tool === "box") corner = last;
    else dab(last);
    changed();
    event.preventDefault();
  });
  canvas.addEventListener("pointermove", (event) => {
    cursor = placeOf(event), pointing = true;
    if (last && tool !== "box") {
      for (const part of event.getCoalescedEvents?.() || [event]) {
        const at = placeOf(part);
        line(last, at);
        last = at;
      }
      changed();
    } else drawEditor();
  });
  const end = () => {
    if (last && corner) fillBox(corner, cursor);
    painting = false;
    if (last) changed();
    last = corner = null;
  };
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
  canvas.addEventListener("pointerleave", () => {
    if (!last) cursor = document.activeElement === canvas ? cursor : null, drawEditor();
  });
  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in moves) {
      cursor ||= { x: WIDTH >> 1, y: HEIGHT >> 1 };
      const by = event.shiftKey ? 4 : 1, [dx, dy] = moves[event.key];
      cursor = { x: Math.min(WIDTH - 1, Math.max(0, cursor.x + by * dx)), y: Math.min(HEIGHT - 1, Math.max(0, cursor.y + by * dy)) };
      drawEditor();
    } else if (event.key === " " || event.key === "Enter") {
      cursor ||= { x: WIDTH >> 1, y: HEIGHT >> 1 };
      if (tool === "box" && !corner) corner = cursor, drawEditor();
      else {
        remember();
        if (tool === "box") fillBox(corner, cursor), (corner = null);
        else dab(cursor);
        changed();
      }
    } else return;
    event.preventDefault();
  });
}

// ---- updates --------------------------------------------------------------------------------------------------------

// Redraw and sample again after a change of image, mask or settings; at most once a frame.
function changed() {
  element("undo").disabled = !done.length;
  element("redo").disabled = !undone.length;
  if (wanted) return;
  wanted = true;
  requestAnimationFrame(() => {
    wanted = false;
    drawEditor();
    update();
  });
}

// A change cancels a long run. A short run, of a few-step model, finishes first, and the next includes later changes, so
// that finished samples follow the brush.
async function update() {
  if (running && SHORT && state.steps <= RECIPE.sampling_steps) return void (again = true);
  running?.abort();
  const mine = (running = new AbortController()), { signal } = mine;
  const job = { pixels: state.pixels, mask: state.mask, seed: state.seed, steps: state.steps, signal };
  try {
    if (!SHORT && state.mask.some(Boolean)) {
      // The prediction at timestep T is nearly the mean of all samples: it follows the brush.
      const { pixels } = await complete({ ...job, samples: 1, steps: 1 });
      if (signal.aborted) return;
      show(element("mean"), pixels);
      document.dispatchEvent(new CustomEvent("inkfill:mean"));
      if (painting) await new Promise((go) => setTimeout(go, 100)); // prefer the next mean to half of the samples
      if (signal.aborted) return;
    }
    paths = new Map();
    const found = await complete({ ...job, samples: SAMPLES, onPrediction: (said) => !signal.aborted && predicted(said) });
    if (!signal.aborted) finished(found);
  } catch (error) {
    if (error.message !== "cancelled") say(`Sampling failed: ${error.message}`);
  }
  if (running === mine) running = null;
  if (again) (again = false), update();
}

// States and predictions of some samples at one timestep: extend their paths.
function predicted({ samples, t, state: states, prediction }) {
  samples.forEach((sample, i) => {
    const part = (bytes) => bytes.subarray(i * SIZE, (i + 1) * SIZE);
    if (!paths.has(sample)) paths.set(sample, []);
    paths.get(sample).push({ t, state: part(states), prediction: part(prediction) });
    show(element("eight").children[sample].firstChild, part(prediction));
  });
}

function finished(found) {
  results = { ...found, each: Array.from({ length: SAMPLES }, (_, k) => found.pixels.subarray(k * SIZE, (k + 1) * SIZE)) };
  for (let k = 0; k < SAMPLES; k++) {
    paths.get(k).push({ t: 0, state: results.each[k], prediction: results.each[k] });
    const button = element("eight").children[k], odds = found.labels?.[k], label = odds && odds.indexOf(Math.max(...odds));
    show(button.firstChild, results.each[k]);
    button.lastChild.textContent = odds ? `${label} · ${Math.round(100 * odds[label])} %` : "";
    button.setAttribute("aria-label", `Sample ${k + 1}${odds ? `, classified as ${label}` : ""}`);
  }
  showSummary(found);
  drawStrip();
  drawForward();
  writeAddress();
  document.dispatchEvent(new CustomEvent("inkfill:done", { detail: found }));
}

function showSummary({ labels, evaluations, ms }) {
  const mean = new Float32Array(SIZE), deviation = new Uint8Array(SIZE);
  for (const each of results.each) for (let i = 0; i < SIZE; i++) mean[i] += each[i] / SAMPLES;
  for (let i = 0; i < SIZE; i++) {
    const variance = results.each.reduce((sum, each) => sum + (each[i] - mean[i]) ** 2, 0) / SAMPLES;
    deviation[i] = Math.min(255, 2 * Math.sqrt(variance));
  }
  show(element("mean"), Uint8Array.from(mean, Math.round));
  show(element("deviation"), deviation);
  const missing = state.mask.reduce((a, b) => a + b, 0), known = state.truth.every(Boolean) && state.pixels.some(Boolean);
  element("truth").style.visibility = known ? "" : "hidden";
  show(element("original"), state.pixels);
  let squares = 0;
  for (let i = 0; i < SIZE; i++) squares += ((mean[i] - state.pixels[i]) / 255) ** 2;
  const off = Math.sqrt(squares / Math.max(1, missing * CHANNELS));
  element("error").textContent = known && missing ? `RMS error of the mean over missing pixels: ${off.toFixed(3)} (data range 1).` : "";
  const shares = labels ? Array.from({ length: 10 }, (_, d) => [d, labels.reduce((sum, odds) => sum + odds[d], 0) / SAMPLES]) : [];
  const words = shares.filter(([, share]) => share >= 0.05).sort((a, b) => b[1] - a[1]).map(([d, share]) => `${d}: ${share.toFixed(2)}`);
  element("shares").textContent = words.join(", ");
  say(missing ? `${SAMPLES} samples, NFE ${evaluations / SAMPLES}, ${Math.round(ms)} ms.` : "Nothing is masked: paint on the image.");
}

// ---- reverse and forward process ------------------------------------------------------------------------------------

const TILE = 64;

function drawTiles(canvas, rows, names, marked = -1) {
  const scale = Math.max(1, Math.round(TILE / Math.max(HEIGHT, WIDTH))), w = WIDTH * scale + 4, h = HEIGHT * scale + 4;
  canvas.width = w * names.length, canvas.height = h * rows.length + 16;
  canvas.style.background = "transparent";
  const context = canvas.getContext("2d"), small = new OffscreenCanvas(WIDTH, HEIGHT), style = getComputedStyle(document.body);
  context.imageSmoothingEnabled = false;
  rows.forEach((row, r) =>
    row.forEach((bytes, i) => {
      small.getContext("2d").putImageData(imageData(bytes), 0, 0);
      context.drawImage(small, i * w + 2, r * h + 2, w - 4, h - 4);
    }),
  );
  context.fillStyle = style.color;
  context.font = "11px system-ui, sans-serif";
  names.forEach((name, i) => context.fillText(name, i * w + 3, h * rows.length + 12));
  context.strokeStyle = "#ffb000", context.lineWidth = 2;
  if (marked >= 0) context.strokeRect(marked * w + 1, 1, w - 2, h * rows.length - 2);
}

function drawStrip() {
  const path = paths.get(chosen);
  if (!path) return;
  const at = shownStep < 0 ? path.length >> 1 : Math.min(shownStep, path.length - 1), strip = element("strip"), { t, state: held, prediction } = path[at];
  drawTiles(strip, [path.map((p) => p.state), path.map((p) => p.prediction)], path.map((p) => `t = ${p.t}`), at);
  strip.setAttribute("aria-valuemax", path.length - 1);
  strip.setAttribute("aria-valuenow", at);
  strip.setAttribute("aria-valuetext", `timestep ${t}`);
  show(element("state"), held);
  show(element("prediction"), prediction);
  element("state-name").textContent = `state, t = ${t}`;
  element("which").textContent = chosen + 1;
  [...element("eight").children].forEach((button, k) => button.setAttribute("aria-pressed", k === chosen));
}

async function drawForward() {
  const timesteps = Array.from({ length: 9 }, (_, i) => Math.round((i * RECIPE.T) / 8));
  const found = [], given = { pixels: state.pixels.slice(), seed: state.seed, image: 0 };
  await WORKERS.run("forward", given, timesteps, (said) => said.samples.forEach((t, i) => found.push([t, said.pixels.subarray(i * SIZE, (i + 1) * SIZE)])));
  found.sort((a, b) => a[0] - b[0]);
  drawTiles(element("forward"), [found.map(([, bytes]) => bytes)], found.map(([t]) => `t = ${t}`));
}

function listenToStrip() {
  const strip = element("strip");
  const go = (step) => ((shownStep = step), drawStrip());
  const at = (event) => {
    const box = strip.getBoundingClientRect(), path = paths.get(chosen);
    if (path) go(Math.min(path.length - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * path.length))));
  };
  strip.addEventListener("pointermove", at);
  strip.addEventListener("pointerdown", at);
  strip.addEventListener("keydown", (event) => {
    const last = (paths.get(chosen)?.length || 1) - 1, now = shownStep < 0 ? (last + 1) >> 1 : Math.min(shownStep, last);
    const next = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last }[event.key];
    if (next === undefined) return;
    go(Math.min(last, Math.max(0, next)));
    event.preventDefault();
  });
}

// ---- images in ------------------------------------------------------------------------------------------------------

function take(pixels, { mask = null, truth = null, digit = -1 } = {}) {
  remember();
  state.pixels = Uint8Array.from(pixels);
  state.truth = truth || new Uint8Array(AREA).fill(1);
  state.mask = mask || state.mask.map((missing, p) => (missing || !state.truth[p] ? 1 : 0));
  state.digit = digit;
  changed();
}

// Box-filtered RGBA of an image on another grid: Float32Array [height * width * 4].
function averaged(image, height, width, left = 0, top = 0, wide = image.width, tall = image.height) {
  const out = new Float32Array(height * width * 4);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const [x0, x1] = [left + (x * wide) / width, left + ((x + 1) * wide) / width];
      const [y0, y1] = [top + (y * tall) / height, top + ((y + 1) * tall) / height];
      let weight = 0;
      for (let v = Math.floor(y0); v < y1; v++)
        for (let u = Math.floor(x0); u < x1; u++) {
          const share = (Math.min(x1, u + 1) - Math.max(x0, u)) * (Math.min(y1, v + 1) - Math.max(y0, v));
          const within = (value, size) => Math.min(size - 1, Math.max(0, value)); // edges are repeated
          const i = 4 * (within(v, image.height) * image.width + within(u, image.width));
          weight += share;
          for (let c = 0; c < 4; c++) out[4 * (y * width + x) + c] += share * image.data[i + c];
        }
      for (let c = 0; c < 4; c++) out[4 * (y * width + x) + c] /= weight;
    }
  return out;
}

// An image in the size of the training images; digits as in MNIST: 20 pixels of ink, centred by mass.
function fitted(image, invert, light) {
  const values = new ImageData(image.width, image.height);
  values.data.set(image.data);
  for (let i = 0; i < values.data.length; i += 4) {
    const grey = 0.299 * image.data[i] + 0.587 * image.data[i + 1] + 0.114 * image.data[i + 2];
    for (let c = 0; c < 3; c++) {
      const value = CHANNELS === 1 ? grey : image.data[i + c];
      values.data[i + c] = invert ? 255 - value : value;
    }
  }
  const whole = Math.max(image.width / WIDTH, image.height / HEIGHT), cover = Math.min(image.width / WIDTH, image.height / HEIGHT);
  let scale = cover, x = (image.width - cover * WIDTH) / 2, y = (image.height - cover * HEIGHT) / 2;
  if (DIGITS && (image.width !== WIDTH || image.height !== HEIGHT)) {
    let [left, top, right, bottom, mass, mx, my] = [image.width, image.height, -1, -1, 0, 0, 0];
    for (let i = 0; i < values.data.length; i += 4) {
      const value = invert === light ? values.data[i] : 255 - values.data[i]; // ink is white
      const u = (i / 4) % image.width, v = Math.floor(i / 4 / image.width);
      if (value < 100) continue;
      (left = Math.min(left, u)), (right = Math.max(right, u)), (top = Math.min(top, v)), (bottom = Math.max(bottom, v));
      (mass += value), (mx += value * (u + 0.5)), (my += value * (v + 0.5));
    }
    scale = right < 0 ? whole : Math.max(right - left + 1, bottom - top + 1) / 20;
    [x, y] = right < 0 ? [0, 0] : [mx / mass - (scale * WIDTH) / 2, my / mass - (scale * HEIGHT) / 2];
  }
  const out = averaged(values, HEIGHT, WIDTH, x, y, scale * WIDTH, scale * HEIGHT), pixels = new Uint8Array(SIZE), truth = new Uint8Array(AREA);
  const clear = image.data.some((value, i) => i % 4 === 3 && value < 128);
  for (let p = 0; p < AREA; p++) {
    truth[p] = clear && out[4 * p + 3] < 128 ? 0 : 1;
    for (let c = 0; c < CHANNELS; c++) pixels[p * CHANNELS + c] = Math.round(out[4 * p + c]);
  }
  return { pixels, truth };
}

function isLight(image) {
  let sum = 0, count = 0;
  for (let y = 0; y < image.height; y++)
    for (let x = 0; x < image.width; x++)
      if (!x || !y || x === image.width - 1 || y === image.height - 1) (sum += image.data[4 * (y * image.width + x)]), count++;
  return sum / count > 140;
}

async function readImage(file) {
  const kinds = ["image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp"];
  try {
    if (!kinds.includes(file.type)) throw new Error("it is no PNG, JPEG, GIF, WebP or BMP");
    if (file.size > 2 ** 25) throw new Error("it is larger than 32 MB");
    const bitmap = await createImageBitmap(file).catch(() => Promise.reject(new Error("the browser cannot read it")));
    if (Math.max(bitmap.width, bitmap.height) > 4096)
      throw new Error(`it has ${bitmap.width}x${bitmap.height} pixels; the limit is 4096x4096`);
    const shrink = Math.min(1, 640 / Math.max(bitmap.width, bitmap.height)), canvas = new OffscreenCanvas(Math.max(1, Math.round(bitmap.width * shrink)), Math.max(1, Math.round(bitmap.height * shrink)));
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    const image = context.getImageData(0, 0, canvas.width, canvas.height), light = isLight(image), invert = Boolean(DIGITS) && light;
    const use = (inverted) => {
      const { pixels, truth } = fitted(image, inverted, light);
      take(pixels, { truth, mask: truth.map((is) => 1 - is) });
    };
    use(invert);
    offer(invert ? "It was dark on white and was inverted: the network was trained on white on black." : "", "Undo the inversion", () => use(false));
    say("Image opened and resized.");
  } catch (error) {
    say(`The file was not opened: ${error.message}.`);
  }
}

function offer(text, label, act) {
  const place = element("offer");
  place.hidden = !text;
  place.textContent = text ? `${text} ` : "";
  if (text) place.append(button(label, () => (act(), (place.hidden = true))));
}

// ---- images out -----------------------------------------------------------------------------------------------------

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function png(columns, paint = null) {
  const canvas = new OffscreenCanvas(WIDTH * columns.length, HEIGHT), context = canvas.getContext("2d");
  columns.forEach((bytes, i) => context.putImageData(imageData(bytes, paint), i * WIDTH, 0));
  return canvas.convertToBlob({ type: "image/png" });
}

// The samples as a .npy file: uint8 [1, K, H, W] or [1, K, H, W, C].
function npy() {
  const shape = [1, SAMPLES, HEIGHT, WIDTH, ...(CHANNELS > 1 ? [CHANNELS] : [])].join(", ");
  const words = `{'descr': '|u1', 'fortran_order': False, 'shape': (${shape}), }`, header = `${words.padEnd(117)}\n`;
  return new Blob([new Uint8Array([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, 118, 0]), header, results.pixels]);
}

async function copyChosen() {
  try {
    await navigator.clipboard.write([new ClipboardItem({ "image/png": png([results.each[chosen]]) })]);
    say("Copied.");
  } catch {
    say("This browser does not allow copying images: save it instead.");
  }
}

function listenToSaving() {
  element("copy").onclick = copyChosen;
  element("save-one").onclick = async () => save(await png([results.each[chosen]]), `sample-${chosen + 1}.png`);
  element("save-all").onclick = async () => save(await png(results.each), "samples.png");
  element("save-npy").onclick = () => save(npy(), "filled.npy");
  element("save-picture").onclick = async () => {
    save(await png([state.pixels]), "image.png");
    save(await png([state.pixels], (p, rgb) => rgb.fill(state.mask[p] ? 255 : 0)), "mask.png");
  };
}

// ---- the address ----------------------------------------------------------------------------------------------------

const asText = (bytes) => base64Of(bytes).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
const fromText = (text) => bytesOf(text.replaceAll("-", "+").replaceAll("_", "/"));

function packedBits(flags) {
  const bytes = new Uint8Array(Math.ceil(flags.length / 8));
  flags.forEach((flag, i) => (bytes[i >> 3] |= flag << (i & 7)));
  return asText(bytes);
}

function unpackedBits(text) {
  const bytes = fromText(text);
  if (bytes.length !== Math.ceil(AREA / 8)) throw new Error("mask");
  return Uint8Array.from({ length: AREA }, (_, i) => (bytes[i >> 3] >> (i & 7)) & 1);
}

function writeAddress() {
  const parts = new URLSearchParams({ seed: state.seed, steps: state.steps });
  if (state.digit >= 0) parts.set("start", state.digit);
  else parts.set("picture", asText(state.pixels));
  parts.set("mask", packedBits(state.mask));
  if (!state.truth.every(Boolean)) parts.set("truth", packedBits(state.truth));
  history.replaceState(null, "", `#${parts}`);
  element("python").textContent =
    `inkfill inpaint image.png --mask mask.png --seed ${state.seed} --samples ${SAMPLES} --steps ${state.steps} \\\n  ` +
    `${ABOUT.checkpoint === "mnist" ? "" : `--checkpoint ${ABOUT.checkpoint} `}--dtype float32 --out filled.npy`;
}

// Restore the state in the address, if it fits this page; returns whether it did.
function readAddress() {
  const parts = new URLSearchParams(location.hash.slice(1));
  if (!parts.has("mask")) return false;
  try {
    const whole = (name, low, high) => {
      const value = Number(parts.get(name));
      if (!Number.isInteger(value) || value < low || value > high) throw new Error(name);
      return value;
    };
    const [seed, steps] = [whole("seed", 0, Number.MAX_SAFE_INTEGER), whole("steps", 1, 50)], mask = unpackedBits(parts.get("mask"));
    const truth = parts.has("truth") ? unpackedBits(parts.get("truth")) : null;
    const digit = parts.has("start") ? whole("start", 0, STARTS.length - 1) : -1;
    const pixels = digit >= 0 ? STARTS[digit] : fromText(parts.get("picture") || "");
    if (pixels.length !== SIZE) throw new Error("picture");
    Object.assign(state, { seed, steps });
    take(pixels, { mask, truth, digit });
    return true;
  } catch (error) {
    say(`The address was ignored: its ${error.message} does not fit this page.`);
    return false;
  }
}

// ---- controls and start ---------------------------------------------------------------------------------------------

const STARTS = ABOUT.starts.map((text) => bytesOf(text));
const TOOLS = [["hide", "Hide"], ["box", "Box"], ["show", "Unhide"], ["ink", "Ink"], ["rub", "Erase"]];
const PRESETS = {
  left: (x) => x < WIDTH / 2,
  right: (x) => x >= WIDTH / 2,
  top: (x, y) => y < HEIGHT / 2,
  bottom: (x, y) => y >= HEIGHT / 2,
  middle: (x, y) => Math.abs(x + 0.5 - WIDTH / 2) < WIDTH / 5 && Math.abs(y + 0.5 - HEIGHT / 2) < HEIGHT / 5,
  random: () => Math.random() < 0.8,
  all: () => true,
  none: () => false,
};

function button(text, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.onclick = act;
  return made;
}

function choose(name) {
  tool = name, corner = null;
  for (const each of element("tool").children) {
    const is = each.dataset.tool === name;
    each.setAttribute("aria-checked", is);
    each.tabIndex = is ? 0 : -1;
  }
  element("colour").hidden = name !== "ink" || CHANNELS < 3;
}

function setBrush(size) {
  brush = Math.min(12, Math.max(1, size));
  element("brush").value = brush;
  element("brush-size").textContent = brush;
  drawEditor();
}

function step(from, to) {
  if (!from.length) return;
  to.push(copied(state));
  Object.assign(state, from.pop());
  changed();
}

function makeTools() {
  for (const [name, text] of TOOLS) {
    const made = button(text, () => choose(name));
    made.setAttribute("role", "radio");
    made.dataset.tool = name;
    element("tool").append(made);
  }
  element("tool").addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!by) return;
    const next = (TOOLS.findIndex(([name]) => name === tool) + by + TOOLS.length) % TOOLS.length;
    choose(TOOLS[next][0]);
    element("tool").children[next].focus();
    event.preventDefault();
  });
  for (const [name, hides] of Object.entries(PRESETS))
    element("presets").append(
      button(name, () => {
        remember();
        state.mask = state.truth.map((is, p) => (!is || hides(p % WIDTH, Math.floor(p / WIDTH)) ? 1 : 0));
        changed();
      }),
    );
  STARTS.forEach((pixels, i) => {
    const made = button("", () => take(pixels, { digit: i }));
    made.setAttribute("aria-label", ABOUT.start_names[i]);
    made.append(document.createElement("canvas"));
    show(made.firstChild, pixels);
    element("digits").append(made);
  });
  for (let k = 0; k < SAMPLES; k++) {
    const made = button("", () => ((chosen = k), (shownStep = -1), drawStrip()));
    made.setAttribute("aria-label", `Sample ${k + 1}`);
    made.append(document.createElement("canvas"), document.createElement("span"));
    show(made.firstChild, new Uint8Array(SIZE));
    element("eight").append(made);
  }
}

function peek(is) {
  peeking = is;
  drawEditor();
}

function listen() {
  element("brush").oninput = (event) => setBrush(Number(event.target.value));
  element("undo").onclick = () => step(done, undone);
  element("redo").onclick = () => step(undone, done);
  element("blank").onclick = () => (take(new Uint8Array(SIZE), { mask: new Uint8Array(AREA) }), choose("ink"));
  element("open").onclick = () => element("file").click();
  element("file").onchange = ({ target }) => (target.files[0] && readImage(target.files[0]), (target.value = ""));
  element("again").onclick = () => ((state.seed = Math.floor(Math.random() * 1e6)), showSettings(), changed());
  element("seed").onchange = ({ target }) => ((state.seed = Math.min(Number.MAX_SAFE_INTEGER, Math.max(0, Math.floor(Number(target.value) || 0)))), showSettings(), changed());
  element("steps").onchange = ({ target }) => ((state.steps = Math.min(50, Math.max(1, Math.floor(Number(target.value) || 1)))), showSettings(), changed());
  for (const [name, is] of [["pointerdown", true], ["pointerup", false], ["pointerleave", false]]) element("peek").addEventListener(name, () => peek(is));
  element("peek").addEventListener("keydown", (event) => event.key === " " && peek(true));
  element("peek").addEventListener("keyup", () => peek(false));
  addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && event.target.type !== "number") {
      event.shiftKey ? step(undone, done) : step(done, undone);
      event.preventDefault();
    } else if (event.target.type !== "number" && (event.key === "[" || event.key === "]")) setBrush(brush + (event.key === "]" ? 1 : -1));
    if (event.key !== "Tab") pointing = false;
    else if (pointing && element("editor").matches(":hover")) peek(true), event.preventDefault();
  });
  addEventListener("keyup", (event) => event.key === "Tab" && peeking && peek(false));
  addEventListener("paste", (event) => [...event.clipboardData.files].slice(0, 1).forEach(readImage));
  for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]])
    addEventListener(name, (event) => {
      event.preventDefault();
      document.body.classList.toggle("over", over);
      if (name === "drop") [...event.dataTransfer.files].slice(0, 1).forEach(readImage);
    });
  addEventListener("hashchange", readAddress);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => (drawStrip(), drawForward()));
  listenToStrokes();
  listenToStrip();
  listenToSaving();
}

function showSettings() {
  element("seed").value = state.seed;
  element("steps").value = state.steps;
}

async function begin() {
  element("lead").textContent = ABOUT.lead;
  element("about-page").textContent = ABOUT.footer;
  element("sampler-words").textContent = ABOUT.sampler_words;
  element("same").textContent = ABOUT.float32 ? "" : " (this page has 16-bit weights, so values may differ slightly; inkfill page --float32 writes one with equal samples)";
  element("editor").setAttribute("aria-label", `Image of ${HEIGHT} by ${WIDTH} pixels; blue is masked`);
  makeTools();
  choose("hide");
  setBrush(brush);
  listen();
  const first = { mask: Uint8Array.from({ length: AREA }, (_, p) => Number(PRESETS.left(p % WIDTH))), digit: Math.min(3, STARTS.length - 1) };
  if (!readAddress()) take(STARTS[first.digit], first);
  done.length = 0;
  showSettings();
  drawEditor();
  changed();
  try {
    await WORKERS.ready;
  } catch (error) {
    say(`The network cannot run in this browser: ${error.message}`);
  }
}

begin();
