"""Samplers: from noise to an image, each one function with a visible loop.

A sampler takes a denoiser, a state x at timestep ``timesteps[0]``, the schedule and ``timesteps`` decreasing to 0, and
returns the state at timestep 0. ``watch(t, x_t, x0_hat)``, if given, is called at every timestep. A new sampler is one
function with the decorator ``@sampler(name)``.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
from torch import Tensor

from inkfill.core.denoiser import Denoiser
from inkfill.core.schedule import Schedule
from inkfill.errors import InputError

Watch = Callable[[int, Tensor, Tensor], None]
Noise = Callable[[], Tensor]
Sampler = Callable[..., Tensor]  # called as sampler(denoise, x, schedule, timesteps, noise, watch=watch)
SAMPLERS: dict[str, Sampler] = {}


def sampler(name: str) -> Callable[[Sampler], Sampler]:
    """Register a sampler under a name."""

    def register(run: Sampler) -> Sampler:
        SAMPLERS[name] = run
        return run

    return register


def find_sampler(name: str) -> Sampler:
    """A sampler by name. Raises InputError for an unknown one."""
    if name not in SAMPLERS:
        raise InputError(f"unknown sampler {name!r}: choose one of {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


def spaced_timesteps(T: int, steps: int) -> list[int]:
    """``steps`` evenly spaced timesteps from T down, then 0: ``steps`` network evaluations. Raises InputError."""
    if not isinstance(steps, (int, np.integer)) or not 1 <= steps <= T:
        raise InputError(f"steps must be a whole number from 1 to {T}, the number of timesteps, not {steps}")
    return [int(t) for t in np.round(np.linspace(T, 0, steps + 1))]


def dpmpp_2m(
    denoise: Denoiser,
    x: Tensor,
    schedule: Schedule,
    timesteps: Sequence[int],
    noise: Noise | None = None,
    eta: float = 0.0,
    watch: Watch | None = None,
) -> Tensor:
    """DPM-Solver++(2M): second order from the last two predictions (Lu et al. 2022, algorithm 2).

    ``eta`` = 0 is the deterministic solver. ``eta`` = 1, with ``noise``, is its stochastic form, SDE-DPM-Solver++(2M)
    (appendix A there), whose new noise lets later steps correct earlier ones.
    """
    alpha_bar = schedule.alpha_bar
    half_log_snr = (alpha_bar / (1 - alpha_bar).clamp(min=1e-12)).log() / 2  # lambda in the paper
    earlier: tuple[Tensor, float] | None = None
    for t, s in pairwise(timesteps):
        x0_hat = denoise(x, t)
        if watch:
            watch(t, x, x0_hat)
        if s == 0:
            return x0_hat
        h = float(half_log_snr[s] - half_log_snr[t])
        target = x0_hat
        if earlier is not None:
            before, h_before = earlier
            target = x0_hat + (x0_hat - before) * (h / h_before / 2)
        # First order is a DDIM step towards x0_hat; second order is the same step towards the extrapolated target.
        x = schedule.reverse_step(x, target, t, s, eta, noise() if noise and eta > 0 else None)
        earlier = x0_hat, h
    return x


sampler("dpmpp")(partial(dpmpp_2m, eta=0.0))
sampler("dpmpp-sde")(partial(dpmpp_2m, eta=1.0))


@sampler("ddim")
def ddim(
    denoise: Denoiser,
    x: Tensor,
    schedule: Schedule,
    timesteps: Sequence[int],
    noise: Noise | None = None,
    eta: float = 0.0,
    watch: Watch | None = None,
) -> Tensor:
    """DDIM (Song et al. 2021, eq. 12). ``eta`` = 0 is deterministic; above 0 it needs ``noise``; 1 is ancestral."""
    for t, s in pairwise(timesteps):
        x0_hat = denoise(x, t)
        if watch:
            watch(t, x, x0_hat)
        x = schedule.reverse_step(x, x0_hat, t, s, eta, noise() if noise and eta > 0 and s > 0 else None)
    return x


@sampler("ancestral")
def ancestral(
    denoise: Denoiser,
    x: Tensor,
    schedule: Schedule,
    timesteps: Sequence[int],
    noise: Noise,
    watch: Watch | None = None,
) -> Tensor:
    """Ancestral sampling (Ho et al. 2020, algorithm 2): every step a draw from q(x_s given x_t, x0_hat)."""
    return ddim(denoise, x, schedule, timesteps, noise, eta=1.0, watch=watch)
