// models/model.py and filling/inpaint.py: one network in a worker. Jobs and results are messages.

class Model {
  constructor({ wasm, about, weights, classifier }) {
    const { recipe, config, alpha_bar } = about;
    this.machine = new Machine(new WebAssembly.Module(wasm));
    this.net = new UNet(this.machine, weights, config, recipe.image_size);
    this.classifier = classifier && new Classifier(this.machine, classifier);
    this.schedule = new Schedule(alpha_bar);
    this.recipe = recipe;
  }

  // Posterior means of x0 given x_t and the observed pixels; samples of x0 from a few-step model.
  denoiser(pixels, known, pause) {
    const embedded = this.net.embed(pixels, known), { T } = this.schedule;
    return async (xt, t, latent = null) => {
      const x0 = this.schedule.x0FromV(xt, t, this.net.forward(xt, known, t / T, embedded, latent));
      for (let i = 0; i < x0.length; i++)
        x0[i] = known[i % known.length] ? pixels[i % pixels.length] : Math.min(1, Math.max(-1, x0[i]));
      await pause();
      return x0;
    };
  }

  // Samples of one image: bytes [rows, H, W, C], observed pixels unchanged.
  async inpaint({ pixels, mask, seed, image, samples, steps, sampler }, pause, watch) {
    const { channels, floor, objective } = this.recipe, area = mask.length, count = channels * area;
    const known = Float32Array.from(mask, (missing) => (missing ? 0 : 1)), x0 = new Float32Array(count);
    for (let p = 0; p < area; p++)
      for (let c = 0; c < channels; c++) x0[c * area + p] = fround(pixels[p * channels + c] / fround(127.5)) - 1;
    const streams = new SampleNoise(this.machine, seed, image, samples, count);
    const bytes = (values, low) => {
      const out = new Uint8Array(values.length);
      for (let i = 0; i < out.length; i++) {
        const row = Math.floor(i / count), p = Math.floor((i % count) / channels), c = i % channels;
        const value = fround(fround(values[row * count + c * area + p] + 1) * 127.5);
        out[i] = mask[p] ? Math.min(255, Math.max(0, roundHalfEven(value))) : pixels[i % count];
        if (mask[p] && out[i] <= low) out[i] = 0;
      }
      return out;
    };
    const task = {
      sampler,
      schedule: this.schedule,
      timesteps: spacedTimesteps(this.schedule.T, steps),
      noise: () => streams.draw(),
      denoise: this.denoiser(x0, known, pause),
      watch: (t, x, x0Hat) => watch(t, () => ({ state: bytes(x, 0), prediction: bytes(x0Hat, 0) })),
    };
    return bytes(await (objective === "few" ? few(task) : conditional(task)), floor);
  }

  // One image at several timesteps with the same noise: bytes [timesteps, H, W, C].
  forward({ pixels, seed, image, samples: timesteps }) {
    const { channels } = this.recipe, area = pixels.length / channels, x0 = new Float32Array(pixels.length);
    for (let i = 0; i < x0.length; i++) x0[(i % channels) * area + Math.floor(i / channels)] = pixels[i] / 127.5 - 1;
    const eps = new SampleNoise(this.machine, seed, image, [0], pixels.length).draw(), out = [];
    for (const t of timesteps) {
      const xt = this.schedule.qSample(x0, t, eps);
      for (let i = 0; i < x0.length; i++) out.push((xt[(i % channels) * area + Math.floor(i / channels)] + 1) * 127.5);
    }
    return Uint8ClampedArray.from(out);
  }

  labels(pixels) {
    return this.classifier ? this.classifier.judge(Float32Array.from(pixels, (byte) => byte / 127.5 - 1)) : null;
  }
}

// ---- messages -------------------------------------------------------------------------------------------------------

const cancelled = new Set(), waiting = [], channel = new MessageChannel();
let model = null;
channel.port1.onmessage = () => waiting.shift()();
// Receive waiting messages, so that a job can be cancelled between network evaluations (setTimeout would wait 4 ms).
const receiveWaiting = () => new Promise((go) => (waiting.push(go), channel.port2.postMessage(0)));

async function run(job) {
  let evaluations = 0;
  const pause = async () => {
    evaluations += job.samples.length;
    await receiveWaiting();
    if (cancelled.has(job.id)) throw new Error("cancelled");
  };
  const watch = (t, show) => job.watch && postMessage({ id: job.id, kind: "prediction", samples: job.samples, t, ...show() });
  try {
    const pixels = await model.inpaint(job, pause, watch), size = pixels.length / job.samples.length;
    const labels = job.samples.map((_, i) => model.labels(pixels.subarray(i * size, (i + 1) * size)));
    postMessage({ id: job.id, kind: "done", samples: job.samples, pixels, labels, evaluations });
  } catch (error) {
    postMessage({ id: job.id, kind: "failed", message: error.message });
  }
  cancelled.delete(job.id);
}

function receive({ data }) {
  if (data.kind === "load") {
    try {
      model = new Model(data);
      postMessage({ kind: "ready" });
    } catch (error) {
      postMessage({ kind: "broken", message: error.message });
    }
  } else if (data.kind === "cancel") cancelled.add(data.id);
  else if (data.kind === "run") run(data);
  else if (data.kind === "forward") postMessage({ ...data, kind: "done", pixels: model.forward(data) });
}
if (typeof document === "undefined") onmessage = receive;
