"""The forward process: how much signal is left at every noise level, and every formula that follows from it.

Level 0 is the clean image, level T is (almost) pure noise, and for any level t

    x_t = sqrt(alpha_bar[t]) x0 + sqrt(1 - alpha_bar[t]) eps,    eps ~ N(0, I)      (Ho et al. 2020, eq. 4)

Levels are integers or int tensors ``[B]``. Everything else in the library takes its coefficients from here.
"""

import math

import torch
from torch import Tensor

from inkfill.errors import InputError

Level = int | Tensor


def linear_alpha_bar(T: int) -> Tensor:
    """Linear betas from 1e-4 to 0.02 at T = 1000 (Ho et al. 2020, section 4), scaled so that any T ends as noisy."""
    if T < 20:
        raise InputError(f"the linear schedule needs at least 20 levels, not {T}")
    betas = torch.linspace(1e-4 * 1000 / T, min(0.02 * 1000 / T, 0.999), T, dtype=torch.float64)
    return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - betas, 0)])


def cosine_alpha_bar(T: int, offset: float = 0.008) -> Tensor:
    """Cosine schedule (Nichol and Dhariwal 2021, eq. 17), with each beta clipped at 0.999 as there."""
    level = torch.arange(T + 1, dtype=torch.float64) / T
    f = torch.cos((level + offset) / (1 + offset) * math.pi / 2) ** 2
    betas = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - betas, 0)])


SCHEDULES = {"linear": linear_alpha_bar, "cosine": cosine_alpha_bar}


class Schedule:
    """A noise schedule: ``alpha_bar``, float64 ``[T + 1]``, falling from exactly 1 at level 0.

    Raises InputError for a curve that does not start at 1, does not fall, or leaves (0, 1].
    """

    def __init__(self, alpha_bar: Tensor):
        alpha_bar = alpha_bar.double()
        falls = bool((alpha_bar[1:] < alpha_bar[:-1]).all())
        if alpha_bar.ndim != 1 or len(alpha_bar) < 2 or alpha_bar[0] != 1 or not falls or alpha_bar[-1] <= 0:
            raise InputError("alpha_bar must be one-dimensional, start at 1, fall at every level and stay above 0")
        self.alpha_bar = alpha_bar
        self._tables = {alpha_bar.device: alpha_bar}

    @classmethod
    def named(cls, name: str, T: int = 1000) -> "Schedule":
        """``linear`` or ``cosine`` with T levels. Raises InputError for another name or for T < 2."""
        if name not in SCHEDULES:
            raise InputError(f"unknown schedule {name!r}: choose one of {', '.join(SCHEDULES)}")
        if T < 2:
            raise InputError(f"a schedule needs at least 2 levels, not {T}")
        return cls(SCHEDULES[name](T))

    @property
    def T(self) -> int:
        """The noisiest level."""
        return len(self.alpha_bar) - 1

    def signal(self, t: Level, x: Tensor) -> Tensor:
        """alpha_bar at level t, shaped to multiply ``x``: ``[B, 1, ...]``, or a number on the CPU for an int level.

        float64, except on devices that have none (mps). Levels as a tensor read a table that is copied to each device
        once.
        """
        if isinstance(t, int):
            return self.alpha_bar[t]
        if x.device not in self._tables:
            dtype = torch.float32 if x.device.type == "mps" else torch.float64
            self._tables[x.device] = self.alpha_bar.to(x.device, dtype)
        return self._tables[x.device][t.to(x.device)].reshape(-1, *[1] * (x.ndim - 1))

    def _mix(self, a: Tensor, x: Tensor, b: Tensor, y: Tensor) -> Tensor:
        """a x + b y with float64 coefficients, returned in the dtype of x."""
        return a.to(x.dtype) * x + b.to(x.dtype) * y

    # ---- forward -------------------------------------------------------------------------------------------------

    def q_sample(self, x0: Tensor, t: Level, eps: Tensor) -> Tensor:
        """A draw of x_t given x0 (Ho et al. 2020, eq. 4)."""
        a = self.signal(t, x0)
        return self._mix(a.sqrt(), x0, (1 - a).sqrt(), eps)

    def renoise(self, x_s: Tensor, s: Level, t: Level, eps: Tensor) -> Tensor:
        """A draw of x_t given x_s, for s < t: forward again (one step of it is Ho et al. 2020, eq. 2)."""
        a = self.signal(t, x_s) / self.signal(s, x_s)
        return self._mix(a.sqrt(), x_s, (1 - a).sqrt(), eps)

    def q_posterior(self, x0: Tensor, x_t: Tensor, t: Level, s: Level) -> tuple[Tensor, Tensor]:
        """Mean (like x_t) and variance (broadcastable, float64) of x_s given x_t and x0, for s < t.

        Ho et al. 2020, eqs. 6 and 7, written for any s < t and not only for s = t - 1.
        """
        a_t, a_s = self.signal(t, x_t), self.signal(s, x_t)
        step = a_t / a_s
        mean = self._mix(step.sqrt() * (1 - a_s) / (1 - a_t), x_t, a_s.sqrt() * (1 - step) / (1 - a_t), x0)
        return mean, (1 - a_s) / (1 - a_t) * (1 - step)

    def posterior_variance(self, t: int, prior_variance: float) -> float:
        """Variance of x0 given x_t, a pixel, for a Gaussian prior of variance v: v (1 - a) / (1 - a + a v)."""
        a = float(self.alpha_bar[t])
        return prior_variance * (1 - a) / (1 - a + a * prior_variance)

    # ---- reverse -------------------------------------------------------------------------------------------------

    def reverse_step(self, x_t: Tensor, x0_hat: Tensor, t: Level, s: Level, eta: float, noise: Tensor | None) -> Tensor:
        """x_s from x_t and the predicted clean image, for s < t (Song et al. 2021, DDIM, eqs. 12 and 16).

        ``eta`` = 1 is the ancestral DDPM step (a draw from q_posterior), 0 is deterministic and ignores ``noise``.
        Raises InputError for a random step (eta > 0, s > 0) that is given no noise.
        """
        a_t, a_s = self.signal(t, x_t), self.signal(s, x_t)
        sigma2 = eta**2 * (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)
        if noise is None and bool((sigma2 > 0).any()):
            raise InputError(f"a step with eta = {eta:g} needs noise: give some, or eta = 0")
        towards = (1 - a_s - sigma2).clamp(min=0).sqrt()
        x_s = self._mix(a_s.sqrt(), x0_hat, towards, self.eps_from_x0(x_t, t, x0_hat))
        return x_s if noise is None or eta == 0 else x_s + sigma2.sqrt().to(x_s.dtype) * noise

    # ---- what a network may predict: eps, v or x0, each from each ------------------------------------------------

    def x0_from_eps(self, x_t: Tensor, t: Level, eps: Tensor) -> Tensor:
        """x0 = (x_t - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar)."""
        a = self.signal(t, x_t)
        return self._mix(a.rsqrt(), x_t, -((1 - a) / a).sqrt(), eps)

    def eps_from_x0(self, x_t: Tensor, t: Level, x0: Tensor) -> Tensor:
        """eps = (x_t - sqrt(alpha_bar) x0) / sqrt(1 - alpha_bar); t must be above level 0."""
        a = self.signal(t, x_t)
        return self._mix((1 - a).rsqrt(), x_t, -(a / (1 - a)).sqrt(), x0)

    def x0_from_v(self, x_t: Tensor, t: Level, v: Tensor) -> Tensor:
        """x0 = sqrt(alpha_bar) x_t - sqrt(1 - alpha_bar) v (Salimans and Ho 2022, appendix D)."""
        a = self.signal(t, x_t)
        return self._mix(a.sqrt(), x_t, -(1 - a).sqrt(), v)

    def eps_from_v(self, x_t: Tensor, t: Level, v: Tensor) -> Tensor:
        """eps = sqrt(1 - alpha_bar) x_t + sqrt(alpha_bar) v (Salimans and Ho 2022, appendix D)."""
        a = self.signal(t, x_t)
        return self._mix((1 - a).sqrt(), x_t, a.sqrt(), v)

    def v_from_eps(self, x0: Tensor, t: Level, eps: Tensor) -> Tensor:
        """v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0 (Salimans and Ho 2022, section 4)."""
        a = self.signal(t, x0)
        return self._mix(a.sqrt(), eps, -(1 - a).sqrt(), x0)
