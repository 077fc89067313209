"""The driver: images and a mask in, completions out. It knows no method by name, and counts what they evaluate."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inkfill import defaults, windows
from inkfill.data import masks
from inkfill.data.images import (
    BYTES,
    Images,
    Mask,
    ValueRange,
    as_images,
    as_known,
    can_be_filled,
    channels_of,
    of_values,
    opaque_of,
    other_channels,
    range_for,
    size_words,
    without_alpha,
)
from inkfill.data.readers import PICTURES, picture_files, read_images, stacked
from inkfill.denoiser import ConditionalPrior, Observation, Prior, draws
from inkfill.errors import InputError, remark
from inkfill.methods import METHODS, Method, Task, find_method
from inkfill.rng import SampleNoise, check_seed
from inkfill.samplers import Watch, find_sampler, spaced_levels

Numbers = NDArray[np.int64]
ROWS = 128  # completions of a 28 x 28 image that go through the network together; fewer of a larger one
CANVAS = 2**27  # bytes of completions of a large picture that are worked on together
BLACK_WITH_FLOOR = 0.8  # share of black where a recipe of version 0.1 tells only that the background is black
UNLIKE = 0.35  # difference in the share of black pixels from which on images count as of another kind


def inpaint(
    model: Prior,
    images: Any,
    mask: Any = None,
    samples: int = defaults.SAMPLES,
    method: str | Callable[..., Tensor] | None = None,
    steps: int | None = None,
    seed: int = 0,
    sampler: str | None = None,
    rows: int | None = None,
    progress: Callable[[int], object] | None = None,
    watch: Watch | None = None,
    first: int = 0,
    *,
    settings: Mapping[str, float] | None = None,
    value_range: tuple[float, float] | None = None,
    count: Callable[[int], object] = lambda images: None,
    observation_noise: float = 0.0,
) -> Any:
    """Fill what ``mask`` hides, ``samples`` times over: ``[N, samples, H, W]`` (or ``..., C]``), typed as it came.

    ``model`` is a trained model, a closed form or any other :class:`~inkfill.denoiser.Prior`. ``images`` is ``[N, H,
    W]`` or ``[N, H, W, C]`` of any number type, or a torch tensor (which gives a tensor back), a Pillow picture, the
    path of a file or folder, or a list; pictures of several sizes give a list back. ``mask`` is bool, True = missing,
    ``[N, H, W]`` or ``[H, W]``, a spec such as ``"half:left"``, ``"nan"`` or ``"alpha"``, or a file; None means the
    holes that the images have. ``method`` is a name or a function of a :class:`~inkfill.methods.Task`, ``settings`` its
    keyword arguments. ``method``, ``steps`` and ``sampler`` default to what suits the model. ``value_range`` says what
    black and white are, where number type and training do not tell.

    Known pixels come back bit for bit. The noise of image i, sample k depends on ``(seed, i, k)`` alone, so ``rows``
    (how many completions go through the network together) is a matter of speed and memory. ``first`` is the number of
    the first image, for a part of a set that is to get what the whole would; the mask must then be the array for that
    part. ``observation_noise`` is the standard deviation of noise in the known pixels, in the numbers of ``images``:
    with it they are estimated like the missing ones, and do not come back bit for bit. ``progress`` is told how many
    completions were finished, ``count`` how many images a network evaluation had.
    Raises InputError for bad input.
    """
    _check_count("samples", samples)
    if rows is not None:
        _check_count("rows", rows)
    if first and isinstance(mask, str):
        raise InputError("first needs a mask array: a spec is drawn for a whole set of images")
    job = _Job.of(model, method, steps, seed, sampler, settings, rows, watch, count, progress, observation_noise)
    _check_pairs(images, mask)
    given = _understood(images, model.channels)
    if isinstance(given, list):
        hidden = enumerate(_hidden(given, mask, seed))
        return [_filled(job, given[i], hole, samples, first + i, value_range)[0] for i, hole in hidden]
    out = _filled(job, given, masks.fit(mask, given, seed), samples, first, value_range)
    if not isinstance(images, Tensor):
        return out
    first_channel = out.ndim == 5 and images.ndim == 4 and images.shape[1] == out.shape[4]
    filled = torch.from_numpy(np.ascontiguousarray(np.moveaxis(out, -1, 2)) if first_channel else out)
    return filled.to(images.dtype)  # numpy has no bfloat16


def _check_count(name: str, value: Any) -> None:
    if not isinstance(value, (int, np.integer)) or value < 1:
        raise InputError(f"{name} must be a whole number of at least 1, not {value!r}")


def _hidden(pictures: list[Images], mask: Any, seed: int) -> list[Mask]:
    """The masks of pictures of several sizes, of which some may be whole. Raises InputError."""
    if mask is None:
        holes = [masks.holes_of(picture) for picture in pictures]
        if not any(hole.any() for hole in holes):
            raise InputError(masks.NO_HOLES)
        return holes
    each = mask if isinstance(mask, (list, tuple)) else [mask] * len(pictures)
    if len(each) != len(pictures):
        raise InputError(f"{len(each)} masks for {len(pictures)} images: give one each, or one for all")
    return [masks.fit(each[i], picture, seed + i) for i, picture in enumerate(pictures)]


def _check_pairs(images: Any, mask: Any) -> None:
    """Raise InputError for a folder of masks that are not called as the pictures of a folder are."""
    if isinstance(images, (str, Path)) and Path(images).is_dir() and masks.is_folder(mask):
        pictures, holes = ([file.stem for file in picture_files(Path(folder))] for folder in (images, mask))
        if len(holes) > 1 and pictures != holes:
            both = zip_longest(pictures, holes, fillvalue="none")
            one, other = next((picture, hole) for picture, hole in both if picture != hole)
            raise InputError(f"{mask}: masks are paired with pictures by name, and beside {one} stands {other}")


def _understood(images: Any, knows: int) -> Images | list[Images]:
    """Images as one array ``[N, ...]``, or as a list of ``[1, ...]`` where they differ. Raises InputError.

    Files are given the channels that weights of so many know, where theirs is a matter of how they were saved.
    """
    if isinstance(images, (str, Path)):
        path = Path(images)
        images = read_images(path)
        if path.is_dir() or path.suffix.lower() in PICTURES:
            images = [as_known(picture, knows) for picture in images]
    if isinstance(images, (list, tuple)) and images and not isinstance(images[0], (list, tuple, int, float)):
        each = [as_images(picture, f"images[{i}]") for i, picture in enumerate(images)]
        one = stacked([picture[0] for picture in each]) if all(len(picture) == 1 for picture in each) else None
        if isinstance(one, list):
            return each
    return as_images(images)


# ---- one set of images of one kind -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """How completions are made: everything but the images."""

    prior: Prior
    method: Method
    settings: dict[str, float]
    levels: list[int]
    sampler: str
    seed: int
    rows: int | None
    watch: Watch | None
    count: Callable[[int], object]
    progress: Callable[[int], object]
    observation_noise: float

    @classmethod
    def of(
        cls,
        prior: Prior,
        method: str | Callable[..., Tensor] | None,
        steps: int | None,
        seed: int,
        sampler: str | None,
        settings: Mapping[str, float] | None,
        rows: int | None,
        watch: Watch | None,
        count: Callable[[int], object],
        progress: Callable[[int], object] | None,
        observation_noise: float,
    ) -> "_Job":
        """With what suits the prior where nothing was given. Raises InputError."""
        method = getattr(prior, "method", defaults.METHOD) if method is None else method
        if not (isinstance(observation_noise, Real) and 0 <= observation_noise < math.inf):
            raise InputError(f"the observation's noise must be a number from 0 on, not {observation_noise!r}")
        chosen = find_method(method, prior, observation_noise > 0)
        if observation_noise:
            remark("what is known is taken for noisy: it is estimated too, and does not come back bit for bit")
        sampler = getattr(prior, "sampler", defaults.SAMPLER) if sampler is None else sampler
        find_sampler(sampler)
        steps = getattr(prior, "steps", defaults.STEPS) if steps is None else steps
        levels, told = spaced_levels(prior.schedule.T, steps), progress or (lambda completions: None)
        given = chosen.settings(settings)
        return cls(prior, chosen, given, levels, sampler, check_seed(seed), rows, watch, count, told, observation_noise)

    def batch(self, pixels: int) -> int:
        """How many completions of so many pixels go through the network together."""
        return self.rows or max(1, ROWS * 28 * 28 // (pixels * self.method.particles(self.settings)))

    def completed(
        self,
        images: Images,
        mask: Mask,
        values: ValueRange,
        image: Numbers,
        sample: Numbers,
        part: Numbers | None = None,
    ) -> Images:
        """One completion of each row, known pixels as they were. Raises InputError for what is not finite."""
        device = torch.device(getattr(self.prior, "device", "cpu"))
        with torch.inference_mode(False), torch.no_grad():  # whatever the caller's mode: some methods need gradients
            x0 = values.to_x0(images).to(device)
            missing = torch.from_numpy(np.ascontiguousarray(mask[:, None])).to(device)
            observation = Observation.of(x0, missing, self.observation_noise / ((values.high - values.low) / 2))
            noise = SampleNoise(self.seed, image, sample, tuple(x0.shape[1:]), device, part)
            task = Task(self.prior, observation, noise, self.levels, self.sampler, self.watch, self.count)
            found = self.method.run(task, **self.settings)
        if not isinstance(found, Tensor) or found.shape != x0.shape:
            raise InputError("the method did not give x0: a tensor of the shape of task.observation.pixels is needed")
        if not bool(found.isfinite().all()):
            raise InputError("the completions are not finite: use other settings or more steps")
        estimated = mask | (self.observation_noise > 0)
        return np.where(of_values(estimated, images), values.to_images(found, images), images)


def _filled(
    job: _Job, images: Images, mask: Mask, samples: int, first: int, value_range: tuple[float, float] | None
) -> Images:
    """Completions ``[N, K, ...]`` of images of one kind."""
    if value_range is not None:
        try:
            low, high = map(float, value_range)
        except (TypeError, ValueError):
            raise InputError(f"value_range must be two numbers, black and white, not {value_range!r}") from None
        value_range = low, high
    images = np.asarray(np.ma.getdata(images))
    pictures, alpha = _without_alpha(job.prior, images)
    if alpha is not None and alpha.dtype.kind == "f" and bool((alpha[~mask] > 2).any()):
        raise InputError(f"alpha of fractions is from 0 to 1, and here it goes to {alpha[~mask].max():g}")
    values = _values(job.prior, pictures, mask, value_range)
    if windows.is_large(pictures.shape[1:3], getattr(job.prior, "image_size", None)):
        if job.observation_noise:
            raise InputError("noise in what is known: large pictures, which are filled through windows, cannot have it")
        out = _large(job, pictures, mask, values, samples, first)
    else:
        out = _small(job, pictures, mask, values, samples, first)
    if alpha is None:
        return out
    opaque = np.where(mask, np.asarray(opaque_of(images.dtype), images.dtype), alpha)  # what was filled can be seen
    return np.concatenate([_last(out), np.repeat(opaque[:, None, ..., None], samples, 1)], -1)


def _last(out: Images) -> Images:
    """Completions with a channel axis."""
    return out[..., None] if out.ndim == 4 else out


def _small(job: _Job, images: Images, mask: Mask, values: ValueRange, samples: int, first: int) -> Images:
    """Completions of images that go through the network as they are."""
    out = np.repeat(images[:, None], samples, axis=1)
    flat = out.reshape(-1, *images.shape[1:])
    # An image with nothing missing needs no network, if what is known is exact.
    missing = np.flatnonzero(mask.any((1, 2)) | (job.observation_noise > 0))
    todo = (missing[:, None] * samples + np.arange(samples)).ravel()
    if len(todo) < len(flat):
        job.progress(len(flat) - len(todo))
    size = job.batch(images.shape[1] * images.shape[2])
    for start in range(0, len(todo), size):
        chunk = todo[start : start + size]
        image, sample = chunk // samples, chunk % samples
        flat[chunk] = job.completed(images[image], mask[image], values, first + image, sample)
        job.progress(len(chunk))
    return out


def _large(job: _Job, images: Images, mask: Mask, values: ValueRange, samples: int, first: int) -> Images:
    """Completions of large pictures, window by window; what one window filled is known to the next (windows.py)."""
    size: tuple[int, int] = job.prior.image_size  # type: ignore[attr-defined]
    out = np.repeat(images[:, None], samples, axis=1)
    for i in range(len(images)):
        waves = windows.plan(mask[i], size)
        together = max(1, CANVAS // max(1, images[i].nbytes))
        for start in range(0, samples, together):
            group = np.arange(start, min(samples, start + together))
            missing = mask[i].copy()
            for wave in waves:
                todo = [(k, window) for window in wave for k in group]
                batch = job.batch(size[0] * size[1])
                for begin in range(0, len(todo), batch):
                    _fill_windows(job, out[i], missing, todo[begin : begin + batch], values, first + i)
                for window in wave:
                    missing[window.place] = False
            job.progress(len(group))
    return out


def _fill_windows(
    job: _Job, canvas: Images, missing: Mask, todo: Sequence[tuple[int, windows.Window]], values: ValueRange, image: int
) -> None:
    """Fill windows of completions ``[K, H, W]`` or ``[K, H, W, C]`` in their place."""
    parts = np.stack([canvas[k][window.place] for k, window in todo])
    holes = np.stack([missing[window.place] for _, window in todo])
    samples, numbers = np.array([k for k, _ in todo]), np.array([window.number for _, window in todo])
    found = job.completed(parts, holes, values, np.full(len(todo), image), samples, numbers)
    for (k, window), pixels in zip(todo, found, strict=True):
        canvas[k][window.place] = pixels


# ---- what the numbers mean -------------------------------------------------------------------------------------------


def _without_alpha(prior: Prior, images: Images) -> tuple[Images, Images | None]:
    """Images as the prior knows them, and the alpha channel ``[N, H, W]`` that it does not. Raises InputError."""
    have, knows = channels_of(images), prior.channels
    if have == knows:
        return images, None
    if can_be_filled(have, knows):
        return without_alpha(images, knows), images[..., -1]
    raise InputError(other_channels(have, knows))


def _values(prior: Prior, images: Images, mask: Mask, given: tuple[float, float] | None) -> ValueRange:
    """What black and white are in these images. Raises InputError for values that are not numbers outside the mask."""
    learnt, kind = getattr(prior, "value_range", BYTES), getattr(prior, "number_type", "uint8")
    values = range_for(images, mask, learnt, kind, given)
    known = images[~mask]
    if known.size and (known.min() < values.low or known.max() > values.high):
        found = f"from {known.min():g} to {known.max():g}"
        remark(f"known values go {found}, and black is {values.low:g}, white {values.high:g}: they stay as they are")
    return values


def sample(
    model: Prior,
    count: int,
    size: tuple[int, int] | None = None,
    steps: int | None = None,
    seed: int = 0,
    sampler: str | None = None,
    progress: Callable[[int], object] | None = None,
) -> Images:
    """New images from nothing, ``[count, H, W]`` (or ``..., C]``), in size and type those that the model learnt.

    It is inpainting with everything missing. ``steps`` is 16 by default, or more if that suits the model: where nothing
    is known, the first levels decide what will be there. Raises InputError.
    """
    _check_count("count", count)
    size = size or getattr(model, "image_size", None)
    if size is None:
        raise InputError("this model does not say how large its images are: give size=(height, width)")
    if not (isinstance(size, (tuple, list)) and len(size) == 2):
        raise InputError(f"size must be (height, width), not {size!r}")

    def generate(task: Task) -> Tensor:
        if not bool(task.observation.known.any()):
            return task.sample(task.unconditional)
        # A window of a large image, which goes on from those that were filled before.
        return task.sample(task.conditional) if isinstance(model, ConditionalPrior) else METHODS["ddnm"].run(task)

    shape = (count, *size) if model.channels == 1 else (count, *size, model.channels)
    blank = np.zeros(shape, getattr(model, "number_type", "uint8"))
    method = None if draws(model) else generate
    if steps is None and not draws(model):
        steps = min(max(defaults.NEW_STEPS, getattr(model, "steps", 0)), model.schedule.T)
    drawn: Images = inpaint(model, blank, "all", 1, method, steps, seed, sampler, progress=progress)[:, 0]
    return drawn


def unlike(prior: Prior, images: Images, mask: Mask) -> list[str]:
    """In what images are so unlike those that a model learnt from that completions mean little; empty for none.

    Measured are the size and the share of known pixels that are black. For digits of MNIST that share is 0.81, for
    single ones 0.6 to 0.95.
    """
    reasons: list[str] = []
    recipe = getattr(prior, "recipe", None)
    if recipe is None:
        return reasons
    size, least, most = images.shape[1:3], recipe.least_size, max(recipe.image_size)
    between = least[0] > 0 and least[0] <= size[0] <= most and least[1] <= size[1] <= most
    if size != recipe.image_size and not between:
        trained = "x".join(map(str, recipe.image_size))
        reasons.append(f"on {trained} images, these are {size_words(images)}")
    known = images[~mask]
    usual = recipe.black if recipe.black is not None else BLACK_WITH_FLOOR if recipe.floor else None
    if usual is not None and known.size and images.dtype.name == recipe.number_type:
        share = float((known == recipe.value_range[0]).mean())
        if abs(share - usual) > UNLIKE:
            reasons.append(f"on images that are {usual:.0%} black, these are {share:.0%}")
    return reasons
