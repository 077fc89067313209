"""The input of an inpainting method."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import Tensor

from inkfill import defaults
from inkfill.core.denoiser import (
    ConditionalPrior,
    Denoiser,
    Draw,
    GenerativePrior,
    Observation,
    Prior,
    jacobian,
    likelihood_gradient,
)
from inkfill.core.rng import SampleNoise
from inkfill.core.samplers import Watch, find_sampler
from inkfill.core.schedule import Schedule
from inkfill.errors import InputError


@dataclass(frozen=True)
class Task:
    """B rows to fill, each with its own observation and noise stream.

    ``count`` is called at every network evaluation with the number of images. Raises InputError for an unknown sampler.
    """

    prior: Prior
    observation: Observation  # [B, C, H, W]
    noise: SampleNoise
    timesteps: list[int]  # from T down to 0; a method may visit them in any order
    sampler: str = defaults.SAMPLER  # used by guided methods
    watch: Watch | None = None
    count: Callable[[int], object] = field(default=lambda images: None)

    def __post_init__(self) -> None:
        find_sampler(self.sampler)

    @property
    def schedule(self) -> Schedule:
        """The noise schedule of the prior."""
        return self.prior.schedule

    @functools.cached_property
    def unconditional(self) -> Denoiser:
        """E[x0 given x_t] of the prior, clipped to the range of images."""
        return self._evaluation(self.prior.unconditional(self.observation.pixels), self.clip)

    @functools.cached_property
    def conditional(self) -> Denoiser:
        """E[x0 given x_t and the observed pixels], clipped. Raises InputError for a prior without it."""
        if not isinstance(self.prior, ConditionalPrior):
            raise InputError("this prior has no conditional denoiser: choose a method that needs none")
        return self._evaluation(self.prior.conditional(self.observation), self.clip)

    @functools.cached_property
    def draw(self) -> Draw:
        """Samples of p(x0 given x_t and the observed pixels), clipped. Raises InputError for a prior without it."""
        if not isinstance(self.prior, GenerativePrior):
            raise InputError("this prior is no few-step model: choose another method than few")
        return self._evaluation(self.prior.draw(self.observation), self.clip)

    @functools.cached_property
    def _unclipped(self) -> Denoiser:
        return self._evaluation(self.prior.unconditional(self.observation.pixels), lambda x0: x0)

    def _evaluation(self, evaluate: Callable[..., Tensor], clip: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
        """``evaluate``, counted and clipped."""

        def evaluated(x_t: Tensor, t: int, *latent: Tensor | None) -> Tensor:
            self.count(len(x_t))
            return clip(evaluate(x_t, t, *latent))

        return evaluated

    def clip(self, x0: Tensor) -> Tensor:
        """x0 clipped to [-1, 1], for a prior whose images are bounded."""
        return x0.clamp(-1, 1) if self.prior.bounded else x0

    def likelihood_gradient(self, x_t: Tensor, t: int, variance: float) -> tuple[Tensor, Tensor, Tensor]:
        """x0_hat (clipped), log p(y given x_t) and its gradient: :func:`inkfill.core.denoiser.likelihood_gradient`."""
        return likelihood_gradient(self._unclipped, x_t, t, self.observation, variance, self.clip)

    def moments(self, x_t: Tensor, t: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Mean and covariance of x0 given x_t: x0_hat, unclipped, and the function w -> V w.

        V = (1 - alpha_bar) / sqrt(alpha_bar) J, with J the Jacobian of x0_hat (Tweedie's second-order formula). V is
        symmetric, so J' w, a backward pass, gives it.
        """
        a = float(self.schedule.alpha_bar[t])
        x0_hat, transposed = jacobian(self._unclipped, x_t, t)
        return x0_hat, lambda w: (1 - a) / a**0.5 * transposed(w)

    def sample(self, denoise: Denoiser) -> Tensor:
        """Run the chosen sampler on a denoiser, from pure noise."""
        x = self.noise()
        return find_sampler(self.sampler)(denoise, x, self.schedule, self.timesteps, self.noise, watch=self.watch)

    def repeat(self, particles: int) -> "Task":
        """The same task with every row ``particles`` times, copies adjacent; the noise stays that of B rows."""
        return replace(self, observation=self.observation.repeat(particles))

    def watched(self, t: int, x_t: Tensor, x0_hat: Tensor) -> None:
        """Call ``watch``, if there is one."""
        if self.watch:
            self.watch(t, x_t, x0_hat)
