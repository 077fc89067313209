"""Samplers: from noise to an image, one flat function each, with a visible loop.

All take a denoiser, a starting state x at level ``levels[0]``, the schedule, and ``levels`` falling to 0, and return
the state at level 0. ``watch(t, x_t, x0_hat)``, if given, is called at every level, for pictures of the process. One
that draws (``eta`` > 0) and is given no ``noise`` raises InputError.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
from torch import Tensor

from inkfill.denoiser import Denoiser
from inkfill.errors import InputError
from inkfill.schedule import Schedule

Watch = Callable[[int, Tensor, Tensor], None]
Noise = Callable[[], Tensor]


def spaced_levels(T: int, steps: int) -> list[int]:
    """``steps`` levels from T down, evenly spaced, then 0: ``steps`` evaluations. Raises InputError."""
    if not isinstance(steps, (int, np.integer)) or not 1 <= steps <= T:
        raise InputError(f"steps must be a whole number from 1 to {T}, the number of noise levels, not {steps}")
    return [int(level) for level in np.round(np.linspace(T, 0, steps + 1))]


def ddim(
    denoise: Denoiser,
    x: Tensor,
    schedule: Schedule,
    levels: Sequence[int],
    noise: Noise | None = None,
    eta: float = 0.0,
    watch: Watch | None = None,
) -> Tensor:
    """DDIM (Song et al. 2021, eq. 12). ``eta`` = 0 is deterministic; above it needs ``noise``; 1 is ancestral."""
    for t, s in pairwise(levels):
        x0_hat = denoise(x, t)
        if watch:
            watch(t, x, x0_hat)
        x = schedule.reverse_step(x, x0_hat, t, s, eta, noise() if noise and eta > 0 and s > 0 else None)
    return x


def ancestral(
    denoise: Denoiser,
    x: Tensor,
    schedule: Schedule,
    levels: Sequence[int],
    noise: Noise,
    watch: Watch | None = None,
) -> Tensor:
    """Ancestral sampling (Ho et al. 2020, algorithm 2): every step a draw from q(x_s given x_t, x0_hat)."""
    return ddim(denoise, x, schedule, levels, noise, eta=1.0, watch=watch)


def dpmpp_2m(
    denoise: Denoiser,
    x: Tensor,
    schedule: Schedule,
    levels: Sequence[int],
    noise: Noise | None = None,
    eta: float = 0.0,
    watch: Watch | None = None,
) -> Tensor:
    """DPM-Solver++(2M): second order from the last two predictions (Lu et al. 2022, DPM-Solver++, algorithm 2).

    ``eta`` = 0 is the deterministic solver. ``eta`` = 1, with ``noise``, is its stochastic form (SDE-DPM-Solver++(2M),
    appendix A there): fresh noise at every step lets later steps mend what earlier ones got wrong.
    """
    alpha_bar = schedule.alpha_bar
    log_snr = (alpha_bar / (1 - alpha_bar).clamp(min=1e-12)).log() / 2  # lambda in the paper; level 0 is never used
    earlier: tuple[Tensor, float] | None = None
    for t, s in pairwise(levels):
        x0_hat = denoise(x, t)
        if watch:
            watch(t, x, x0_hat)
        if s == 0:
            return x0_hat
        h = float(log_snr[s] - log_snr[t])
        target = x0_hat
        if earlier is not None:
            before, h_before = earlier
            target = x0_hat + (x0_hat - before) * (h / h_before / 2)
        # First order is a DDIM step towards x0_hat; second order is the same step towards the extrapolated target.
        x = schedule.reverse_step(x, target, t, s, eta, noise() if noise and eta > 0 else None)
        earlier = x0_hat, h
    return x


# By name: each is called as ``sampler(denoise, x, schedule, levels, noise, watch=watch)``.
SAMPLERS: dict[str, Callable[..., Tensor]] = {
    "dpmpp": dpmpp_2m,
    "dpmpp-sde": partial(dpmpp_2m, eta=1.0),
    "ddim": ddim,
    "ancestral": ancestral,
}


def find_sampler(name: str) -> Callable[..., Tensor]:
    """A sampler by name. Raises InputError for one that there is not."""
    if name not in SAMPLERS:
        raise InputError(f"unknown sampler {name!r}: choose one of {', '.join(SAMPLERS)}")
    return SAMPLERS[name]
