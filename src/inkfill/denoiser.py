"""What a denoiser is, what a prior is, and what an inpainting method gets to see.

A denoiser is a function ``denoise(x_t, t) -> x0_hat``: the posterior mean of the clean image given ``x_t``
``[B, C, H, W]`` at level t (an int, the same for the batch). Everything else plugs into it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from inkfill.errors import InputError
from inkfill.schedule import Schedule

Denoiser = Callable[[Tensor, int], Tensor]
NO_GRADIENT = "this denoiser lets no gradient through (torch.no_grad inside?): use a method without one"


class Draw(Protocol):
    """``draw(x_t, t, fresh) -> x0``: a draw from p(x0 given x_t) and no mean; ``fresh`` is noise like x_t.

    At level T, where x_t is noise itself, it needs none.
    """

    def __call__(self, x_t: Tensor, t: int, fresh: Tensor | None = None) -> Tensor: ...


@dataclass(frozen=True)
class Observation:
    """What an inpainting method is given: ``pixels``, float ``[B, C, H, W]``, 0 where missing, and ``known``, bool.

    Known or missing is a matter of pixels, and ``known`` says it of every value, ``[B, C, H, W]`` too. ``noise`` is the
    standard deviation of Gaussian noise in the known pixels, in units of x0; 0: they are exact.
    """

    pixels: Tensor
    known: Tensor
    noise: float = 0.0

    @classmethod
    def of(cls, x0: Tensor, mask: Tensor, noise: float = 0.0) -> "Observation":
        """Blank what the mask ``[B, 1, H, W]`` hides (True = missing). The one place that does."""
        blank = torch.zeros((), dtype=x0.dtype, device=x0.device)
        return cls(torch.where(mask, blank, x0), ~mask.expand_as(x0), noise)

    @classmethod
    def nothing(cls, like: Tensor) -> "Observation":
        """Nothing is known of images of the shape of ``like``."""
        return cls(torch.zeros_like(like), torch.zeros_like(like, dtype=torch.bool))

    @property
    def mask(self) -> Tensor:
        """True = missing."""
        return ~self.known

    def repeat(self, times: int) -> "Observation":
        """Every row so many times, side by side."""
        pixels, known = (part.repeat_interleave(times, 0) for part in (self.pixels, self.known))
        return Observation(pixels, known, self.noise)

    def misfit(self, x0: Tensor) -> Tensor:
        """Known pixels less those of ``x0``, 0 where missing."""
        return torch.where(self.known, self.pixels - x0, 0.0)


@runtime_checkable
class Prior(Protocol):
    """What methods are given: a trained network is one, a closed form is one, a foreign model becomes one.

    A prior may say more, and what it does not say has a default: ``device`` (CPU), ``bounded`` (clean images lie in
    [-1, 1], so that predictions are clipped; False), ``value_range`` (of ``data.images``: how users' numbers become
    x0), ``image_size``, and the ``sampler`` and ``steps`` that suit it.
    """

    @property
    def schedule(self) -> Schedule:
        """How much noise there is at every level."""
        ...

    @property
    def channels(self) -> int:
        """Of an image."""
        ...

    def unconditional(self, like: Tensor) -> Denoiser:
        """E[x0 given x_t] for states of the shape of ``like``."""
        ...


@runtime_checkable
class ConditionalPrior(Prior, Protocol):
    """A prior that can be told what is known."""

    def conditional(self, observation: Observation) -> Denoiser:
        """E[x0 given x_t and the known pixels], for rows of an observation."""
        ...


@runtime_checkable
class DrawingPrior(Prior, Protocol):
    """A prior that draws, and has no posterior mean to give: few-step weights."""

    @property
    def draws(self) -> bool:
        """Whether it does."""
        ...

    def draw(self, observation: Observation) -> Draw:
        """Draws from p(x0 given x_t and the known pixels), for rows of an observation."""
        ...


def draws(prior: Prior) -> bool:
    """Whether a prior draws, and has no posterior mean to give."""
    return isinstance(prior, DrawingPrior) and prior.draws


def likelihood_gradient(
    denoise: Denoiser, x_t: Tensor, t: int, observation: Observation, variance: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Take p(y given x_t) for N(x0_hat, variance I) on the known pixels: what it says, and where it pulls x_t.

    Gives x0_hat, log p(y given x_t) ``[B]``, and its gradient with respect to x_t, through the denoiser (one forward
    and one backward pass). Each row has its own: nothing is summed over the batch. Raises InputError for a denoiser
    that lets no gradient through.
    """
    with torch.enable_grad():
        x = x_t.detach().requires_grad_()
        x0_hat = denoise(x, t)
        if not x0_hat.requires_grad:
            raise InputError(NO_GRADIENT)
        log_p = -observation.misfit(x0_hat).square().flatten(1).sum(1) / (2 * variance)
        (gradient,) = torch.autograd.grad(log_p.sum(), x)
    known = observation.known.expand_as(x_t).flatten(1).sum(1)
    return x0_hat.detach(), log_p.detach() - known / 2 * math.log(2 * math.pi * variance), gradient
