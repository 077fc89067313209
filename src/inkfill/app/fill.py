"""``inkfill inpaint``: reads images and masks, draws samples, writes them, a part of a long array at a time."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from inkfill.app import files
from inkfill.app.files import Filled, Pictures
from inkfill.app.report import write_inpainting
from inkfill.core.fill import most_central
from inkfill.data import Images, masks
from inkfill.data.images import Mask, range_for, range_of_type, size_words, without_alpha
from inkfill.data.readers import Source
from inkfill.errors import InputError, remark, shown
from inkfill.filling.inpaint import Options, inpaint, range_of_images
from inkfill.models.adapters import Foreign
from inkfill.models.model import Model
from inkfill.processes import ALONE, Processes
from inkfill.progress import Bar

PART = 1000  # images that are read, filled and written together
UNLIKE = 0.35  # difference in the fraction of black pixels above which images count as another kind


@dataclass(frozen=True)
class Part:
    """Images with the pixels to fill and those to ignore: arrays, or lists where images differ in size."""

    first: int  # number of the first image
    images: Any
    missing: Any
    ignored: Any

    def unknown(self) -> Any:
        """The pixels that are not read."""
        if isinstance(self.images, list):
            return [missing | ignored for missing, ignored in zip(self.missing, self.ignored, strict=True)]
        return self.missing | self.ignored


Parts = Callable[..., Iterator[Part]]  # of all images, or of one by its number


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
    keep_palette: bool = False
    options: Options = Options()  # noqa: RUF009 (immutable)
    ignore: masks.MaskInput | None = None
    only: str | None = None  # the name or number of the one image to fill


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
    images, sources = _read(request, model)
    names = files.names_of(sources)
    number = files.number_of(request.only, len(images), names) if request.only is not None else None
    chosen = images if number is None else images[number][None]
    if number is not None:
        sources = [sources[number] if sources else Source(files.OF_ARRAYS % number, Path())]
        files.check_only(request.out)
    files.check_fits(request.out, request.sheet, chosen, sources)
    ignore = files.paired(request.ignore, images, names) if request.ignore else None
    parts = partial(_parts, request, model, images, files.paired(request.mask, images, names), ignore)
    if request.mask.of_images:
        request.mask.check_any(any(missing.any() for part in parts() for missing in part.missing))
    filled: Iterable[Filled] = _drawn(request, model, images, parts, number, bar, group)
    names = files.names_of(sources)
    written: list[str] = []
    if not group.first:
        for _ in filled:
            pass
        return written
    if request.sheet or request.report:
        filled = list(filled)
    if request.out:
        k, first = (request.samples, request.options.first_sample) if request.keep == "all" else (1, 0)
        written.append(files.write_filled(request.out, filled, chosen, k, sources, request.keep_palette, first))
    if request.sheet:
        written.append(files.write_sheet(request.sheet, list(filled)))
    if request.report:
        written.append(str(write_inpainting(request.report, list(filled), names, model)))
    return written


def _read(request: Request, model: Model | Foreign) -> tuple[Pictures, list[Source] | None]:
    return files.read_inputs(request.images, model.channels, request.grey)


def _parts(
    request: Request, model: Model | Foreign, images: Pictures, mask: Any, ignore: Any, number: int | None = None
) -> Iterator[Part]:
    """The images and their masks, part after part; or the image with this number alone."""
    for start in range(0, len(images), PART) if number is None else (number,):
        if isinstance(images, np.memmap):  # mapped anew: the pages that were read are released with the map
            images, _ = _read(request, model)
        part = images[start : start + (PART if number is None else 1)]
        missing = _masks_of(mask, part, request.options.seed, start)
        if request.ignore:
            ignored = _masks_of(ignore, part, request.options.seed, start)
            pairs = [masks.split(request.mask, request.ignore, *each) for each in zip(missing, ignored, strict=True)]
            missing, ignored = ([pair[i] for pair in pairs] for i in (0, 1))
        else:
            ignored = [np.zeros_like(each) for each in missing]
        if isinstance(part, list):
            yield Part(start, part, missing, ignored)
        else:
            yield Part(start, np.array(part), np.stack(missing), np.stack(ignored))


def _masks_of(given: Any, part: Any, seed: int, start: int) -> Any:
    """The masks of the images number ``start`` and later, drawn or from those of all images."""
    if not isinstance(given, masks.MaskInput):
        return given[start : start + len(part)]
    if isinstance(part, list):
        return [given.draw(image[None], seed, start + i)[0] for i, image in enumerate(part)]
    return given.draw(part, seed, start)


def _range(request: Request, model: Model | Foreign, images: Pictures, parts: Parts) -> tuple | None:
    """The data range of all images of an array, where neither the user nor the dtype decides it. Raises InputError."""
    given, learnt = request.options.value_range, (model.value_range, model.image_dtype)
    if given or isinstance(images, list) or range_of_type(images.dtype, *learnt):
        return given
    ends: list[Any] = []
    for part in parts():
        observed = without_alpha(part.images, model.channels)[~part.unknown()]
        ends += [observed.min(), observed.max()] if observed.size else []
    found = range_for(np.array(ends, images.dtype), np.zeros(len(ends), bool), *learnt)
    return found.low, found.high


def _drawn(
    request: Request, model: Model | Foreign, images: Pictures, parts: Parts, number: int | None, bar: Bar,
    group: Processes,
) -> Iterator[Filled]:  # fmt: skip
    """Each image, or the one with this number, with its mask and samples; each process draws a share of every part."""
    value_range = _range(request, model, images, parts)
    with bar((1 if number is not None else len(images)) * request.samples // group.world, "inpaint") as progress:
        options = replace(request.options, value_range=value_range, progress=progress)
        for part in parts(number=number):
            if part.first in (0, number):
                _warn(model, part)
            share = group.slice(len(part.images))
            some, found = (part.images[share], part.missing[share], request.samples), []
            if share.start < share.stop:
                ignored, first = part.ignored[share], part.first + share.start
                found = inpaint(model, *some, ignore=ignored, first=first, **vars(options))
            samples = [each for share in group.gather(found) for each in share]
            for image, mask, unknown, each in zip(part.images, part.missing, part.unknown(), samples, strict=True):
                values = range_of_images(model, image[None], unknown[None], value_range)
                yield Filled(image, mask, _kept(request.keep, each), values)


def _kept(keep: str, samples: Images) -> Images:
    """All samples ``[K, ...]``, or their mean or the most central one ``[1, ...]``."""
    if keep == "mean":
        mean = samples.mean(0, keepdims=True, dtype=np.float64)
        mean = (mean.round() if samples.dtype.kind in "biu" else mean).astype(samples.dtype)
        same = (samples == samples[:1]).all(0, keepdims=True)  # observed pixels, which rounding could change
        return np.where(same, samples[:1], mean)
    if keep == "central":
        return samples[most_central(np.where(samples != samples, 0, samples)[None])]
    return samples


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


def _warn(model: Model | Foreign, part: Part) -> None:
    """Warn of masks that may be inverted, and of the first two ways in which images are unlike the training images."""
    stacks, reasons = [(part.images, part.missing, part.unknown())], []
    if isinstance(part.images, list):
        each = zip(part.images, part.missing, part.unknown(), strict=True)
        stacks = [(image[None], mask[None], unknown[None]) for image, mask, unknown in each]
    for stack, mask, unknown in stacks:
        masks.notice(mask)
        reasons += unlike(model, stack, unknown)
    for reason in list(dict.fromkeys(reasons))[:2]:
        assert isinstance(model, Model)
        remark(
            f"warning: these weights were trained on {shown(model.recipe.trained_on)} and {reason}: samples will mean "
            "little: train on images like yours (inkfill train --data)"
        )
