"""The driver: images and a mask in, completions out. It knows no method by name, and counts what they evaluate."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inkfill import defaults
from inkfill.data import masks
from inkfill.data.images import BYTES, Images, as_images
from inkfill.data.readers import read_images
from inkfill.denoiser import ConditionalPrior, Observation, Prior
from inkfill.errors import InputError
from inkfill.methods import Method, Task, find_method
from inkfill.rng import SampleNoise, check_seed
from inkfill.samplers import Watch, find_sampler, spaced_levels

Rows = NDArray[np.int64]
BLACK_WITH_FLOOR = 0.8  # share of black where a recipe of version 0.1 tells only that the background is black
UNLIKE = 0.35  # difference in the share of black pixels from which on images count as of another kind
ROWS = 128  # completions of a 28 x 28 image that go through the network together; fewer of a larger one


def inpaint(
    prior: Prior,
    images: Any,
    mask: Any,
    samples: int = defaults.SAMPLES,
    method: str | Callable[..., Tensor] = defaults.METHOD,
    steps: int | None = None,
    seed: int = 0,
    sampler: str | None = None,
    settings: Mapping[str, float] | None = None,
    rows: int | None = None,
    progress: Callable[[int], object] | None = None,
    watch: Watch | None = None,
    count: Callable[[int], object] = lambda images: None,
    first: int = 0,
) -> Any:
    """Fill what ``mask`` hides, ``samples`` times over. Gives uint8 ``[N, samples, H, W]``.

    ``prior`` is a trained model, a closed form or any other :class:`~inkfill.denoiser.Prior`. ``images`` is uint8
    ``[N, H, W]``, or a torch tensor (which gives a tensor back), a list, a Pillow picture or the path of a file.
    ``mask`` is bool, True = missing, ``[N, H, W]`` or ``[H, W]``, a spec such as ``"half:left"``, or a file.
    ``method`` is a name or a function of a :class:`~inkfill.methods.Task`, ``settings`` its keyword arguments.
    ``steps`` and ``sampler`` default to what suits the prior.

    Known pixels come back bit for bit. The noise of image i, sample k depends on ``(seed, i, k)`` alone, so ``rows``
    (how many completions go through the network together) is a matter of speed and memory. ``first`` is the number of
    the first image, for a part of a set that is to get what the whole would; the mask must then be the array for that
    part. ``progress`` is told how many completions were finished, ``count`` how many images a network evaluation had.
    Raises InputError for bad input.
    """
    if not isinstance(samples, (int, np.integer)) or samples < 1:
        raise InputError(f"samples must be a whole number of at least 1, not {samples!r}")
    if first and isinstance(mask, str):
        raise InputError("first needs a mask array: a spec is drawn for a whole set of images")
    chosen, sampler, levels = _resolved(prior, method, steps, sampler)
    chosen_settings, seed = chosen.settings(settings), check_seed(seed)
    pictures = read_images(Path(images)) if isinstance(images, (str, Path)) else as_images(images)
    hidden = masks.fit(mask, pictures, seed)

    def run(observation: Observation, image: Rows, sample: Rows) -> Tensor:
        noise = SampleNoise(seed, first + image, sample, tuple(observation.pixels.shape[1:]), observation.pixels.device)
        return chosen.run(Task(prior, observation, noise, levels, sampler, watch, count), **chosen_settings)

    out = np.repeat(pictures[:, None], samples, axis=1)
    flat = out.reshape(-1, *pictures.shape[1:])
    missing = np.flatnonzero(hidden.any((1, 2)))  # an image with nothing missing needs no network
    todo = (missing[:, None] * samples + np.arange(samples)).ravel()
    if progress and len(todo) < len(flat):
        progress(len(flat) - len(todo))
    size = rows or max(1, ROWS * 28 * 28 // (pictures[0].size * chosen.particles(settings)))
    for start in range(0, len(todo), size):
        chunk = todo[start : start + size]
        image, sample = chunk // samples, chunk % samples
        found = _completed(prior, pictures[image], hidden[image], partial(run, image=image, sample=sample))
        flat[chunk] = np.where(hidden[image], found, pictures[image])
        if progress:
            progress(len(chunk))
    return torch.from_numpy(out) if isinstance(images, Tensor) else out


def _resolved(
    prior: Prior, method: str | Callable[..., Tensor], steps: int | None, sampler: str | None
) -> tuple[Method, str, list[int]]:
    """Method, sampler and levels, where none were given those that suit the prior. Raises InputError."""
    chosen = find_method(method, isinstance(prior, ConditionalPrior))
    sampler = getattr(prior, "sampler", defaults.SAMPLER) if sampler is None else sampler
    find_sampler(sampler)
    steps = getattr(prior, "steps", defaults.STEPS) if steps is None else steps
    return chosen, sampler, spaced_levels(prior.schedule.T, steps)


def _completed(prior: Prior, images: Images, mask: NDArray[np.bool_], run: Callable[[Observation], Tensor]) -> Images:
    """One completion of each row, known pixels and all. Raises InputError for what is not finite."""
    device = torch.device(getattr(prior, "device", "cpu"))
    values = getattr(prior, "value_range", BYTES)
    with torch.inference_mode(False), torch.no_grad():  # whatever the caller's mode: some methods need gradients
        x0 = run(Observation.of(values.to_x0(images).to(device), torch.from_numpy(mask[:, None]).to(device)))
    if not isinstance(x0, Tensor) or x0.shape != (len(images), prior.channels, *images.shape[1:3]):
        raise InputError("the method did not give x0: a tensor of the shape of task.observation.pixels is needed")
    if not bool(x0.isfinite().all()):
        raise InputError("the completions are not finite: use other settings or more steps")
    return values.to_images(x0)


def sample(
    prior: Prior,
    count: int,
    size: tuple[int, int] | None = None,
    steps: int | None = None,
    seed: int = 0,
    sampler: str | None = None,
    progress: Callable[[int], object] | None = None,
) -> Images:
    """New images from nothing: uint8 ``[count, H, W]``, by default of the size that the prior knows.

    It is inpainting with everything missing. Raises InputError.
    """
    if count < 1:
        raise InputError(f"count must be at least 1, not {count}")
    size = size or getattr(prior, "image_size", None)
    if size is None:
        raise InputError("this prior does not say how large its images are: give size=(height, width)")

    def draw(task: Task) -> Tensor:
        return task.sample(task.unconditional)

    blank = np.zeros((count, *size), np.uint8)
    drawn: Images = inpaint(prior, blank, "all", 1, draw, steps, seed, sampler, progress=progress)[:, 0]
    return drawn


def unlike(prior: Prior, images: Images, mask: NDArray[np.bool_]) -> list[str]:
    """In what images are so unlike those that a model learnt from that completions mean little; empty for none.

    Measured are the size and the share of known pixels that are black. For digits of MNIST that share is 0.81, for
    single ones 0.6 to 0.95.
    """
    reasons: list[str] = []
    recipe = getattr(prior, "recipe", None)
    if recipe is None:
        return reasons
    if images.shape[1:3] != recipe.image_size:
        trained = "x".join(map(str, recipe.image_size))
        reasons.append(f"on {trained} images, these are {images.shape[1]}x{images.shape[2]}")
    known = images[~mask]
    usual = recipe.black if recipe.black is not None else BLACK_WITH_FLOOR if recipe.floor else None
    if usual is not None and known.size:
        share = float((known == recipe.value_range[0]).mean())
        if abs(share - usual) > UNLIKE:
            reasons.append(f"on images that are {usual:.0%} black, these are {share:.0%}")
    return reasons
