"""Chains: the state is edited between steps."""

from itertools import pairwise

import torch
from torch import Tensor

from inkfill.core.samplers import ddim, spaced_timesteps
from inkfill.methods.registry import Settings, method
from inkfill.methods.task import Task


@method("Song et al. 2021, arXiv 2011.13456", "never")
def replacement(task: Task) -> Tensor:
    """Replacement (Song et al. 2021, score SDE, appendix I.2): observed pixels are the observation, noised to t."""
    schedule, observation, x = task.schedule, task.observation, task.noise()
    for t, s in pairwise(task.timesteps):
        # 1. Observed pixels: a new draw of q(x_t given y). Missing ones: the chain's.
        x = torch.where(observation.known, schedule.q_sample(observation.pixels, t, task.noise()), x)
        x0_hat = task.unconditional(x, t)
        task.watched(t, x, x0_hat)
        # 2. One ancestral step of the prior on the whole image.
        x = schedule.reverse_step(x, x0_hat, t, s, 1.0, task.noise())
    return x


@method("few-step models (reports/few.md)", "the model is", needs="generative")
def few(task: Task) -> Tensor:
    """Few-step sampling: draw x0 given x_t and the observed pixels, noise it to the next timestep, repeat.

    One step is one network evaluation: x_T is noise, and the sample is a function of it. Every further step draws x0
    from x_t with latent noise of its own. Exact draws stay exact in any number of steps; the error of inexact ones is
    smaller at lower timesteps. Training covers no timestep under T / 10 (``training.few.LOWEST``), so more than ten
    steps gain nothing.
    """
    x, T = task.noise(), task.schedule.T
    for t, s in pairwise(task.timesteps):
        x0 = task.draw(x, t, task.noise() if t < T else None)
        task.watched(t, x, x0)
        x = task.schedule.q_sample(x0, s, task.noise()) if s else x0
    return x


def repaint_path(steps: int, jump: int, repeats: int) -> list[int]:
    """The indices that RePaint visits, from ``steps`` down to 0 with jumps back up (Lugmayr et al. 2022, appendix).

    Whenever index 1, 1 + jump, 1 + 2 jump, ... is reached, go back up ``jump`` and come down again, ``repeats`` - 1
    times each. 250 steps with jump 10 and 10 repeats are 2,410 downward steps.
    """
    left = dict.fromkeys(range(1, steps - jump + 1, jump), repeats - 1)
    path = [steps]
    while path[-1] > 0:
        path.append(path[-1] - 1)
        if left.get(path[-1], 0) > 0:
            left[path[-1]] -= 1
            path.extend(range(path[-1] + 1, path[-1] + jump + 1))
    return path


def _path_length(steps: int, settings: Settings) -> int:
    path = repaint_path(steps, int(settings["jump"]), int(settings["repeats"]))
    return sum(following < index for index, following in pairwise(path))


@method("Lugmayr et al. 2022, arXiv 2201.09865", "never", cost=_path_length)
def repaint(task: Task, jump: int = 1, repeats: int = 5) -> Tensor:
    """RePaint (Lugmayr et al. 2022, algorithm 1): replacement, with jumps back up that harmonise the two parts.

    The defaults were chosen on validation digits (reports/posteriors.md); the paper has jump 10 and 10 repeats.
    """
    schedule, observation, x = task.schedule, task.observation, task.noise()
    timesteps = task.timesteps[::-1]  # timesteps[index] belongs to a path's index
    for index, following in pairwise(repaint_path(len(timesteps) - 1, jump, repeats)):
        t, s = timesteps[index], timesteps[following]
        if following > index:  # 3. Up: noise again (line 9).
            x = schedule.renoise(x, t, s, task.noise())
            continue
        # 1. The missing part: one ancestral step of the prior (lines 5 to 7).
        x0_hat = task.unconditional(x, t)
        task.watched(t, x, x0_hat)
        unknown = schedule.reverse_step(x, x0_hat, t, s, 1.0, task.noise())
        # 2. The observed part: the observation at the timestep reached (lines 4 and 8).
        x = torch.where(observation.known, schedule.q_sample(observation.pixels, s, task.noise()), unknown)
    return x


@method("Kawar et al. 2022, arXiv 2201.11793", "never", noisy=True)
def ddrm(task: Task, eta: float = 0.85) -> Tensor:
    """DDRM (Kawar et al. 2022, eqs. 7 and 8), with A a mask, whose singular values are 1, and their eta_b = 1.

    A fraction ``eta**2`` of each step's noise variance is new. Observed pixels at s are the observation plus the noise
    it lacks; at timesteps with less noise than the observation they move towards it. For exact observations it is ddnm
    with more new noise per step, and missing pixels have 85 % of the posterior standard deviation (a test).
    """
    schedule, observation, x = task.schedule, task.observation, task.noise()
    for t, s in pairwise(task.timesteps):
        x0_hat = task.unconditional(x, t)
        task.watched(t, x, x0_hat)
        a, z = float(schedule.alpha_bar[s]), task.noise()
        sigma = ((1 - a) / a) ** 0.5  # in their units, x / sqrt(alpha_bar)
        kept = (1 - eta**2) ** 0.5 * sigma
        missing = x0_hat + kept * schedule.eps_from_x0(x, t, x0_hat) + eta * sigma * z
        if sigma >= observation.noise:
            known = observation.pixels + (sigma**2 - observation.noise**2) ** 0.5 * z
        else:
            known = x0_hat + kept * (observation.pixels - x0_hat) / observation.noise + eta * sigma * z
        x = a**0.5 * torch.where(observation.known, known, missing)
    return x


@method("Zhu et al. 2023, arXiv 2305.08995", "never", noisy=True)
def diffpir(task: Task, strength: float = 1.0, zeta: float = 0.6) -> Tensor:
    """DiffPIR (Zhu et al. 2023, algorithm 1), with A a mask, so that their data step is a weighted mean per pixel.

    ``strength`` is their lambda (1 to 25 there), the weight of the prediction beside a noisy observation. A fraction
    ``zeta`` of each step's noise variance is new (0.6 is best on validation digits). For exact observations it is ddnm
    with this noise, and missing pixels have 88 % of the posterior standard deviation (a test).
    """
    schedule, observation, x = task.schedule, task.observation, task.noise()
    for t, s in pairwise(task.timesteps):
        # 1. The prediction of the prior (line 3).
        x0_hat = task.unconditional(x, t)
        task.watched(t, x, x0_hat)
        # 2. The proximal step: rho = lambda noise^2 / sigma^2 (line 4, their eq. 13).
        a_t = float(schedule.alpha_bar[t])
        rho = strength * observation.noise**2 * a_t / (1 - a_t)
        x0 = torch.where(observation.known, (observation.pixels + rho * x0_hat) / (1 + rho), x0_hat)
        # 3. Noise again: the noise of x_t relative to x0, and new noise (lines 5 and 6).
        eps = (1 - zeta) ** 0.5 * schedule.eps_from_x0(x, t, x0) + zeta**0.5 * task.noise()
        x = schedule.q_sample(x0, s, eps)
    return x


@method(
    "Zhang et al. 2024, arXiv 2407.01521", "never", noisy=True, cost=lambda steps, given: steps * int(given["inner"])
)
def daps(task: Task, inner: int = 3, prior_variance: float = 0.01) -> Tensor:
    """Decoupled annealing posterior sampling (Zhang et al. 2024, DAPS, algorithm 1).

    ``inner`` deterministic steps lead from x_t to a clean image; p(x0 given x_t) is approximated by N(that image,
    r_t^2 I) and multiplied by the likelihood, which for a mask needs no Langevin steps; the result is noised anew to
    the next timestep, so errors do not accumulate along the chain. Here r_t^2 is the posterior variance of a prior
    N(m, prior_variance I), where the paper uses the noise variance, and the last step takes the mean.
    """
    schedule, observation, x = task.schedule, task.observation, task.noise()
    for t, s in pairwise(task.timesteps):
        # 1. An image given x_t, along the probability flow ODE (line 3).
        state = ddim(task.unconditional, x, schedule, spaced_timesteps(t, min(inner, t)))
        task.watched(t, x, state)
        # 2. Times the likelihood: observed pixels between image and observation (line 5).
        variance = schedule.posterior_variance(t, prior_variance)
        gain = variance / (variance + observation.noise**2)
        deviation = torch.where(observation.known, variance * (1 - gain), variance) ** 0.5 if s else 0.0
        x0 = state + torch.where(observation.known, gain * (observation.pixels - state), 0.0)
        # 3. Noised to the next timestep (line 7).
        x = schedule.q_sample(x0 + deviation * task.noise(), s, task.noise()) if s else x0
    return x


@method("Chung et al. 2022, arXiv 2209.14687", "never", gradient=True)
def dps(task: Task, strength: float = 4.0) -> Tensor:
    """Diffusion posterior sampling (Chung et al. 2022, algorithm 1); each sample's step is scaled by its own norm.

    ``strength`` is the paper's zeta', near 1 there for 1,000 steps; fewer steps need larger values.
    """
    schedule, x = task.schedule, task.noise()
    for t, s in pairwise(task.timesteps):
        # 1. The gradient of |y - A x0_hat| with respect to x_t: (y - A x0_hat) / norm, through the network (line 7).
        x0_hat, _, gradient = task.likelihood_gradient(x, t, 1.0)
        task.watched(t, x, x0_hat)
        norm = task.observation.misfit(x0_hat).flatten(1).norm(dim=1).clamp(min=1e-8).view(-1, *[1] * (x.ndim - 1))
        # 2. An ancestral step of the prior, then down the gradient (lines 5, 6 and 7).
        x = schedule.reverse_step(x, x0_hat, t, s, 1.0, task.noise()) + 2 * strength * gradient / norm
    return x
