"""What a method is given."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from inkfill import defaults
from inkfill.denoiser import (
    NO_GRADIENT,
    ConditionalPrior,
    Denoiser,
    Draw,
    DrawingPrior,
    Observation,
    Prior,
    likelihood_gradient,
)
from inkfill.errors import InputError
from inkfill.rng import SampleNoise
from inkfill.samplers import Watch, find_sampler
from inkfill.schedule import Schedule


@dataclass(frozen=True)
class Task:
    """B rows to complete, each with an observation and a noise stream of its own.

    ``count`` is told of every evaluation, in images. Raises InputError for an unknown sampler.
    """

    prior: Prior
    observation: Observation  # [B, C, H, W]
    noise: SampleNoise
    levels: list[int]  # from T down to 0; a method visits them as it likes
    sampler: str = defaults.SAMPLER  # for the guided methods
    watch: Watch | None = None
    count: Callable[[int], object] = field(default=lambda images: None)

    def __post_init__(self) -> None:
        find_sampler(self.sampler)

    @property
    def schedule(self) -> Schedule:
        """That of the prior."""
        return self.prior.schedule

    @functools.cached_property
    def unconditional(self) -> Denoiser:
        """The prior's denoiser E[x0 given x_t], clipped to the range of images."""
        return lambda x_t, t: self.clip(self._unclipped(x_t, t))

    @functools.cached_property
    def conditional(self) -> Denoiser:
        """E[x0 given x_t and the known pixels], clipped. Raises InputError for a prior that has none."""
        if not isinstance(self.prior, ConditionalPrior):
            raise InputError("this prior has no conditional denoiser: choose a method that needs none")
        denoise = self._counted(self.prior.conditional(self.observation))
        return lambda x_t, t: self.clip(denoise(x_t, t))

    @functools.cached_property
    def draw(self) -> Draw:
        """Draws from p(x0 given x_t and the known pixels), clipped. Raises InputError for a prior that has none."""
        if not isinstance(self.prior, DrawingPrior):
            raise InputError("this prior gives means and no draws: choose another method than few")
        draw = self.prior.draw(self.observation)

        def counted(x_t: Tensor, t: int, fresh: Tensor | None = None) -> Tensor:
            self.count(len(x_t))
            return self.clip(draw(x_t, t, fresh))

        return counted

    @functools.cached_property
    def _unclipped(self) -> Denoiser:
        return self._counted(self.prior.unconditional(self.observation.pixels))

    def _counted(self, denoise: Denoiser) -> Denoiser:
        def counted(x_t: Tensor, t: int) -> Tensor:
            self.count(len(x_t))
            return denoise(x_t, t)

        return counted

    def clip(self, x0: Tensor) -> Tensor:
        """x0 put back into the range that clean images have, if they have one."""
        return x0.clamp(-1, 1) if getattr(self.prior, "bounded", False) else x0

    def likelihood_gradient(self, x_t: Tensor, t: int, variance: float) -> tuple[Tensor, Tensor, Tensor]:
        """x0_hat (clipped), log p(y given x_t) and its gradient: see :func:`inkfill.denoiser.likelihood_gradient`.

        The clamp is outside the gradient: inside, it would silence every known pixel whose prediction it touches
        (docs/methods.md has the measurement).
        """

        def denoise(x_t: Tensor, t: int) -> Tensor:
            x0_hat = self._unclipped(x_t, t)
            return x0_hat + (self.clip(x0_hat) - x0_hat).detach()

        return likelihood_gradient(denoise, x_t, t, self.observation, variance)

    def jacobian(self, x_t: Tensor, t: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """x0_hat, unclipped, and the product of its Jacobian, transposed, with a tensor like it (a backward pass).

        Raises InputError for a denoiser that lets no gradient through.
        """
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            x0_hat = self._unclipped(x, t)
        if not x0_hat.requires_grad:
            raise InputError(NO_GRADIENT)

        def transposed(w: Tensor) -> Tensor:
            return torch.autograd.grad(x0_hat, x, w, retain_graph=True)[0]

        return x0_hat.detach(), transposed

    def moments(self, x_t: Tensor, t: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Mean and covariance of x0 given x_t: x0_hat, unclipped, and the product of V with a tensor like it.

        V = (1 - alpha_bar) / sqrt(alpha_bar) J, with J the Jacobian of x0_hat (Tweedie's second formula); it is
        symmetric, so a product from the left, a backward pass, will do.
        """
        a = float(self.schedule.alpha_bar[t])
        x0_hat, transposed = self.jacobian(x_t, t)
        return x0_hat, lambda w: (1 - a) / a**0.5 * transposed(w)

    def sample(self, denoise: Denoiser) -> Tensor:
        """Run the chosen sampler on a denoiser, from pure noise down the levels."""
        x = self.noise()
        return find_sampler(self.sampler)(denoise, x, self.schedule, self.levels, self.noise, watch=self.watch)

    def repeat(self, particles: int) -> "Task":
        """The same task with every row ``particles`` times, side by side; it keeps the noise of B rows."""
        return replace(self, observation=self.observation.repeat(particles))

    def seen(self, t: int, x_t: Tensor, x0_hat: Tensor) -> None:
        """Tell the watcher, if there is one."""
        if self.watch:
            self.watch(t, x_t, x0_hat)
