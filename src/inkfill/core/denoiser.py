"""The interfaces that everything plugs into: denoiser, observation, prior.

A denoiser is a function ``denoise(x_t, t) -> x0_hat``: the posterior mean E[x0 given x_t] of the clean image, for
``x_t`` float ``[B, C, H, W]`` at timestep t (an int, the same for the batch).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from inkfill.core.schedule import Schedule
from inkfill.errors import InputError

Denoiser = Callable[[Tensor, int], Tensor]


class Draw(Protocol):
    """``draw(x_t, t, latent) -> x0``: a sample of p(x0 given x_t) and not its mean.

    ``latent`` is standard normal noise like x_t; at timestep T, where x_t is noise itself, it is None.
    """

    def __call__(self, x_t: Tensor, t: int, latent: Tensor | None = None) -> Tensor: ...


@dataclass(frozen=True)
class Observation:
    """The input of an inpainting method: ``pixels``, float ``[B, C, H, W]``, 0 where missing, and ``known``, bool.

    ``known`` has the shape of ``pixels``. ``noise`` is the standard deviation of Gaussian noise in the observed
    pixels, in units of x0; 0 means exact.
    """

    pixels: Tensor
    known: Tensor
    noise: float = 0.0

    @classmethod
    def of(cls, x0: Tensor, mask: Tensor, noise: float = 0.0) -> "Observation":
        """Blank the missing values of ``x0``, here alone; ``mask`` is ``[B, 1 or C, H, W]``, True = missing."""
        blank = torch.zeros((), dtype=x0.dtype, device=x0.device)
        return cls(torch.where(mask, blank, x0), ~mask.expand_as(x0), noise)

    @classmethod
    def nothing(cls, like: Tensor) -> "Observation":
        """An observation of no pixel, in the shape of ``like``."""
        return cls(torch.zeros_like(like), torch.zeros_like(like, dtype=torch.bool))

    @property
    def mask(self) -> Tensor:
        """True = missing."""
        return ~self.known

    def planes(self, count: int) -> Tensor:
        """``known`` as a network reads it: ``[B, count, H, W]``, one plane or one a channel. Raises InputError."""
        one = self.known[:, :1]
        if count == 1 and not bool((self.known == one).all()):
            raise InputError(
                "these weights read one mask for all channels of a pixel: train weights anew for masks by channel, or "
                "use a method that needs no conditional network (inkfill methods)"
            )
        return one if count == 1 else self.known

    def repeat(self, times: int) -> "Observation":
        """Every row ``times`` times, copies of a row adjacent."""
        pixels, known = (part.repeat_interleave(times, 0) for part in (self.pixels, self.known))
        return Observation(pixels, known, self.noise)

    def misfit(self, x0: Tensor) -> Tensor:
        """y - A x0: observed pixels minus those of ``x0``, 0 where missing."""
        return torch.where(self.known, self.pixels - x0, 0.0)


class Prior:
    """The base class of what methods are given: a schedule, a number of channels and ``unconditional``.

    A trained network, an analytic distribution and a foreign model are priors. The other attributes have defaults that
    a prior may override.
    """

    schedule: Schedule
    channels: int
    device: torch.device = torch.device("cpu")
    bounded: bool = False  # clean images lie in [-1, 1], so predictions are clipped
    generative: bool = False  # it has ``draw`` and no posterior mean: a few-step model
    image_size: tuple[int, int] | None = None  # height and width of its training images
    value_range: Any = None  # a data.images.ValueRange: how users' values become x0; None for bytes
    image_dtype: str = "uint8"  # of its training images
    planes: int | None = None  # mask planes that its network reads: 1 or one a channel; None for any
    method: str | None = None  # method, sampler and number of steps that suit it; None for the library's defaults
    sampler: str | None = None
    steps: int | None = None

    def unconditional(self, like: Tensor) -> Denoiser:
        """E[x0 given x_t], for states in the shape of ``like``."""
        raise NotImplementedError


class ConditionalPrior(Prior):
    """A prior with a conditional denoiser."""

    def conditional(self, observation: Observation) -> Denoiser:
        """E[x0 given x_t and the observed pixels], for the rows of an observation."""
        raise NotImplementedError


class GenerativePrior(Prior):
    """A prior that draws samples in one evaluation where ``generative`` is True: a few-step model."""

    def draw(self, observation: Observation) -> Draw:
        """Samples of p(x0 given x_t and the observed pixels), for the rows of an observation."""
        raise NotImplementedError


def jacobian(denoise: Denoiser, x_t: Tensor, t: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """x0_hat, and the function w -> J' w for the Jacobian J of x0_hat with respect to x_t (a backward pass a call).

    Raises InputError for a denoiser that detaches its output.
    """
    with torch.enable_grad():
        x = x_t.detach().requires_grad_()
        x0_hat = denoise(x, t)
    if not x0_hat.requires_grad:
        raise InputError("this denoiser has no gradient (torch.no_grad inside?): use a method without backward passes")

    def transposed(w: Tensor) -> Tensor:
        with torch.enable_grad():
            product = (x0_hat * w).sum()  # a scalar: given grad_outputs, torch would import sympy (3 s, once)
        return torch.autograd.grad(product, x, retain_graph=True)[0]

    return x0_hat.detach(), transposed


def likelihood_gradient(
    denoise: Denoiser,
    x_t: Tensor,
    t: int,
    observation: Observation,
    variance: float,
    clip: Callable[[Tensor], Tensor] = lambda x0: x0,
) -> tuple[Tensor, Tensor, Tensor]:
    """x0_hat, log p(y given x_t) and its gradient, with p(y given x_t) = N(clip(x0_hat), variance I).

    x0_hat comes back clipped; log p is ``[B]``, one value a row; the gradient, with respect to x_t, is J' (y - A
    x0_hat) / variance (one backward pass). ``clip`` is outside the gradient: inside, it would silence every observed
    pixel whose prediction it touches (reports/posteriors.md).
    """
    x0_hat, transposed = jacobian(denoise, x_t, t)
    x0_hat = clip(x0_hat)
    misfit = observation.misfit(x0_hat)
    log_p = -misfit.square().flatten(1).sum(1) / (2 * variance)
    known = observation.known.expand_as(x_t).flatten(1).sum(1)
    precision = 1 / misfit.new_tensor(variance)
    return x0_hat, log_p - known / 2 * math.log(2 * math.pi * variance), transposed(misfit * precision)
