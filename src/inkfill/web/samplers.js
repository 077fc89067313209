// samplers.py and methods/: from noise to an image, one flat function each, with a visible loop.
//
// All take a denoiser (a promise of x0_hat), a starting state x at levels[0], the schedule, levels falling to 0, the
// noise, and `watch(t, x, x0Hat)`, which is called at every level.

async function ddim(denoise, x, schedule, levels, noise, watch, eta = 0) {
  for (let i = 0; i + 1 < levels.length; i++) {
    const [t, s] = [levels[i], levels[i + 1]];
    const x0Hat = await denoise(x, t);
    watch(t, x, x0Hat);
    x = schedule.reverseStep(x, x0Hat, t, s, eta, eta > 0 && s > 0 ? noise() : null);
  }
  return x;
}

// DPM-Solver++(2M) (Lu et al. 2022, algorithm 2); eta = 1 is its stochastic form.
async function dpmpp2m(denoise, x, schedule, levels, noise, watch, eta = 0) {
  const logSnr = (t) => Math.log(schedule.alphaBar[t] / Math.max(1 - schedule.alphaBar[t], 1e-12)) / 2;
  let before = null, hBefore = 0;
  for (let i = 0; i + 1 < levels.length; i++) {
    const [t, s] = [levels[i], levels[i + 1]];
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

// methods/guided.py: the network is told what is known, and a sampler does the rest.
async function conditional(task) {
  const { sampler, schedule, levels, noise, denoise, watch } = task;
  return SAMPLERS[sampler](denoise, noise(), schedule, levels, noise, watch);
}

// methods/chains.py: a draw of x0, noised again to the next level, and drawn anew from there.
async function few(task) {
  const { schedule, levels, noise, denoise, watch } = task;
  let x = noise();
  for (let i = 0; i + 1 < levels.length; i++) {
    const [t, s] = [levels[i], levels[i + 1]];
    const x0 = await denoise(x, t, t < schedule.T ? noise() : null);
    watch(t, x, x0);
    x = s ? schedule.qSample(x0, s, noise()) : x0;
  }
  return x;
}
