"""``inkfill inpaint``: reads images and masks, draws samples, writes them."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from inkfill.app import files
from inkfill.app.report import write_inpainting
from inkfill.core.fill import most_central
from inkfill.data import Images, masks
from inkfill.data.images import Mask, as_images, range_for, range_of_type, size_words, without_alpha
from inkfill.data.readers import read_array
from inkfill.errors import InputError, remark, shown
from inkfill.filling.inpaint import Options, inpaint, range_of_images
from inkfill.models.adapters import Foreign
from inkfill.models.model import Model
from inkfill.processes import ALONE, Processes
from inkfill.progress import Bar, Progress

PART = 1000  # images of a long array that are read, filled and written together
UNLIKE = 0.35  # difference in the fraction of black pixels above which images count as another kind


@dataclass(frozen=True)
class Request:
    """The images, their mask, the outputs, and how samples are drawn."""

    images: tuple[Path, ...]
    mask: masks.MaskInput
    out: Path | None
    sheet: Path | None
    report: Path | None
    samples: int
    keep: str = "all"  # or "mean" or "central"
    grey: bool = False
    options: Options = Options()  # noqa: RUF009 (immutable)

    def with_range(self, value_range: tuple[float, float] | None) -> "Request":
        """The request with a data range."""
        return replace(self, options=replace(self.options, value_range=value_range))


def run(request: Request, model: Model | Foreign, bar: Bar, group: Processes = ALONE) -> list[str]:
    """Draw samples and write them; returns a line for each output, on rank 0 alone.

    Raises InputError, which names the image, the mask or the output.
    """
    try:
        return _run(request, model, bar, group)
    except InputError as error:
        if any(str(place) in str(error) for place in (*request.images, request.mask.text, request.out)):
            raise
        raise InputError(f"{request.images[0]}: {error}") from None


def _run(request: Request, model: Model | Foreign, bar: Bar, group: Processes) -> list[str]:
    array = _long_array(request)
    if array is not None:
        return _in_parts(request, model, array, bar, group)
    images, names = files.read_inputs(request.images, model.channels, request.grey)
    count = sum(map(len, images))
    for place in filter(None, (request.out, request.sheet)):
        files.check_sheet(place, count)
    if request.out:
        files.check_fits(request.out, images)
    missing = files.fit_masks(request.mask, images, names, request.options.seed)
    _warn_if_unlike(model, images, missing)
    given = request.options.value_range
    values = [range_of_images(model, *both, given) for both in zip(images, missing, strict=True)]
    if len(images) == 1:  # the range of all images, which a process could not infer from its share
        request = request.with_range((values[0].low, values[0].high))
    with bar(count * request.samples // group.world, "inpaint") as progress:
        samples = _drawn(request, model, images, missing, progress, group)
    stacks = [files.Stack(*each) for each in zip(images, missing, values, samples, strict=True)]
    return _written(request, model, stacks, names) if group.first else []


def _drawn(
    request: Request,
    model: Model | Foreign,
    images: list[Images],
    missing: list[Mask],
    progress: Progress,
    group: Processes,
    first: int = 0,
) -> list[Images]:
    """The samples ``[N, K, ...]`` of each array of images, as ``keep`` asks for; each process draws a share."""
    one = len(images) == 1
    all_images, all_missing = (images[0], missing[0]) if one else (images, missing)
    share = group.slice(len(all_images))
    found = []
    if share.start < share.stop:
        options = replace(request.options, progress=progress)
        found = inpaint(
            model, all_images[share], all_missing[share], request.samples, first=first + share.start, **vars(options)
        )
    parts = [part for part in group.gather(found) if len(part)]
    samples = [np.concatenate(parts)] if one else [each[None] for part in parts for each in part]
    return [_kept(request.keep, each) for each in samples]


def _kept(keep: str, samples: Images) -> Images:
    """All samples ``[N, K, ...]``, or their mean or the most central one ``[N, 1, ...]``."""
    if keep == "mean":
        mean = samples.mean(1, keepdims=True, dtype=np.float64)
        mean = (mean.round() if samples.dtype.kind in "biu" else mean).astype(samples.dtype)
        same = (samples == samples[:, :1]).all(1, keepdims=True)  # observed pixels, which rounding could change
        return np.where(same, samples[:, :1], mean)
    if keep == "central":
        return samples[np.arange(len(samples)), most_central(samples)][:, None]
    return samples


def _written(request: Request, model: Model | Foreign, stacks: list[files.Stack], names: list[str] | None) -> list[str]:
    """Write all outputs; returns a line for each."""
    written = []
    if request.out:
        written.append(files.write_filled(request.out, stacks, names))
    if request.sheet:
        written.append(files.write_sheet(request.sheet, stacks))
    if request.report:
        written.append(str(write_inpainting(request.report, stacks, names, model)))
    return written


# ---- long arrays, part by part ---------------------------------------------------------------------------------------


def _long_array(request: Request) -> Images | None:
    """The mapped array of a request that only turns one long ``.npy`` into another; None for any other request."""
    places = [*request.images, *filter(None, [request.out])]
    if len(places) != 2 or any(place.suffix.lower() != ".npy" for place in places):
        return None
    array = as_images(read_array(places[0]), str(places[0]))
    return array if len(array) > PART and not (request.sheet or request.report or request.grey) else None


def _in_parts(request: Request, model: Model | Foreign, array: Images, bar: Bar, group: Processes) -> list[str]:
    """Read, fill and write part after part, at constant memory."""
    out, count, kept = request.out, len(array), request.samples if request.keep == "all" else 1
    assert out is not None
    request = request.with_range(_range_in_parts(request, model, array))
    shape = (count, kept, *array.shape[1:])
    writing = files.array_in_parts(out, shape, array.dtype) if group.first else nullcontext()
    with bar(count * request.samples // group.world, "inpaint") as progress, writing as write:
        for start, part, missing in _parts(request, count):
            if start == 0:
                masks.notice(missing)
                _warn_if_unlike(model, [part], [missing])
            (samples,) = _drawn(request, model, [part], [missing], progress, group, start)
            if write:
                write(samples)
    return [f"{out}: {count:,} x {kept} samples"] if group.first else []


def _parts(request: Request, count: int) -> Iterator[tuple[int, Images, Mask]]:
    """The number of the first image, the images and their masks, part after part."""
    source = request.images[0]
    request.mask.check_count(count)
    for start in range(0, count, PART):
        # Mapped anew for each part: the pages that were read are released with the map.
        part = np.array(as_images(read_array(source), str(source))[start : start + PART])
        yield start, part, request.mask.draw(part, request.options.seed, start)


def _range_in_parts(request: Request, model: Model | Foreign, array: Images) -> tuple[float, float] | None:
    """The data range of all parts. Raises InputError, also where a mask of the images' own values marks no pixel."""
    given = request.options.value_range
    decided = given or range_of_type(array.dtype, model.value_range, model.image_dtype)
    if decided and not request.mask.of_images:  # no pass over the data is needed
        return given
    extremes, any_missing = [], False
    for _, part, missing in _parts(request, len(array)):
        any_missing = any_missing or bool(missing.any())
        if decided and any_missing:
            return given
        observed = without_alpha(part, model.channels)[~missing]
        extremes += [observed.min(), observed.max()] if observed.size else []
    request.mask.check_any(any_missing)
    ends = np.array(extremes, array.dtype)
    values = range_for(ends, np.zeros(ends.shape, bool), model.value_range, model.image_dtype)
    return values.low, values.high


# ---- images of another kind ------------------------------------------------------------------------------------------


def unlike(model: Model | Foreign, images: Images, mask: Mask) -> list[str]:
    """How images differ so much from the training images that samples mean little; empty for none and foreign models.

    It compares sizes, and the fraction of black among observed pixels: for MNIST 0.81, for single digits 0.6 to 0.95.
    """
    if not isinstance(model, Model):
        return []
    recipe, reasons = model.recipe, []
    size, least, most = images.shape[1:3], recipe.least_size, max(recipe.image_size)
    between = least[0] > 0 and least[0] <= size[0] <= most and least[1] <= size[1] <= most
    if size != recipe.image_size and not between:
        trained = "x".join(map(str, recipe.image_size))
        reasons.append(f"on {trained} images, these are {size_words(images)}")
    observed = images[~mask]
    if recipe.black is not None and observed.size and images.dtype.name == recipe.number_type:
        share = float((observed == recipe.value_range[0]).mean())
        if abs(share - recipe.black) > UNLIKE:
            reasons.append(f"on images that are {recipe.black:.0%} black, these are {share:.0%}")
    return reasons


def _warn_if_unlike(model: Model | Foreign, images: list[Images], missing: list[Mask]) -> None:
    """Warn of images that are unlike the training images, once for each of the first two differences."""
    reasons = dict.fromkeys(reason for pair in zip(images, missing, strict=True) for reason in unlike(model, *pair))
    for reason in list(reasons)[:2]:
        assert isinstance(model, Model)
        trained = f"these weights were trained on {shown(model.recipe.trained_on)}"
        remark(
            f"warning: {trained} and {reason}: samples will mean little: train on images like yours "
            "(inkfill train --data)"
        )
