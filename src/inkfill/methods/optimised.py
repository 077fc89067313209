"""Methods that optimise within a step: the state, or its distribution, is fitted to the observed pixels."""

from itertools import pairwise

import torch
from torch import Tensor

from inkfill.methods.registry import Settings, method
from inkfill.methods.task import Task


def _copaint_cost(steps: int, settings: Settings) -> int:
    return steps * (1 + int(settings["iterations"]))


@method("Zhang et al. 2023, arXiv 2304.03322", "never", gradient=True, noisy=True, cost=_copaint_cost)
def copaint(task: Task, iterations: int = 4, rate: float = 0.3, tolerance: float = 0.1) -> Tensor:
    """CoPaint (Zhang et al. 2023, "Towards coherent image inpainting using denoising diffusion implicit models").

    At every timestep, ``iterations`` steps of gradient descent move x_t to where its one-step prediction agrees with
    the observed pixels while x_t stays near the chain's state (their eq. 10); a deterministic DDIM step follows.
    ``tolerance`` is their xi, the expected error of a prediction, larger near T. Their time travel is left out. At T,
    x_t is held to the drawn noise and not to 0, the prior's mean, which would shrink every pixel.
    """
    schedule, x = task.schedule, task.noise()
    centre, deviation = x, 1.0  # of x_t before the observation
    for t, s in pairwise(task.timesteps):
        a = float(schedule.alpha_bar[t])
        variance = tolerance**2 * (1 - a) + task.observation.noise**2 + 1e-4
        x0_hat, _, gradient = task.likelihood_gradient(x, t, variance)
        for _ in range(iterations):
            # 1. Up the log posterior, with a step scaled by its curvature on observed pixels (a / variance).
            ascent = gradient + (centre - x) / deviation**2
            x = x + rate / (a / variance + 1 / deviation**2) * ascent
            x0_hat, _, gradient = task.likelihood_gradient(x, t, variance)
        task.watched(t, x, x0_hat)
        # 2. A DDIM step; the standard deviation of x_s around it is the ancestral step's.
        centre = schedule.reverse_step(x, x0_hat, t, s, 0.0, None)
        deviation = max(float(schedule.q_posterior(x0_hat, x, t, s)[1]) ** 0.5, 1e-3)
        x = centre
    return x


def _mgps_cost(steps: int, settings: Settings) -> int:
    return steps + (steps - 1) * int(settings["iterations"])


@method("Moufad et al. 2024, arXiv 2410.09945", "never", gradient=True, noisy=True, cost=_mgps_cost)
def mgps(task: Task, middle: float = 0.75, iterations: int = 2, rate: float = 0.5) -> Tensor:
    """Midpoint guided posterior sampling (Moufad et al. 2024, "Variational diffusion posterior sampling with midpoint
    guidance", algorithm 1).

    The likelihood is evaluated at a timestep m between 0 and s (``middle`` times s), where predictions are more
    accurate. A Gaussian with independent pixels is fitted to p(x_m given x_t, y): ``iterations`` steps of gradient
    descent on its mean and log standard deviation, each through the denoiser at one draw (their eq. 3.7). x_m is drawn
    from it, and x_s from the bridge q(x_s given x_m, x_t). Unlike the paper, the likelihood variance grows by
    0.1 (1 - a) / a, the error of a prediction at m, and steps are divided by the curvature. The last step fits nothing.
    """
    schedule, observation, x = task.schedule, task.observation, task.noise()
    for t, s in pairwise(task.timesteps):
        x0_hat = task.unconditional(x, t)
        task.watched(t, x, x0_hat)
        if s == 0:
            return x0_hat
        m = max(1, int(middle * s))
        # 1. Before the observation: x_m given x_t, as in the ancestral step.
        centre, variance = schedule.q_posterior(x0_hat, x, t, m)
        mean, log_ratio = centre, torch.zeros_like(x)
        deviation, a = float(variance) ** 0.5, float(schedule.alpha_bar[m])
        likelihood = (1 - a) / a * 0.1 + observation.noise**2 + 1e-4
        step = rate / (a / likelihood + 1 / float(variance))
        for _ in range(iterations):
            # 2. Down the divergence: the prior's term in closed form, the likelihood's at one draw.
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
    a_m, a_s, a_t = (float(task.schedule.alpha_bar[each]) for each in (m, s, t))
    up, down = a_s / a_m, a_t / a_s  # x_s given x_m: N(sqrt(up) x_m, 1 - up); x_t given x_s alike
    variance = 1 / (1 / (1 - up) + down / (1 - down))
    mean = variance * (up**0.5 / (1 - up) * x_m + down**0.5 / (1 - down) * x_t)
    return mean + variance**0.5 * task.noise()
