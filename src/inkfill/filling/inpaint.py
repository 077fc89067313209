"""The driver: any images and mask in, samples out, by any method on any prior."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import zip_longest
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inkfill import defaults
from inkfill.core.denoiser import ConditionalPrior, Observation, Prior
from inkfill.core.masks import as_planes
from inkfill.core.rng import SampleNoise, check_seed
from inkfill.core.samplers import Watch, find_sampler, spaced_timesteps
from inkfill.data import masks
from inkfill.data.images import (
    BYTES,
    Images,
    Mask,
    ValueRange,
    as_known,
    as_parts,
    channels_of,
    joined,
    nodata_words,
    of_pixels,
    of_values,
    opaque_of,
    range_for,
    without_alpha,
    without_hidden_colour,
)
from inkfill.data.readers import PICTURES, image_files, read_images, read_pictures
from inkfill.errors import InputError, remark
from inkfill.filling import windows
from inkfill.methods import Method, Task, find_method

Numbers = NDArray[np.int64]
ROWS = 128  # samples of a 28 x 28 image evaluated together; fewer of larger images


def ignore(count: int) -> None:
    """A callback that does nothing."""


@dataclass(frozen=True)
class Options:
    """How samples are drawn; None stands for the default of the prior."""

    method: str | Callable[..., Tensor] | None = None
    steps: int | None = None
    seed: int = 0
    sampler: str | None = None
    settings: Mapping[str, float] | None = None  # keyword arguments of the method
    rows: int | None = None  # samples evaluated together
    observation_noise: float = 0.0  # standard deviation of noise in the observed pixels, in users' values
    value_range: tuple[float, float] | None = None  # users' values that become -1 and 1
    first_sample: int = 0  # number of the first sample, for its noise
    watch: Watch | None = None
    count: Callable[[int], object] = field(default=ignore)  # called with the images of each network evaluation
    progress: Callable[[int], object] = field(default=ignore)  # called with the number of samples drawn


def inpaint(
    model: Prior,
    images: Any,
    mask: Any = None,
    samples: int = defaults.SAMPLES,
    method: str | Callable[..., Tensor] | None = None,
    steps: int | None = None,
    seed: int = 0,
    sampler: str | None = None,
    *,
    settings: Mapping[str, float] | None = None,
    rows: int | None = None,
    observation_noise: float = 0.0,
    value_range: tuple[float, float] | None = None,
    ignore: Any = None,
    first: int = 0,
    first_sample: int = 0,
    watch: Watch | None = None,
    count: Callable[[int], object] = ignore,
    progress: Callable[[int], object] = ignore,
) -> Any:
    """Fill the missing pixels, ``samples`` times: ``[N, samples, H, W]`` (or ``..., C]``), in the dtype of ``images``.

    ``model`` is a trained model, an analytic prior or any other :class:`~inkfill.core.denoiser.Prior`. ``images`` is
    ``[N, H, W]`` or ``[N, H, W, C]`` of any dtype, a torch tensor (a tensor comes back), a Pillow image, the path of a
    file or folder, or a list of these; images of several sizes give a list. ``mask`` is bool, True = missing:
    ``[N, H, W]``, ``[H, W]``, or ``[N, H, W, C]`` by channel; a spec such as ``"half:left"``, ``"nan"``, ``"alpha"``,
    ``"value:-32768"`` (the value that means missing); a Pillow image, a file or folder, or a list. None means NaN and
    masked values. ``method`` is a name or a function of a
    :class:`~inkfill.methods.Task`, ``settings`` its keyword arguments. ``method``, ``steps`` and ``sampler`` default to
    those of the model. ``value_range`` is the data range (low, high), where dtype and training do not determine it.

    Observed pixels come back bit for bit. The noise of image i, sample k depends on ``(seed, i, k)`` alone, so ``rows``
    (samples evaluated together) affects speed and memory only. ``first`` is the number of the first image, for a part
    of a set; the mask must then be the array for that part. ``first_sample`` is the number of the first sample.
    ``ignore`` marks, as ``mask`` does, unknown values that are not to be filled: they are never read, and come back as
    they were (:func:`inkfill.data.masks.split` says what holds where both mark a pixel). ``observation_noise`` is the
    standard deviation of noise in the observed pixels, in the values of ``images``: they are then estimated like the
    missing ones. ``progress`` is called with the number of samples drawn, ``count`` with the number of images of each
    network evaluation.

    An xarray DataArray or Dataset comes back as such (:func:`inkfill.integrations.xarray.inpaint`). Raises InputError.
    """
    _check_count("samples", samples)
    if first and (isinstance(mask, str) or isinstance(ignore, str)):
        raise InputError("first: needs a mask array: a spec is drawn for a whole set of images")
    if not isinstance(first_sample, (int, np.integer)) or not 0 <= first_sample < 2**31:
        raise InputError(f"first_sample must be an integer of at least 0, not {first_sample!r}")
    options = Options(
        method, steps, seed, sampler, settings, rows, observation_noise, value_range, first_sample, watch, count,
        progress,
    )  # fmt: skip
    if type(images).__module__.startswith("xarray."):  # an extra of a layer above: imported for its own arrays only
        if ignore is not None:
            raise InputError("ignore: not supported for xarray: give the array's values")
        labelled = import_module("inkfill.integrations.xarray")
        return labelled.inpaint(model, images, mask, samples, first=first, **vars(options))
    draw = _Draw(model, options)
    parts, names = _parts_of(images, model.channels)
    given, holes = _masks_of(mask, parts, seed, names)
    if ignore is None:
        pairs = [(hole, np.zeros_like(hole)) for hole in holes]
    else:
        other, ignored = _masks_of(ignore, [np.ma.getdata(part) for part in parts], seed, names)
        other = other or masks.MaskInput()
        pairs = [masks.split(given, other, *each) for each in zip(holes, ignored, strict=True)]
    if given:
        given.check_any(any(hole.any() for hole, _ in pairs))
    filled, number = [], first
    for part, (hole, left) in zip(parts, pairs, strict=True):
        drawn = _filled(draw, without_hidden_colour(part), hole, left, samples, number)
        filled.append(_restored(drawn, part, hole, left))
        number += len(part)
    if len(parts) > 1:
        return [each[0] for each in filled]
    out = filled[0]
    if not isinstance(images, Tensor):
        return out
    channels_first = out.ndim == 5 and images.ndim == 4 and images.shape[1] == out.shape[4]
    tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(out, -1, 2)) if channels_first else out)
    return tensor.to(images.dtype)  # numpy has no bfloat16


def sample(
    model: Prior,
    count: int,
    size: tuple[int, int] | None = None,
    steps: int | None = None,
    seed: int = 0,
    sampler: str | None = None,
    progress: Callable[[int], object] = ignore,
) -> Images:
    """Unconditional samples, ``[count, H, W]`` (or ``..., C]``), in the size and dtype of the training images.

    It is inpainting with every pixel missing. ``steps`` is 16 by default, or more if the model's default is: without
    observed pixels the first steps decide the content. Raises InputError.
    """
    _check_count("count", count)
    _check_prior(model)
    size = size or model.image_size  # some priors have none
    if not (isinstance(size, (tuple, list)) and len(size) == 2):
        raise InputError(f"size: give (height, width), not {size!r}")
    shape = (count, *size) if model.channels == 1 else (count, *size, model.channels)
    blank = np.zeros(shape, model.image_dtype)
    if steps is None and not model.generative:
        steps = min(max(defaults.NEW_STEPS, model.steps or 0), model.schedule.T)
    method = None if model.generative else _unconditional
    drawn: Images = inpaint(model, blank, "all", 1, method, steps, seed, sampler, progress=progress)[:, 0]
    return drawn


def _unconditional(task: Task) -> Tensor:
    """The unconditional denoiser. A window of a large image is conditioned on the windows filled before it."""
    if not bool(task.observation.known.any()):
        return task.sample(task.unconditional)
    if isinstance(task.prior, ConditionalPrior):
        return task.sample(task.conditional)
    observed = task.observation
    return task.sample(lambda x_t, t: torch.where(observed.known, observed.pixels, task.unconditional(x_t, t)))


def _restored(out: Images, images: Images, mask: Mask, ignored: Mask) -> Images:
    """Samples with what the network was not shown: ignored values, and colours under transparent observed pixels."""
    values, kept = np.ma.getdata(images), np.broadcast_to(of_values(ignored, images), images.shape).copy()
    if channels_of(images) in (2, 4):
        kept |= (values[..., -1:] == 0) & ~of_values(mask, images)
    np.copyto(out, values[:, None], where=kept[:, None])  # np.where would change the byte order
    return out


def _check_count(name: str, value: Any) -> None:
    if not isinstance(value, (int, np.integer)) or value < 1:
        raise InputError(f"{name} must be an integer of at least 1, not {value!r}")


def _check_prior(model: Any) -> None:
    if not isinstance(model, Prior):
        raise InputError(f"{type(model).__name__} is no prior: give a model, or subclass inkfill.core.denoiser.Prior")


def _masks_of(
    mask: Any, parts: list[Images], seed: int, names: list[str] | None
) -> tuple[masks.MaskInput | None, list[Mask]]:
    """A parsed mask and the masks of all parts; None where there is one each."""
    if isinstance(mask, (list, tuple)) and len(parts) > 1:
        return None, _one_each(mask, parts, seed)
    given = masks.read_mask(mask)
    return given, given.draw_all(parts, seed, names)


def _one_each(each: Sequence[Any], parts: list[Images], seed: int) -> list[Mask]:
    """The masks of images of several sizes, from one mask each."""
    if len(each) != len(parts):
        raise InputError(f"{len(each)} masks for {len(parts)} images: give one each, or one for all")
    return [masks.fit(one, part, seed, first=i) for i, (one, part) in enumerate(zip(each, parts, strict=True))]


def _parts_of(images: Any, channels: int) -> tuple[list[Images], list[str] | None]:
    """One array of images, or an array for each image where sizes differ; and the names of image files.

    Image files get the channels that the model knows, where a file format leaves them open. Raises InputError.
    """
    names, files = None, _files_of(images)
    if files:
        pictures, sources = read_pictures(files)
        names = [source.name for source in sources]
        images = [as_known(picture, channels)[None] for picture in pictures]
    elif isinstance(images, (str, Path)):
        images = read_images(Path(images))
    parts = as_parts(images, knows=channels)
    kinds = {(part.shape, part.dtype) for part in parts}
    several = len(kinds) > 1 and all(len(part) == 1 for part in parts)
    return parts if several else [joined(parts)], names


def _files_of(images: Any) -> list[Path]:
    """The image files of a path or a list of paths; none for an array, in a file too."""
    if isinstance(images, (list, tuple)) and images and all(isinstance(each, (str, Path)) for each in images):
        return [Path(each) for each in images]
    if not isinstance(images, (str, Path)):
        return []
    path = Path(images)
    return image_files(path) if path.is_dir() or path.suffix.lower() in PICTURES else []


def range_of_images(prior: Prior, images: Images, mask: Mask, given: tuple[float, float] | None = None) -> ValueRange:
    """The data range of images, apart from an alpha channel that the prior does not know. Raises InputError."""
    observed = without_alpha(images, prior.channels)
    return range_for(observed, mask, prior.value_range or BYTES, prior.image_dtype, given)


class _Draw:
    """A method on a prior with its options resolved. Raises InputError for options that do not fit."""

    def __init__(self, prior: Prior, options: Options):
        _check_prior(prior)
        noise = options.observation_noise
        if not (isinstance(noise, Real) and 0 <= noise < math.inf):
            raise InputError(f"observation_noise must be a number of at least 0, not {noise!r}")
        if options.rows is not None:
            _check_count("rows", options.rows)
        check_seed(options.seed)
        chosen = prior.method or defaults.METHOD if options.method is None else options.method
        self.prior: Prior = prior
        self.options: Options = options
        self.method: Method = find_method(chosen, prior, noise > 0)
        if noise:
            remark("observation noise is set: observed pixels will change")
        self.sampler: str = options.sampler or prior.sampler or defaults.SAMPLER
        find_sampler(self.sampler)
        steps = prior.steps or defaults.STEPS if options.steps is None else options.steps
        self.timesteps: list[int] = spaced_timesteps(prior.schedule.T, steps)
        self.settings: dict[str, float] = self.method.settings(options.settings)

    @property
    def reads_pixels(self) -> bool:
        """Whether the method's network reads one mask plane for all channels of a pixel."""
        return self.prior.planes == 1 and bool(self.method.needs)

    def rows(self, pixels: int) -> int:
        """Samples of ``pixels`` pixels that are evaluated together."""
        return self.options.rows or max(1, ROWS * 28 * 28 // (pixels * self.method.particles(self.settings)))

    def __call__(
        self,
        images: Images,
        mask: Mask,
        values: ValueRange,
        image: Numbers,
        sample: Numbers,
        part: Numbers | None = None,
    ) -> Images:
        """One sample of each row, with observed pixels as they were. Raises InputError if one is not finite."""
        options, device = self.options, self.prior.device
        with torch.inference_mode(False), torch.no_grad():  # whatever the caller's mode: some methods need gradients
            x0 = values.to_x0(np.where(of_values(mask, images), images.dtype.type(0), images)).to(device)
            hidden = as_planes(of_pixels(mask) if self.reads_pixels else mask)
            missing = torch.from_numpy(np.ascontiguousarray(hidden)).to(device)
            observation = Observation.of(x0, missing, options.observation_noise / ((values.high - values.low) / 2))
            noise = SampleNoise(options.seed, image, sample, tuple(x0.shape[1:]), device, part)
            task = Task(self.prior, observation, noise, self.timesteps, self.sampler, options.watch, options.count)
            found = self.method.run(task, **self.settings)
        if not isinstance(found, Tensor) or found.shape != x0.shape:
            raise InputError("the method must return x0, a tensor in the shape of task.observation.pixels")
        if not bool(found.isfinite().all()):
            raise InputError("samples are not finite: use other settings or more steps")
        estimated = mask | (options.observation_noise > 0)
        return np.where(of_values(estimated, images), values.to_images(found, images), images)


def _filled(draw: _Draw, images: Images, mask: Mask, ignored: Mask, samples: int, first: int) -> Images:
    """Samples ``[N, K, ...]`` of images of one size, in the windows of :mod:`~inkfill.filling.windows`.

    Ignored pixels are missing to the network, and filled only in windows that others need. Pixels filled in one window
    are observed in the next. An image without missing pixels needs no network.
    """
    images = np.asarray(np.ma.getdata(images))
    if channels_of(images) != draw.prior.channels:
        return _filled_beside_alpha(draw, images, mask, ignored, samples, first)
    if mask.ndim == 4 and draw.reads_pixels:
        remark("these weights read whole pixels: observed channels beside a missing one are kept, but not read")
    missing = mask | ignored
    values, known = range_of_images(draw.prior, images, missing, draw.options.value_range), images[~missing]
    if known.size and (known.min() < values.low or known.max() > values.high):
        span, words = f"from {known.min():g} to {known.max():g}", nodata_words(known, "--mask")
        remark(f"observed values {span} leave the data range {values.low:g} to {values.high:g}: they are kept{words}")
    noisy, size = draw.options.observation_noise > 0, draw.prior.image_size
    if noisy and values.transform:
        raise InputError(f"observation_noise: not supported by weights trained with --transform {values.transform}")
    if noisy and windows.is_large(images.shape[1:3], size):
        raise InputError("observation_noise: not supported for large images, which are filled in windows")
    plans = [windows.plan(hole | noisy, size) for hole in of_pixels(mask)]
    out = np.repeat(images[:, None], samples, axis=1)
    draw.options.progress(samples * plans.count([]))
    for waves in zip_longest(*plans, fillvalue=()):
        todo = [(i, k, window) for i, wave in enumerate(waves) for window in wave for k in range(samples)]
        rows = draw.rows(math.prod(missing[0][todo[0][2].place].shape[:2]))
        for start in range(0, len(todo), rows):
            chunk = todo[start : start + rows]
            parts = np.stack([out[i, k][window.place] for i, k, window in chunk])
            holes = np.stack([missing[i][window.place] for i, _, window in chunk])
            image, sample, number = np.array([(i, k, window.number) for i, k, window in chunk]).T
            image, sample = image + first, sample + draw.options.first_sample
            found = draw(parts, holes, values, image, sample, None if (number == windows.WHOLE).all() else number)
            for (i, k, window), pixels in zip(chunk, found, strict=True):
                out[i, k][window.place] = pixels
            draw.options.progress(sum(window is plans[i][-1][-1] for i, _, window in chunk))
        for hole, wave in zip(missing, waves, strict=True):
            for window in wave:
                hole[window.place] = False
    return out


def _filled_beside_alpha(draw: _Draw, images: Images, mask: Mask, ignored: Mask, samples: int, first: int) -> Images:
    """Samples of images with an alpha channel that the prior does not know; filled pixels become opaque."""
    mask, ignored = of_pixels(mask), of_pixels(ignored)
    colour, alpha = without_alpha(images, draw.prior.channels), images[..., -1]
    seen = alpha[~(mask | ignored)]
    if alpha.dtype.kind == "f" and bool((seen > 2).any()):
        raise InputError(f"alpha of floats must be from 0 to 1, and goes to {seen.max():g}")
    out = _filled(draw, colour, mask, ignored, samples, first)
    opaque = np.where(mask, np.asarray(opaque_of(images.dtype), images.dtype), alpha)
    planes = out[..., None] if out.ndim == 4 else out
    return np.concatenate([planes, np.repeat(opaque[:, None, ..., None], samples, 1)], -1)
