// core/samplers.py and methods/: from noise to an image, one function each, with a visible loop.
//
// A sampler takes a denoiser (it returns a promise of x0_hat), a starting state x at timesteps[0], the schedule,
// timesteps falling to 0, the noise, and `watch(t, x, x0Hat)`, which is called at every timestep.

async function ddim(denoise, x, schedule, timesteps, noise, watch, eta = 0) {
  for (let i = 0; i + 1 < timesteps.length; i++) {
    const [t, s] = [timesteps[i], timesteps[i + 1]];
    const x0Hat = await denoise(x, t);
    watch(t, x, x0Hat);
    x = schedule.reverseStep(x, x0Hat, t, s, eta, eta > 0 && s > 0 ? noise() : null);
  }
  return x;
}

// DPM-Solver++(2M) (Lu et al. 2022, algorithm 2); eta = 1 is its stochastic form.
async function dpmpp2m(denoise, x, schedule, timesteps, noise, watch, eta = 0) {
  const logSnr = (t) => Math.log(schedule.alphaBar[t] / Math.max(1 - schedule.alphaBar[t], 1e-12)) / 2;
  let before = null, hBefore = 0;
  for (let i = 0; i + 1 < timesteps.length; i++) {
    const [t, s] = [timesteps[i], timesteps[i + 1]];
    const x0Hat = await denoise(x, t);
    watch(t, x, x0Hat);
    if (s === 0) return x0Hat;
    const h = logSnr(s) - logSnr(t);
    // First order is a DDIM step towards x0_hat; second order is the same step towards the extrapolated target.
    const ratio = fround(h / hBefore / 2);
    const target = before ? x0Hat.map((value, j) => value + fround(fround(value - before[j]) * ratio)) : x0Hat;
    x = schedule.reverseStep(x, target, t, s, eta, eta > 0 ? noise() : null);
    before = x0Hat, hBefore = h;
  }
}

const SAMPLERS = {
  ddim,
  ancestral: (...given) => ddim(...given, 1),
  dpmpp: dpmpp2m,
  "dpmpp-sde": (...given) => dpmpp2m(...given, 1),
};

// methods/guided.py: the network is conditioned on the observed pixels, and any sampler runs it.
async function conditional(task) {
  const { sampler, schedule, timesteps, noise, denoise, watch } = task;
  return SAMPLERS[sampler](denoise, noise(), schedule, timesteps, noise, watch);
}

// methods/chains.py: a sample of x0, noised to the next timestep, and drawn again from there.
async function few(task) {
  const { schedule, timesteps, noise, denoise, watch } = task;
  let x = noise();
  for (let i = 0; i + 1 < timesteps.length; i++) {
    const [t, s] = [timesteps[i], timesteps[i + 1]];
    const x0 = await denoise(x, t, t < schedule.T ? noise() : null);
    watch(t, x, x0);
    x = s ? schedule.qSample(x0, s, noise()) : x0;
  }
  return x;
}
