"""Inpainting methods, one short function each, their registry, and the one driver that runs them all.

A method is given the model, the observation, the noise of its rows and the levels to visit, and returns x0.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inkfill import defaults, masks
from inkfill.data import Images, as_images, check_size, to_uint8, to_x0
from inkfill.denoiser import Model, Observation
from inkfill.errors import InputError
from inkfill.rng import SampleNoise, stream
from inkfill.samplers import Watch, ancestral, ddim, dpmpp_2m, spaced_levels

ROWS = 128  # completions of a 28 x 28 image that go through the network together; fewer of a larger one


def run_sampler(
    name: str, model: Model, observation: Observation, noise: SampleNoise, levels: list[int], watch: Watch | None
) -> Tensor:
    """Sample with the conditional denoiser from pure noise down ``levels``."""
    denoise = model.conditional(observation)
    x = noise()
    if name == "dpmpp":
        return dpmpp_2m(denoise, x, model.schedule, levels, watch)
    if name == "ddim":
        return ddim(denoise, x, model.schedule, levels, watch=watch)
    return ancestral(denoise, x, model.schedule, levels, noise, watch)


@dataclass(frozen=True)
class Method:
    """An inpainting method and what to know before choosing it."""

    run: Callable[[str, Model, Observation, SampleNoise, list[int], Watch | None], Tensor]
    paper: str
    evaluations: str  # network evaluations per completion, in terms of the steps


METHODS = {
    "conditional": Method(run_sampler, "the network is told what is known: no approximation beyond training", "steps"),
}


def inpaint(
    model: Model,
    images: Images,
    mask: NDArray[np.bool_] | str,
    samples: int = defaults.SAMPLES,
    method: str = defaults.METHOD,
    steps: int = defaults.STEPS,
    seed: int = 0,
    sampler: str = defaults.SAMPLER,
    rows: int | None = None,
    progress: Callable[[int], object] | None = None,
    watch: Watch | None = None,
) -> Images:
    """Fill what ``mask`` hides, ``samples`` times over. Gives uint8 ``[N, samples, H, W]``.

    ``images`` is uint8 ``[N, H, W]``; ``mask`` is bool, True = missing, ``[N, H, W]`` or ``[H, W]``, or a spec such as
    ``"half:left"``. Known pixels come back bit for bit. The noise of image i, sample k depends on ``(seed, i, k)``
    alone, so ``rows`` (how many completions go through the network together) is a matter of speed and memory.
    ``progress`` is told how many completions were finished. Raises InputError for bad input.
    """
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
    if sampler not in defaults.SAMPLERS:
        raise InputError(f"unknown sampler {sampler!r}: choose one of {', '.join(defaults.SAMPLERS)}")
    if samples < 1:
        raise InputError(f"samples must be at least 1, not {samples}")
    levels = spaced_levels(model.schedule.T, steps)
    images = as_images(images, "images")
    check_size(images, "images")
    mask = fit_mask(mask, images, seed)

    n, h, w = images.shape
    filled = np.repeat(images[:, None], samples, axis=1)
    flat = filled.reshape(n * samples, h, w)
    holes = np.flatnonzero(mask.any((1, 2)))  # an image with nothing missing needs no network
    todo = (holes[:, None] * samples + np.arange(samples)).ravel()
    if progress and len(todo) < len(flat):
        progress(len(flat) - len(todo))
    size = rows or max(1, ROWS * 28 * 28 // (h * w))
    with torch.inference_mode():
        for start in range(0, len(todo), size):
            chunk = todo[start : start + size]
            image, sample = chunk // samples, chunk % samples
            hidden = torch.from_numpy(mask[image][:, None]).to(model.device)
            observation = Observation.of(to_x0(images[image]).to(model.device), hidden)
            noise = SampleNoise(seed, image, sample, (1, h, w), model.device)
            x0 = METHODS[method].run(sampler, model, observation, noise, levels, watch)
            flat[chunk] = np.where(mask[image], to_uint8(x0), images[image])
            if progress:
                progress(len(chunk))
    return filled


def sample(
    model: Model,
    count: int,
    size: tuple[int, int] = (28, 28),
    steps: int = defaults.STEPS,
    seed: int = 0,
    sampler: str = defaults.SAMPLER,
    progress: Callable[[int], object] | None = None,
) -> Images:
    """New images from nothing: uint8 ``[count, H, W]``. It is inpainting with everything missing."""
    if count < 1:
        raise InputError(f"count must be at least 1, not {count}")
    blank = np.zeros((count, *size), np.uint8)
    return inpaint(model, blank, "all", 1, "conditional", steps, seed, sampler, progress=progress)[:, 0]


def fit_mask(mask: NDArray | str, images: Images, seed: int) -> NDArray[np.bool_]:
    """The mask for these images, bool ``[N, H, W]``: drawn from a spec, or checked. Raises InputError."""
    if isinstance(mask, str):
        n, height, width = images.shape
        return masks.parse(mask).draw(n, height, width, stream(seed, "mask"), images)
    given = np.asarray(mask)
    if given.dtype != np.bool_:
        raise InputError(f"the mask holds {given.dtype} values: give bool, True = missing")
    if given.ndim == 3 and len(given) == 1:
        given = given[0]
    if given.ndim not in (2, 3) or given.shape[-2:] != images.shape[1:]:
        raise InputError(
            f"the mask has shape {list(given.shape)}, the images have {list(images.shape)}: sizes must agree"
        )
    if given.ndim == 3 and len(given) != len(images):
        raise InputError(
            f"the mask is for {len(given)} images, but there are {len(images)}: give one each, or one for all"
        )
    return np.broadcast_to(given, images.shape)
