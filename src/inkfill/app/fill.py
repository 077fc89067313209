"""What ``inkfill inpaint`` does: reads, fills, keeps what was asked for, writes."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from inkfill.app import files
from inkfill.app.report import write_inpainting
from inkfill.core.fill import most_central
from inkfill.core.rng import stream
from inkfill.data import Images, ValueRange, masks
from inkfill.data.images import Mask, as_images, range_for, range_of_type, size_words, without_alpha
from inkfill.data.readers import read_array
from inkfill.errors import InputError, remark, shown
from inkfill.filling.inpaint import Options, inpaint
from inkfill.models.adapters import Foreign
from inkfill.models.model import Model
from inkfill.processes import ALONE, Processes
from inkfill.progress import Bar, Progress

PART = 1000  # images that are read, filled and written together when there are many


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

    @property
    def seed(self) -> int:
        """Random seed."""
        return self.options.seed


def run(request: Request, model: Model | Foreign, bar: Bar, group: Processes = ALONE) -> list[str]:
    """Do it, and say what was written: nothing but for the first process. Raises InputError, which names an image."""
    try:
        return _run(request, model, bar, group)
    except InputError as error:
        if any(str(place) in str(error) for place in (*request.images, request.mask.text, request.out)):
            raise
        raise InputError(f"{request.images[0]}: {error}") from None


def _run(request: Request, model: Model | Foreign, bar: Bar, group: Processes) -> list[str]:
    source = request.images[0]
    if len(request.images) == 1 and source.suffix.lower() == ".npy" and request.out and request.out.suffix == ".npy":
        array = as_images(read_array(source), str(source))
        if len(array) > PART and not (request.sheet or request.report or request.grey):
            return _in_parts(request, model, array.shape, array.dtype, bar, group)
    pictures, names = files.read_inputs(request.images, model.channels, request.grey)
    for picture in filter(None, (request.out, request.sheet)):
        files.check_sheet(picture, len(pictures))
    if request.out:
        files.check_fits(request.out, pictures)
    hidden = files.fit_masks(request.mask, pictures, names, request.seed)
    _warn_if_unlike(model, pictures, hidden)
    if not isinstance(pictures, list) and not isinstance(hidden, list):
        # Found once, and not by every process in its own share.
        values = values_of(request, model, pictures, hidden)
        request = with_range(request, (values.low, values.high))
    with bar(len(pictures) * request.samples // group.world, "inpaint") as progress:
        filled = _filled(request, model, pictures, hidden, progress, group)
    return _written(request, model, pictures, hidden, filled, names) if group.first else []


def with_range(request: Request, value_range: tuple[float, float] | None) -> Request:
    """The request with a data range."""
    return replace(request, options=replace(request.options, value_range=value_range))


def _filled(
    request: Request,
    model: Model | Foreign,
    pictures: Images | list[Images],
    hidden: Mask | list[Mask],
    progress: Progress,
    group: Processes,
    first: int = 0,
) -> Images | list[Images]:
    """Completions, of which those are kept that were asked for; each process fills a share of the pictures."""
    part = group.slice(len(pictures))
    mine, holes = pictures[part], hidden[part]
    if isinstance(mine, list) and len({(each.shape, each.dtype) for each in mine}) == 1:  # as inpaint would have them
        mine, holes = np.concatenate(mine), np.concatenate(holes)
    found: Images | list[Images] | None = None
    if part.start < part.stop:
        options = replace(request.options, progress=progress)
        found = inpaint(model, mine, holes, request.samples, first=first + part.start, **vars(options))
    parts = [each for each in group.gather(found) if each is not None]
    if isinstance(pictures, list):
        return [_kept(request, each[None])[0] for filled in parts for each in filled]
    return _kept(request, np.concatenate(parts))


def _kept(request: Request, filled: Images) -> Images:
    """All completions ``[N, K, ...]``, or their mean or the most central one ``[N, 1, ...]``."""
    if request.keep == "mean":
        mean = filled.mean(1, keepdims=True, dtype=np.float64)
        mean = (mean.round() if filled.dtype.kind in "biu" else mean).astype(filled.dtype)
        same = (filled == filled[:, :1]).all(1, keepdims=True)  # known pixels, whose mean rounding could change
        return np.where(same, filled[:, :1], mean)
    if request.keep == "central":
        chosen = most_central(filled)
        return filled[np.arange(len(filled)), chosen][:, None]
    return filled


def _written(
    request: Request,
    model: Model | Foreign,
    pictures: Images | list[Images],
    hidden: Mask | list[Mask],
    filled: Images | list[Images],
    names: list[str] | None,
) -> list[str]:
    """Write everything, and say what."""
    written = []
    values = values_of(request, model, *(x[0] if isinstance(x, list) else x for x in (pictures, hidden)))
    if request.out:
        written.append(files.write_completions(request.out, pictures, hidden, filled, values, names))
    if request.sheet:
        written.append(files.write_sheet(request.sheet, pictures, hidden, filled, values))
    if request.report:

        def range_of(picture: Images) -> ValueRange:
            one = picture[None]
            return values_of(request, model, one, masks.holes_of(one))

        each, holes = ([x[0] for x in xs] if isinstance(xs, list) else xs for xs in (pictures, hidden))
        written.append(str(write_inpainting(request.report, each, holes, filled, names, model, range_of)))
    return written


def values_of(request: Request, model: Model | Foreign, pictures: Images, hidden: Mask) -> ValueRange:
    """What black and white are. Raises InputError."""
    known = without_alpha(pictures, model.channels)
    return range_for(known, hidden, model.value_range, model.image_dtype, request.options.value_range)


def _in_parts(
    request: Request,
    model: Model | Foreign,
    shape: tuple[int, ...],
    dtype: np.dtype,
    bar: Bar,
    group: Processes,
) -> list[str]:
    """Fill a long array part by part, each read, filled and written before the next: memory stays as it is."""
    out = request.out
    assert out is not None
    kept = request.samples if request.keep == "all" else 1
    request = with_range(request, _range_in_parts(request, model, shape, dtype))
    writing = files.array_in_parts(out, (shape[0], kept, *shape[1:]), dtype) if group.first else nullcontext()
    with bar(shape[0] * request.samples // group.world, "inpaint") as progress, writing as write:
        for start, part, hidden in _parts(request, shape):
            if start == 0:
                masks.notice(hidden)
                _warn_if_unlike(model, part, hidden)
            filled = _filled(request, model, part, hidden, progress, group, start)
            if write:
                write(np.asarray(filled))
    return [f"{out}: {shape[0]:,} x {kept} completions"] if group.first else []


def _parts(request: Request, shape: tuple[int, ...]) -> Iterator[tuple[int, Images, Mask]]:
    """The parts of a long array with their masks, each with the number of its first image."""
    source = request.images[0]
    request.mask.check_count(shape[0])
    rng = stream(request.seed, "mask")
    for start in range(0, shape[0], PART):
        # Mapped anew each time: pages that were read go with the map.
        part = np.array(as_images(read_array(source), str(source))[start : start + PART])
        yield start, part, request.mask.draw(part, rng, start)


def _range_in_parts(
    request: Request, model: Model | Foreign, shape: tuple[int, ...], dtype: np.dtype
) -> tuple[float, float] | None:
    """What black and white are in all parts alike. Raises InputError, also where no image has a hole of its own."""
    told = request.options.value_range or range_of_type(dtype, model.value_range, model.image_dtype)
    own = request.mask.unspecified or request.mask.of_images
    if told and not own:  # no pass over the data is needed
        return request.options.value_range
    if own and not any(hidden.any() for *_, hidden in _parts(request, shape)):
        raise InputError(masks.NO_HOLES if request.mask.unspecified else masks.NOTHING.format(request.mask.of_images))
    if told:
        return request.options.value_range
    extremes = []
    for _, part, hidden in _parts(request, shape):
        known = without_alpha(part, model.channels)[~hidden]
        extremes += [known.min(), known.max()] if known.size else []
    seen = np.array(extremes, dtype)
    values = range_for(seen, np.zeros(seen.shape, bool), model.value_range, model.image_dtype)
    return values.low, values.high


UNLIKE = 0.35  # difference in the fraction of black pixels above which images count as another kind


def unlike(model: Model | Foreign, images: Images, mask: Mask) -> list[str]:
    """The ways in which images differ so much from the training images that samples mean little; empty for none.

    It compares size and the fraction of black among observed pixels: for MNIST 0.81, for single digits 0.6 to 0.95.
    """
    if not isinstance(model, Model):
        return []
    recipe, reasons = model.recipe, []
    size, least, most = images.shape[1:3], recipe.least_size, max(recipe.image_size)
    between = least[0] > 0 and least[0] <= size[0] <= most and least[1] <= size[1] <= most
    if size != recipe.image_size and not between:
        trained = "x".join(map(str, recipe.image_size))
        reasons.append(f"on {trained} images, these are {size_words(images)}")
    known = images[~mask]
    if recipe.black is not None and known.size and images.dtype.name == recipe.number_type:
        share = float((known == recipe.value_range[0]).mean())
        if abs(share - recipe.black) > UNLIKE:
            reasons.append(f"on images that are {recipe.black:.0%} black, these are {share:.0%}")
    return reasons


def _warn_if_unlike(model: Model | Foreign, images: Images | list[Images], mask: Mask | list[Mask]) -> None:
    """Say where images are so unlike those that the weights learnt that the result will mean little."""
    both = zip(images, mask, strict=True) if isinstance(images, list) else [(images, mask)]
    reasons = dict.fromkeys(reason for pair in both for reason in unlike(model, *pair))
    for reason in list(reasons)[:2]:  # of a model alone: of others nobody knows what they learnt from
        assert isinstance(model, Model)
        trained = f"these weights were trained on {shown(model.recipe.trained_on)}"
        remark(
            f"warning: {trained} and {reason}: the completions will mean little; train on images like yours "
            "(inkfill train --data)"
        )
