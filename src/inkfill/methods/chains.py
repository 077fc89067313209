"""Chains: the state is edited between steps."""

from itertools import pairwise

import torch
from torch import Tensor

from inkfill.methods.task import Task
from inkfill.samplers import ddim, spaced_levels


def replacement(task: Task) -> Tensor:
    """Replacement (Song et al. 2021, score SDE, appendix I.2): known pixels are the observation, noised alike."""
    schedule, observation, x = task.schedule, task.observation, task.noise()
    for t, s in pairwise(task.levels):
        # 1. Known pixels: a fresh draw of q(x_t given y). Missing ones: the chain's.
        x = torch.where(observation.known, schedule.q_sample(observation.pixels, t, task.noise()), x)
        x0_hat = task.unconditional(x, t)
        task.seen(t, x, x0_hat)
        # 2. One ancestral step of the prior on the whole image.
        x = schedule.reverse_step(x, x0_hat, t, s, 1.0, task.noise())
    return x


def few(task: Task) -> Tensor:
    """A draw from p(x0 given x_t and what is known), noised again to the next level, and drawn anew from there.

    For priors that draw. One level is one evaluation: x_T is noise, and the draw is a function of it. Every further one
    starts from a draw of x_t, and the draw of x0 from there needs noise of its own. Where the draws are exact, every
    number of them is; where they are not, a draw from a lower level errs less. Training draws from no level under a
    tenth of T (``training.few.LOWEST``), so more than ten steps are of no use.
    """
    x, T = task.noise(), task.schedule.T
    for t, s in pairwise(task.levels):
        x0 = task.draw(x, t, task.noise() if t < T else None)
        task.seen(t, x, x0)
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


def repaint(task: Task, jump: int = 1, repeats: int = 5) -> Tensor:
    """RePaint (Lugmayr et al. 2022, algorithm 1): replacement, with jumps back up to let the two parts agree.

    The defaults were chosen on validation digits (docs/methods.md); the paper has jump 10 and 10 repeats.
    """
    schedule, observation, x = task.schedule, task.observation, task.noise()
    levels = task.levels[::-1]  # levels[index] is the noise level of a path's index
    for index, following in pairwise(repaint_path(len(levels) - 1, jump, repeats)):
        t, s = levels[index], levels[following]
        if following > index:  # 3. Up: noise again (line 9).
            x = schedule.renoise(x, t, s, task.noise())
            continue
        # 1. The unknown part: one ancestral step of the prior (lines 5 to 7).
        x0_hat = task.unconditional(x, t)
        task.seen(t, x, x0_hat)
        unknown = schedule.reverse_step(x, x0_hat, t, s, 1.0, task.noise())
        # 2. The known part: the observation at the level that was reached (lines 4 and 8).
        x = torch.where(observation.known, schedule.q_sample(observation.pixels, s, task.noise()), unknown)
    return x


def ddrm(task: Task, eta: float = 0.85) -> Tensor:
    """DDRM (Kawar et al. 2022, eqs. 7 and 8), with A a mask, whose singular values are 1, and their eta_b = 1.

    Of every step's noise a share ``eta**2`` is new. Known pixels at level s are the observation, noised by what its own
    noise lacks; at levels with less noise than that they are drawn towards it. Without noise it is ddnm with more new
    noise a step, and what is missing comes out spread too little: of its prior's deviation 85 % (a test).
    """
    schedule, observation, x = task.schedule, task.observation, task.noise()
    for t, s in pairwise(task.levels):
        x0_hat = task.unconditional(x, t)
        task.seen(t, x, x0_hat)
        a, z = float(schedule.alpha_bar[s]), task.noise()
        sigma = ((1 - a) / a) ** 0.5  # theirs, of x / sqrt(alpha_bar)
        kept = (1 - eta**2) ** 0.5 * sigma
        missing = x0_hat + kept * schedule.eps_from_x0(x, t, x0_hat) + eta * sigma * z
        if sigma >= observation.noise:
            known = observation.pixels + (sigma**2 - observation.noise**2) ** 0.5 * z
        else:
            known = x0_hat + kept * (observation.pixels - x0_hat) / observation.noise + eta * sigma * z
        x = a**0.5 * torch.where(observation.known, known, missing)
    return x


def diffpir(task: Task, strength: float = 1.0, zeta: float = 0.6) -> Tensor:
    """DiffPIR (Zhu et al. 2023, algorithm 1), with A a mask, for which their data step is a mean of two numbers.

    ``strength`` is their lambda (they have 1 to 25): how much the prediction weighs beside a noisy observation. A share
    ``zeta`` of every step's noise is new (.6 is best on validation digits). Without noise in the observation it is ddnm
    with that other noise, and what is missing comes out spread too little, at 88 % (a test).
    """
    schedule, observation, x = task.schedule, task.observation, task.noise()
    for t, s in pairwise(task.levels):
        # 1. The prediction of the prior (line 3).
        x0_hat = task.unconditional(x, t)
        task.seen(t, x, x0_hat)
        # 2. Nearest to it and to the observation: rho = lambda noise^2 / sigma^2 (line 4, their eq. 13).
        a_t = float(schedule.alpha_bar[t])
        rho = strength * observation.noise**2 * a_t / (1 - a_t)
        x0 = torch.where(observation.known, (observation.pixels + rho * x0_hat) / (1 + rho), x0_hat)
        # 3. Noise again: what x_t had, seen from there, and new noise (lines 5 and 6).
        eps = (1 - zeta) ** 0.5 * schedule.eps_from_x0(x, t, x0) + zeta**0.5 * task.noise()
        x = schedule.q_sample(x0, s, eps)
    return x


def daps(task: Task, inner: int = 3, prior_variance: float = 0.01) -> Tensor:
    """Decoupled annealing posterior sampling (Zhang et al. 2024, DAPS, algorithm 1).

    A clean image is drawn given x_t, by ``inner`` deterministic steps down to level 0; p(x0 given x_t) is taken for
    N(that image, r_t^2 I) and multiplied by the likelihood, which for a mask needs no Langevin steps; the result is
    noised afresh to the next level. So no error of one level binds the next. Here r_t^2 is the posterior variance of a
    prior N(m, prior_variance I), where the paper has that of the noise, and the last step takes the mean.
    """
    schedule, observation, x = task.schedule, task.observation, task.noise()
    for t, s in pairwise(task.levels):
        # 1. An image given x_t, along the probability flow (line 3).
        state = ddim(task.unconditional, x, schedule, spaced_levels(t, min(inner, t)))
        task.seen(t, x, state)
        # 2. Times the likelihood: known pixels between image and observation, missing ones as they are (line 5).
        variance = schedule.posterior_variance(t, prior_variance)
        gain = variance / (variance + observation.noise**2)
        spread = torch.where(observation.known, variance * (1 - gain), variance) ** 0.5 if s else 0.0
        x0 = state + torch.where(observation.known, gain * (observation.pixels - state), 0.0)
        # 3. Noised to the next level (line 7).
        x = schedule.q_sample(x0 + spread * task.noise(), s, task.noise()) if s else x0
    return x


def dps(task: Task, strength: float = 4.0) -> Tensor:
    """Diffusion posterior sampling (Chung et al. 2022, algorithm 1), with the norm of each sample for its own step.

    ``strength`` is the paper's zeta'; theirs is near 1 for 1,000 steps, and fewer steps want larger ones.
    """
    schedule, x = task.schedule, task.noise()
    for t, s in pairwise(task.levels):
        # 1. The gradient of |y - A x0_hat| with respect to x_t: (y - A x0_hat) / norm, through the network (line 7).
        x0_hat, _, gradient = task.likelihood_gradient(x, t, 1.0)
        task.seen(t, x, x0_hat)
        norm = task.observation.misfit(x0_hat).flatten(1).norm(dim=1).clamp(min=1e-8).view(-1, *[1] * (x.ndim - 1))
        # 2. An ancestral step of the prior, then down the gradient (lines 5, 6 and 7).
        x = schedule.reverse_step(x, x0_hat, t, s, 1.0, task.noise()) + 2 * strength * gradient / norm
    return x
