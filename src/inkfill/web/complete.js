// The entry point for code: unpacks the weights, starts workers, defines window.inkfill.complete, which draws samples.

const element = (id) => document.getElementById(id);
const ABOUT = JSON.parse(element("about").textContent);
const { recipe: RECIPE, config: CONFIG } = ABOUT;
const [HEIGHT, WIDTH] = RECIPE.image_size, CHANNELS = CONFIG.channels, AREA = HEIGHT * WIDTH;

function bytesOf(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

const base64Of = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));

async function inflated(id) {
  const packed = new Blob([bytesOf(element(id).textContent.trim())]).stream();
  return new Uint8Array(await new Response(packed.pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());
}

// Undo the sorting of bytes by significance: numbers of `size` bytes.
function interleaved(planes, size) {
  const out = new Uint8Array(planes.length), count = planes.length / size;
  for (let b = 0; b < size; b++) for (let i = 0; i < count; i++) out[size * i + b] = planes[b * count + i];
  return out.buffer;
}

function halfToFloat(half) {
  const sign = half & 0x8000 ? -1 : 1, exponent = (half >> 10) & 31, fraction = half & 1023;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}

// Tensors { shape, data } by name, from their concatenated numbers.
function tensors(shapes, numbers) {
  let at = 0;
  const named = {};
  for (const [name, { shape, scale }] of Object.entries(shapes)) {
    const count = shape.reduce((a, b) => a * b, 1), part = numbers.subarray(at, (at += count));
    named[name] = { shape, data: scale === undefined ? part : Float32Array.from(part, (value) => value * scale) };
  }
  return named;
}

async function unpacked() {
  const planes = await inflated("weights"), wide = ABOUT.float32;
  const table = wide ? null : Float32Array.from({ length: 65536 }, (_, half) => halfToFloat(half));
  const numbers = wide
    ? new Float32Array(interleaved(planes, 4))
    : Float32Array.from(new Uint16Array(interleaved(planes, 2)), (half) => table[half]);
  const classifier = ABOUT.classifier && tensors(ABOUT.classifier, new Int8Array((await inflated("classifier")).buffer));
  return { weights: tensors(ABOUT.tensors, numbers), classifier };
}

// ---- workers --------------------------------------------------------------------------------------------------------

// Each has a copy of the network; they share the samples of a job.
class Workers {
  constructor() {
    this.jobs = new Map();
    this.next = 1;
    this.ready = this.start();
  }

  async start() {
    const relaxed = bytesOf(element("kernels-relaxed").textContent), plain = bytesOf(element("kernels").textContent);
    this.relaxed = ABOUT.kernels !== "plain" && WebAssembly.validate(relaxed);
    const wasm = this.relaxed ? relaxed : plain, { weights, classifier } = await unpacked();
    const address = URL.createObjectURL(new Blob([element("engine").textContent], { type: "text/javascript" }));
    const count = Math.max(1, Math.min(4, navigator.hardwareConcurrency || 1));
    this.workers = await Promise.all(
      Array.from({ length: count }, () => {
        const worker = new Worker(address);
        return new Promise((resolve, reject) => {
          worker.onmessage = ({ data }) => {
            if (data.kind === "ready") resolve(worker);
            else if (data.kind === "broken") reject(new Error(data.message));
            else this.jobs.get(data.id)?.(data);
          };
          worker.onerror = (event) => reject(new Error(event.message));
          worker.postMessage({ kind: "load", wasm, about: { recipe: RECIPE, config: CONFIG, alpha_bar: ABOUT.alpha_bar }, weights, classifier });
        });
      }),
    );
  }

  // Share `samples` among the workers; `heard` is called with every message. Resolves when all are done.
  async run(kind, given, samples, heard, signal) {
    await this.ready;
    const parts = this.workers.map((_, w) => samples.filter((_, i) => i % this.workers.length === w));
    const ids = [];
    const work = parts.map((part, w) => {
      if (!part.length) return null;
      const id = this.next++, worker = this.workers[w];
      ids.push([worker, id]);
      return new Promise((resolve, reject) => {
        this.jobs.set(id, (said) => {
          if (said.kind === "failed") reject(new Error(said.message));
          heard(said);
          if (said.kind === "done") resolve();
        });
        worker.postMessage({ ...given, kind, id, samples: part });
      }).finally(() => this.jobs.delete(id));
    });
    const stop = () => ids.forEach(([worker, id]) => worker.postMessage({ kind: "cancel", id }));
    if (signal?.aborted) stop();
    signal?.addEventListener("abort", stop);
    return Promise.all(work).finally(() => signal?.removeEventListener("abort", stop));
  }
}

const WORKERS = new Workers();

function checked({ pixels, mask, height = HEIGHT, width = WIDTH, channels = CHANNELS, seed = 0, image = 0, samples = 8, steps }) {
  const whole = (name, value, low, high) => {
    if (!Number.isInteger(value) || value < low || value > high) throw new Error(`${name} must be from ${low} to ${high}`);
    return value;
  };
  if (height !== HEIGHT || width !== WIDTH || channels !== CHANNELS)
    throw new Error(`this network takes images of ${HEIGHT}x${WIDTH} pixels and ${CHANNELS} channels`);
  if (pixels?.length !== AREA * CHANNELS || mask?.length !== AREA) throw new Error(`pixels and mask must have ${AREA * CHANNELS} and ${AREA} values`);
  return {
    pixels: Uint8Array.from(pixels),
    mask: Uint8Array.from(mask, (missing) => (missing ? 1 : 0)),
    seed: whole("seed", seed, 0, Number.MAX_SAFE_INTEGER),
    image: whole("image", image, 0, 2 ** 24 - 1),
    samples: whole("samples", samples, 1, 1024),
    steps: whole("steps", steps ?? RECIPE.sampling_steps, 1, RECIPE.T),
    sampler: RECIPE.sampler,
  };
}

// Samples of an image: { pixels, mask, height, width, channels, seed, image, samples, steps } to { pixels [samples * H * W *
// C], evaluations, ms, labels }. `onPrediction` is called with the prediction x0_hat of every network evaluation; `signal`
// cancels.
async function complete(given) {
  const job = checked(given), size = AREA * CHANNELS, began = performance.now();
  const pixels = new Uint8Array(job.samples * size), labels = [];
  let evaluations = 0;
  const samples = Array.from({ length: job.samples }, (_, i) => i);
  const heard = (said) => {
    if (said.kind === "prediction") given.onPrediction?.(said);
    if (said.kind !== "done") return;
    said.samples.forEach((sample, i) => {
      pixels.set(said.pixels.subarray(i * size, (i + 1) * size), sample * size);
      labels[sample] = said.labels[i];
    });
    evaluations += said.evaluations;
  };
  await WORKERS.run("run", { ...job, watch: Boolean(given.onPrediction) }, samples, heard, given.signal);
  return { pixels, evaluations, ms: performance.now() - began, labels: labels[0] ? labels : null };
}

window.inkfill = { complete, about: ABOUT, ready: WORKERS.ready, relaxed: () => WORKERS.relaxed };
