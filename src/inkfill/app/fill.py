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

# Yields the number of the first image of a part, its images and their masks: arrays or lists, as the images are.
Parts = Callable[[], Iterator[tuple[int, Any, Any]]]


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
    files.check_fits(request.out, request.sheet, images, sources)
    parts = partial(_parts, request, model, images, files.paired(request.mask, images, names))
    if request.mask.of_images:
        request.mask.check_any(any(mask.any() for _, _, missing in parts() for mask in missing))
    filled: Iterable[Filled] = _drawn(request, model, images, parts, bar, group)
    written: list[str] = []
    if not group.first:
        for _ in filled:
            pass
        return written
    if request.sheet or request.report:
        filled = list(filled)
    if request.out:
        k = request.samples if request.keep == "all" else 1
        written.append(files.write_filled(request.out, filled, images, k, sources, request.keep_palette))
    if request.sheet:
        written.append(files.write_sheet(request.sheet, list(filled)))
    if request.report:
        written.append(str(write_inpainting(request.report, list(filled), names, model)))
    return written


def _read(request: Request, model: Model | Foreign) -> tuple[Pictures, list[Source] | None]:
    return files.read_inputs(request.images, model.channels, request.grey, request.mask.beside)


def _parts(request: Request, model: Model | Foreign, images: Pictures, given: Any) -> Iterator[tuple[int, Any, Any]]:
    """The images and their masks, part after part."""
    seed = request.options.seed
    for start in range(0, len(images), PART):
        if isinstance(images, np.memmap):  # mapped anew: the pages that were read are released with the map
            images, _ = _read(request, model)
        part = images[start : start + PART]
        if not isinstance(given, masks.MaskInput):
            missing = given[start : start + PART]
        elif isinstance(part, list):
            missing = [given.draw(image[None], seed, start + i)[0] for i, image in enumerate(part)]
        else:
            missing = given.draw(part, seed, start)
        yield start, part if isinstance(part, list) else np.array(part), missing


def _range(request: Request, model: Model | Foreign, images: Pictures, parts: Parts) -> tuple | None:
    """The data range of all images of an array, where neither the user nor the dtype decides it. Raises InputError."""
    given, learnt = request.options.value_range, (model.value_range, model.image_dtype)
    if given or isinstance(images, list) or range_of_type(images.dtype, *learnt):
        return given
    ends: list[Any] = []
    for _, part, missing in parts():
        observed = without_alpha(part, model.channels)[~missing]
        ends += [observed.min(), observed.max()] if observed.size else []
    found = range_for(np.array(ends, images.dtype), np.zeros(len(ends), bool), *learnt)
    return found.low, found.high


def _drawn(
    request: Request, model: Model | Foreign, images: Pictures, parts: Parts, bar: Bar, group: Processes
) -> Iterator[Filled]:
    """Each image with its mask and samples; each process draws a share of every part."""
    value_range = _range(request, model, images, parts)
    with bar(len(images) * request.samples // group.world, "inpaint") as progress:
        options = replace(request.options, value_range=value_range, progress=progress)
        for start, part, missing in parts():
            if start == 0:
                _warn(model, part, missing)
            share = group.slice(len(part))
            first, found = start + share.start, []
            if share.start < share.stop:
                found = inpaint(model, part[share], missing[share], request.samples, first=first, **vars(options))
            samples = [each for share in group.gather(found) for each in share]
            for image, mask, each in zip(part, missing, samples, strict=True):
                values = range_of_images(model, image[None], mask[None], value_range)
                yield Filled(image, mask, _kept(request.keep, each), values)


def _kept(keep: str, samples: Images) -> Images:
    """All samples ``[K, ...]``, or their mean or the most central one ``[1, ...]``."""
    if keep == "mean":
        mean = samples.mean(0, keepdims=True, dtype=np.float64)
        mean = (mean.round() if samples.dtype.kind in "biu" else mean).astype(samples.dtype)
        same = (samples == samples[:1]).all(0, keepdims=True)  # observed pixels, which rounding could change
        return np.where(same, samples[:1], mean)
    if keep == "central":
        return samples[most_central(samples[None])]
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


def _warn(model: Model | Foreign, images: Any, missing: Any) -> None:
    """Warn of masks that may be inverted, and of the first two ways in which images are unlike the training images."""
    stacks, reasons = [(images, missing)], []
    if isinstance(images, list):
        stacks = [(image[None], mask[None]) for image, mask in zip(images, missing, strict=True)]
    for stack, mask in stacks:
        masks.notice(mask)
        reasons += unlike(model, stack, mask)
    for reason in list(dict.fromkeys(reasons))[:2]:
        assert isinstance(model, Model)
        remark(
            f"warning: these weights were trained on {shown(model.recipe.trained_on)} and {reason}: samples will mean "
            "little: train on images like yours (inkfill train --data)"
        )
