// core/schedule.py: the formulas of the forward and the reverse process. alpha_bar itself comes from Python.

const fround = Math.fround;

class Schedule {
  // alphaBar [T + 1] falls from exactly 1 at timestep 0.
  constructor(alphaBar) {
    this.alphaBar = alphaBar;
    this.T = alphaBar.length - 1;
  }

  // a x + b y, rounded to float32 as torch does.
  static mix(a, x, b, y) {
    const out = new Float32Array(x.length);
    a = fround(a), b = fround(b);
    for (let i = 0; i < out.length; i++) out[i] = fround(a * x[i]) + fround(b * y[i]);
    return out;
  }

  // A draw of x_t given x0 (Ho et al. 2020, eq. 4).
  qSample(x0, t, eps) {
    const a = this.alphaBar[t];
    return Schedule.mix(Math.sqrt(a), x0, Math.sqrt(1 - a), eps);
  }

  // eps = (x_t - sqrt(alpha_bar) x0) / sqrt(1 - alpha_bar).
  epsFromX0(xt, t, x0) {
    const a = this.alphaBar[t];
    return Schedule.mix(1 / Math.sqrt(1 - a), xt, -Math.sqrt(a / (1 - a)), x0);
  }

  // x0 = sqrt(alpha_bar) x_t - sqrt(1 - alpha_bar) v (Salimans and Ho 2022, appendix D).
  x0FromV(xt, t, v) {
    const a = this.alphaBar[t];
    return Schedule.mix(Math.sqrt(a), xt, -Math.sqrt(1 - a), v);
  }

  // x_s from x_t and the predicted clean image (Song et al. 2021, DDIM, eqs. 12 and 16); eta = 1 is ancestral.
  reverseStep(xt, x0Hat, t, s, eta, noise) {
    const at = this.alphaBar[t], as = this.alphaBar[s];
    const sigma2 = (eta ** 2 * (1 - as)) / (1 - at) * (1 - at / as);
    const direction = Math.sqrt(Math.max(0, 1 - as - sigma2));
    const xs = Schedule.mix(Math.sqrt(as), x0Hat, direction, this.epsFromX0(xt, t, x0Hat));
    return noise && eta > 0 ? Schedule.mix(1, xs, Math.sqrt(sigma2), noise) : xs;
  }
}

// `steps` timesteps from T down, evenly spaced, then 0; halves round to even, as in numpy.round.
function spacedTimesteps(T, steps) {
  return Array.from({ length: steps + 1 }, (_, i) => roundHalfEven(T - (i * T) / steps));
}

function roundHalfEven(x) {
  const low = Math.floor(x), rest = x - low;
  return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1;
}
