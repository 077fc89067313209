"""Methods that optimise within a step: the state, or a distribution of it, is fitted to what is known."""

from itertools import pairwise

import torch
from torch import Tensor

from inkfill.methods.task import Task


def copaint(task: Task, iterations: int = 4, rate: float = 0.3, tolerance: float = 0.1) -> Tensor:
    """CoPaint (Zhang et al. 2023, "Towards coherent image inpainting using denoising diffusion implicit models").

    At every level x_t moves, by ``iterations`` steps of gradient descent, to where its one-step prediction agrees with
    what is known without leaving where the chain put it (their eq. 10); then a deterministic DDIM step follows. The
    ``tolerance`` is their xi: how far a prediction may be off, more at high levels. Without their time travel. At level
    T x_t is held to the noise that was drawn: held to 0, the prior's mean, every pixel would shrink.
    """
    schedule, x = task.schedule, task.noise()
    centre, spread = x, 1.0  # of x_t before what is known
    for t, s in pairwise(task.levels):
        a = float(schedule.alpha_bar[t])
        variance = tolerance**2 * (1 - a) + task.observation.noise**2 + 1e-4
        x0_hat, _, gradient = task.likelihood_gradient(x, t, variance)
        for _ in range(iterations):
            # 1. Up the log posterior, by a step that its curvature on known pixels (a / variance) allows.
            pull = gradient + (centre - x) / spread**2
            x = x + rate / (a / variance + 1 / spread**2) * pull
            x0_hat, _, gradient = task.likelihood_gradient(x, t, variance)
        task.seen(t, x, x0_hat)
        # 2. A DDIM step from there; how far x_s may be from it is the ancestral step's deviation.
        centre = schedule.reverse_step(x, x0_hat, t, s, 0.0, None)
        spread = max(float(schedule.q_posterior(x0_hat, x, t, s)[1]) ** 0.5, 1e-3)
        x = centre
    return x


def mgps(task: Task, middle: float = 0.75, iterations: int = 2, rate: float = 0.5) -> Tensor:
    """Midpoint guided posterior sampling (Moufad et al. 2024, "Variational diffusion posterior sampling with midpoint
    guidance", algorithm 1).

    The likelihood is read at a level between 0 and s (``middle`` times s), where predictions err less. p(x_m given x_t,
    y) is fitted by a Gaussian of independent pixels: ``iterations`` steps of gradient descent on its mean and log
    deviation, each through the denoiser at one draw of it (their eq. 3.7). x_m is drawn from it, and x_s from the
    bridge q(x_s given x_m, x_t). Beside the paper, the likelihood is widened by .1 (1 - a) / a, for what a prediction
    at level m errs, and the steps are divided by the curvature. The last step fits nothing: exact known pixels are put
    in by the driver, and noisy ones are as the prior predicts them.
    """
    schedule, observation, x = task.schedule, task.observation, task.noise()
    for t, s in pairwise(task.levels):
        x0_hat = task.unconditional(x, t)
        task.seen(t, x, x0_hat)
        if s == 0:
            return x0_hat
        m = max(1, int(middle * s))
        # 1. Before what is known: x_m given x_t, as the ancestral step has it.
        centre, variance = schedule.q_posterior(x0_hat, x, t, m)
        mean, log_ratio = centre, torch.zeros_like(x)
        deviation, a = float(variance) ** 0.5, float(schedule.alpha_bar[m])
        likelihood = (1 - a) / a * 0.1 + observation.noise**2 + 1e-4
        step = rate / (a / likelihood + 1 / float(variance))
        for _ in range(iterations):
            # 2. Down the divergence: the prior's pull in closed form, the likelihood's at one draw.
            z = task.noise()
            drawn = mean + deviation * log_ratio.exp() * z
            _, _, gradient = task.likelihood_gradient(drawn, m, likelihood)
            mean = mean + step * (gradient + (centre - mean) / float(variance))
            slope = gradient * z * deviation * log_ratio.exp() + 1 - (2 * log_ratio).exp()
            log_ratio = (log_ratio + rate / 4 * slope.clamp(-1, 1)).clamp(-3, 1)
        drawn = mean + deviation * log_ratio.exp() * task.noise()
        # 3. The bridge: x_s given x_m and x_t, a Gaussian chain.
        x = _bridge(task, drawn, x, m, s, t)
    return x


def _bridge(task: Task, x_m: Tensor, x_t: Tensor, m: int, s: int, t: int) -> Tensor:
    """A draw of x_s given x_m and x_t, for m <= s < t: both are one noising away from it."""
    if m == s:
        return x_m
    a_m, a_s, a_t = (float(task.schedule.alpha_bar[level]) for level in (m, s, t))
    up, down = a_s / a_m, a_t / a_s  # x_s given x_m: N(sqrt(up) x_m, 1 - up); x_t given x_s alike
    variance = 1 / (1 / (1 - up) + down / (1 - down))
    mean = variance * (up**0.5 / (1 - up) * x_m + down**0.5 / (1 - down) * x_t)
    return mean + variance**0.5 * task.noise()
