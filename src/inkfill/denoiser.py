"""What a denoiser is, and how a network becomes one.

A denoiser is a function ``denoise(x_t, t) -> x0_hat``: the posterior mean of the clean image given ``x_t``
``[B, C, H, W]`` at level t (an int, the same for the batch). Everything else plugs into it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from inkfill.checkpoint import SHIPPED, load_network
from inkfill.data import Images, to_uint8
from inkfill.errors import InputError
from inkfill.schedule import Schedule
from inkfill.unet import UNet

Denoiser = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Observation:
    """What an inpainting method is given: ``pixels`` float ``[B, 1, H, W]``, 0 where missing, and ``known``, bool."""

    pixels: Tensor
    known: Tensor

    @classmethod
    def of(cls, x0: Tensor, mask: Tensor) -> "Observation":
        """Blank what the mask hides (True = missing). The one place that does it, so that no method can peek."""
        return cls(torch.where(mask, torch.zeros((), dtype=x0.dtype, device=x0.device), x0), ~mask)

    @property
    def mask(self) -> Tensor:
        """True = missing."""
        return ~self.known


class DenoiserSource(Protocol):
    """What methods need of a model: the trained network is one, a prior in closed form (``oracle.py``) another."""

    schedule: Schedule
    evaluations: int

    def conditional(self, observation: Observation) -> Denoiser: ...

    def unconditional(self, like: Tensor) -> Denoiser: ...

    def clip(self, x0: Tensor) -> Tensor:
        """x0 put back into the range that clean images have, if they have one."""
        ...


def likelihood_gradient(
    denoise: Denoiser, x_t: Tensor, t: int, observation: Observation, variance: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Take p(y given x_t) for N(x0_hat, variance I) on the known pixels: what it says, and where it pulls x_t.

    Gives x0_hat, log p(y given x_t) ``[B]``, and its gradient with respect to x_t, through the denoiser (one forward
    and one backward pass). Each row has its own: nothing is summed over the batch.
    """
    with torch.enable_grad():
        x = x_t.detach().requires_grad_()
        x0_hat = denoise(x, t)
        misfit = torch.where(observation.known, observation.pixels - x0_hat, 0.0)
        log_p = -misfit.square().flatten(1).sum(1) / (2 * variance)
        (gradient,) = torch.autograd.grad(log_p.sum(), x)
    known = observation.known.flatten(1).sum(1)
    return x0_hat.detach(), log_p.detach() - known / 2 * math.log(2 * math.pi * variance), gradient


class Model:
    """A trained network with the schedule it was trained on: the thing that ``inkfill.load`` returns.

    ``conditional(observation)`` and ``unconditional(like)`` give denoisers; ``evaluations`` counts what they ran, in
    images. ``dtype`` is what the network computes in (bfloat16 or float32); states stay float32.
    """

    def __init__(self, net: UNet, recipe: dict[str, Any], device: torch.device, dtype: torch.dtype):
        self.recipe = recipe
        self.device = device
        self.dtype = dtype
        self.schedule = Schedule.named(recipe["schedule"], recipe["T"])
        self.net = net.eval().requires_grad_(False).to(device, dtype)
        self.evaluations = 0

    def check(self, objective: str) -> None:
        """Raise InputError if the network was trained for another objective, "noise" or "regression"."""
        trained = self.recipe.get("objective", "noise")
        if trained != objective:
            raise InputError(f"this network was trained with the objective {trained}, and this needs {objective}")

    def pixels(self, x0: Tensor) -> Images:
        """A finished image as uint8 ``[..., H, W]``.

        Where the training images have a background of exactly 0 (the recipe's ``floor`` says so), grey levels up to the
        floor become 0. A network's mean can come near to such a value but not reach it, and completions that are 1 or 2
        where the truth is 0 are nearly always above it: ranks show that at once.
        """
        values = to_uint8(x0)
        return np.where(values <= self.recipe.get("floor", 0), np.uint8(0), values)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images that the network was trained on."""
        height, width = self.recipe.get("image_size", (28, 28))
        return int(height), int(width)

    def conditional(self, observation: Observation) -> Denoiser:
        """The posterior mean given x_t and what is known. Known pixels come out exactly as they went in."""
        pixels, known = observation.pixels.to(self.dtype), observation.known.to(self.dtype)
        embedded = self.net.embed(pixels, known)

        def denoise(x_t: Tensor, t: int) -> Tensor:
            self.evaluations += len(x_t)
            level = torch.tensor([t / self.schedule.T], device=self.device)
            v = self.net(x_t.to(self.dtype), pixels, known, level, embedded)
            x0_hat = self.clip(self.schedule.x0_from_v(x_t, t, v))
            return torch.where(observation.known, observation.pixels, x0_hat)

        return denoise

    def unconditional(self, like: Tensor) -> Denoiser:
        """The prior's denoiser, for states of the shape of ``like``: the same network with everything hidden."""
        return self.conditional(Observation(torch.zeros_like(like), torch.zeros_like(like, dtype=torch.bool)))

    def clip(self, x0: Tensor) -> Tensor:
        """Images lie in [-1, 1]."""
        return x0.clamp(-1, 1)


def load(path: Path | str | None = None, device: str | None = None, dtype: torch.dtype | None = None) -> Model:
    """A model from a checkpoint (default: the shipped weights), on CUDA where there is one, else on the CPU.

    ``dtype`` defaults to bfloat16 where the processor multiplies it natively, else float32. Raises InputError.
    """
    net, recipe = load_network(Path(path) if path else SHIPPED)
    chosen = _device(device)
    if dtype is None:
        dtype = torch.bfloat16 if _native_bfloat16(chosen) else torch.float32
    return Model(net, recipe, chosen, dtype)


def _device(name: str | None) -> torch.device:
    cuda = torch.cuda.is_available()
    try:
        chosen = torch.device(name or ("cuda" if cuda else "cpu"))
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise InputError(f"unknown device {name!r}: use cpu, cuda, or cuda:N")
    if chosen.type == "cuda" and not (cuda and (chosen.index or 0) < torch.cuda.device_count()):
        raise InputError(f"there is no device {name} here that this build of torch can use: use cpu")
    return chosen


def _native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported())
