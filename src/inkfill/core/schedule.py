"""The forward process: the noise schedule, and every formula that follows from it.

Timestep 0 is the clean image, timestep T is (almost) pure noise, and for any timestep t

    x_t = sqrt(alpha_bar[t]) x0 + sqrt(1 - alpha_bar[t]) eps,    eps ~ N(0, I)      (Ho et al. 2020, eq. 4)

Timesteps are ints or int tensors ``[B]``. The rest of the library takes its coefficients from here. A new schedule is
one function with the decorator ``@schedule(name)``.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from inkfill.errors import InputError

Timestep = int | Tensor
SCHEDULES: dict[str, Callable[[int], Tensor]] = {}
PREDICTIONS = ("eps", "v", "x0", "score")  # what the output of a network may be


def schedule(name: str) -> Callable[[Callable[[int], Tensor]], Callable[[int], Tensor]]:
    """Register a function ``f(T) -> alpha_bar``, float64 ``[T + 1]``, under a name."""

    def register(alpha_bar: Callable[[int], Tensor]) -> Callable[[int], Tensor]:
        SCHEDULES[name] = alpha_bar
        return alpha_bar

    return register


def from_betas(betas: Tensor) -> Tensor:
    """alpha_bar ``[T + 1]`` from betas ``[T]``: the cumulative product of 1 - beta, after a 1 (Ho et al. 2020)."""
    return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - betas, 0)])


@schedule("linear")
def linear_alpha_bar(T: int) -> Tensor:
    """Linear betas from 1e-4 to 0.02 at T = 1000 (Ho et al. 2020, section 4), scaled so that any T ends as noisy."""
    if T < 20:
        raise InputError(f"the linear schedule needs at least 20 timesteps, not {T}")
    return from_betas(torch.linspace(1e-4 * 1000 / T, min(0.02 * 1000 / T, 0.999), T, dtype=torch.float64))


@schedule("cosine")
def cosine_alpha_bar(T: int, offset: float = 0.008) -> Tensor:
    """Cosine schedule (Nichol and Dhariwal 2021, eq. 17), with each beta clipped at 0.999 as there."""
    t = torch.arange(T + 1, dtype=torch.float64) / T
    f = torch.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2
    return from_betas((1 - f[1:] / f[:-1]).clamp(max=0.999))


class Schedule:
    """A noise schedule: ``alpha_bar``, float64 ``[T + 1]``, decreasing from exactly 1 at timestep 0.

    Raises InputError for a table that does not start at 1, does not decrease, or leaves (0, 1].
    """

    def __init__(self, alpha_bar: Tensor):
        alpha_bar = alpha_bar.double()
        decreases = bool((alpha_bar[1:] < alpha_bar[:-1]).all())
        if alpha_bar.ndim != 1 or len(alpha_bar) < 2 or alpha_bar[0] != 1 or not decreases or alpha_bar[-1] <= 0:
            raise InputError("alpha_bar must be one-dimensional, start at 1, decrease strictly and stay above 0")
        self.alpha_bar = alpha_bar
        self._tables = {alpha_bar.device: alpha_bar}

    @classmethod
    def named(cls, name: str, T: int = 1000) -> "Schedule":
        """A registered schedule with T timesteps. Raises InputError for another name or for T < 2."""
        if name not in SCHEDULES:
            raise InputError(f"unknown schedule {name!r}: choose one of {', '.join(SCHEDULES)}")
        if T < 2:
            raise InputError(f"a schedule needs at least 2 timesteps, not {T}")
        return cls(SCHEDULES[name](T))

    @property
    def T(self) -> int:
        """The noisiest timestep."""
        return len(self.alpha_bar) - 1

    def at(self, t: Timestep, x: Tensor) -> Tensor:
        """alpha_bar at timestep t, shaped to multiply ``x``: ``[B, 1, ...]``, or a scalar on the CPU for an int t.

        float64, except on devices without it (mps). Each device gets one copy of the table.
        """
        if isinstance(t, int):
            return self.alpha_bar[t]
        if x.device not in self._tables:
            dtype = torch.float32 if x.device.type == "mps" else torch.float64
            self._tables[x.device] = self.alpha_bar.to(x.device, dtype)
        return self._tables[x.device][t.to(x.device)].reshape(-1, *[1] * (x.ndim - 1))

    def _mix(self, a: Tensor, x: Tensor, b: Tensor, y: Tensor) -> Tensor:
        """a x + b y with float64 coefficients, in the dtype of x."""
        return a.to(x.dtype) * x + b.to(x.dtype) * y

    # ---- forward -----------------------------------------------------------------------------------------------------

    def q_sample(self, x0: Tensor, t: Timestep, eps: Tensor) -> Tensor:
        """A draw of x_t given x0 (Ho et al. 2020, eq. 4)."""
        a = self.at(t, x0)
        return self._mix(a.sqrt(), x0, (1 - a).sqrt(), eps)

    def renoise(self, x_s: Tensor, s: Timestep, t: Timestep, eps: Tensor) -> Tensor:
        """A draw of x_t given x_s, for s < t (for t = s + 1, Ho et al. 2020, eq. 2)."""
        a = self.at(t, x_s) / self.at(s, x_s)
        return self._mix(a.sqrt(), x_s, (1 - a).sqrt(), eps)

    def q_posterior(self, x0: Tensor, x_t: Tensor, t: Timestep, s: Timestep) -> tuple[Tensor, Tensor]:
        """Mean (like x_t) and variance (broadcastable, float64) of x_s given x_t and x0, for s < t.

        Ho et al. 2020, eqs. 6 and 7, written for any s < t and not only for s = t - 1.
        """
        a_t, a_s = self.at(t, x_t), self.at(s, x_t)
        step = a_t / a_s
        mean = self._mix(step.sqrt() * (1 - a_s) / (1 - a_t), x_t, a_s.sqrt() * (1 - step) / (1 - a_t), x0)
        return mean, (1 - a_s) / (1 - a_t) * (1 - step)

    def posterior_variance(self, t: int, prior_variance: float) -> float:
        """Variance of a pixel of x0 given x_t, for a Gaussian prior of variance v: v (1 - a) / (1 - a + a v)."""
        a = float(self.alpha_bar[t])
        return prior_variance * (1 - a) / (1 - a + a * prior_variance)

    # ---- reverse -----------------------------------------------------------------------------------------------------

    def reverse_step(
        self, x_t: Tensor, x0_hat: Tensor, t: Timestep, s: Timestep, eta: float, noise: Tensor | None
    ) -> Tensor:
        """x_s from x_t and the predicted clean image, for s < t (Song et al. 2021, DDIM, eqs. 12 and 16).

        ``eta`` = 1 is the ancestral DDPM step (a draw from q_posterior), 0 is deterministic and ignores ``noise``.
        Raises InputError for a stochastic step (eta > 0, s > 0) without noise.
        """
        a_t, a_s = self.at(t, x_t), self.at(s, x_t)
        sigma2 = eta**2 * (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)
        if noise is None and bool((sigma2 > 0).any()):
            raise InputError(f"a step with eta = {eta:g} needs noise: pass noise, or eta = 0")
        direction = (1 - a_s - sigma2).clamp(min=0).sqrt()
        x_s = self._mix(a_s.sqrt(), x0_hat, direction, self.eps_from_x0(x_t, t, x0_hat))
        return x_s if noise is None or eta == 0 else x_s + sigma2.sqrt().to(x_s.dtype) * noise

    # ---- what a network may predict: eps, v or x0, each from each ----------------------------------------------------

    def x0_from_eps(self, x_t: Tensor, t: Timestep, eps: Tensor) -> Tensor:
        """x0 = (x_t - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar)."""
        a = self.at(t, x_t)
        return self._mix(a.rsqrt(), x_t, -((1 - a) / a).sqrt(), eps)

    def eps_from_x0(self, x_t: Tensor, t: Timestep, x0: Tensor) -> Tensor:
        """eps = (x_t - sqrt(alpha_bar) x0) / sqrt(1 - alpha_bar); t must be above 0."""
        a = self.at(t, x_t)
        return self._mix((1 - a).rsqrt(), x_t, -(a / (1 - a)).sqrt(), x0)

    def x0_from_v(self, x_t: Tensor, t: Timestep, v: Tensor) -> Tensor:
        """x0 = sqrt(alpha_bar) x_t - sqrt(1 - alpha_bar) v (Salimans and Ho 2022, appendix D)."""
        a = self.at(t, x_t)
        return self._mix(a.sqrt(), x_t, -(1 - a).sqrt(), v)

    def eps_from_v(self, x_t: Tensor, t: Timestep, v: Tensor) -> Tensor:
        """eps = sqrt(1 - alpha_bar) x_t + sqrt(alpha_bar) v (Salimans and Ho 2022, appendix D)."""
        a = self.at(t, x_t)
        return self._mix((1 - a).sqrt(), x_t, a.sqrt(), v)

    def v_from_eps(self, x0: Tensor, t: Timestep, eps: Tensor) -> Tensor:
        """v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0 (Salimans and Ho 2022, section 4)."""
        a = self.at(t, x0)
        return self._mix(a.sqrt(), eps, -(1 - a).sqrt(), x0)

    def x0_from(self, prediction: str, x_t: Tensor, t: Timestep, output: Tensor) -> Tensor:
        """x0 from a network's output: ``prediction`` is one of ``PREDICTIONS``.

        A score is -eps / sqrt(1 - alpha_bar) (Song et al. 2021, score SDE).
        """
        if prediction == "x0":
            return output
        if prediction == "v":
            return self.x0_from_v(x_t, t, output)
        if prediction == "score":
            output = -(1 - self.at(t, x_t)).sqrt().to(x_t.dtype) * output
        return self.x0_from_eps(x_t, t, output)
