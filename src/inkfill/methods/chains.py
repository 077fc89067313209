"""Chains: the state is edited between steps."""

from itertools import pairwise

import torch
from torch import Tensor

from inkfill.methods.task import Task


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
    number of them is; where they are not, a draw from a lower level errs less.
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
