"""Images of which none is whole: where their holes are, and what stands in them until a network has learnt better."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from inkfill.data import masks
from inkfill.data.dataset import Dataset
from inkfill.data.images import Images, Mask, channels_of, of_values
from inkfill.data.readers import read_images
from inkfill.errors import InputError, remark

SPLITS = ("train", "validation", "test")
FEWEST = 0.02  # of all pixels; with fewer seen there is nothing to learn from
LARGEST = 2**10  # side of the neighbourhood that a hole is filled from


def load(read: Callable[[str], Dataset], name: str, mask: str, seed: int) -> Dataset:
    """A data set with holes, from one that ``read`` gives whole. Raises InputError for a mask that does not fit it."""
    dataset = read(name)
    if dataset.other_sizes:
        raise InputError(f"{name}: images with holes must be of one size to be learnt from")
    holes = _of_splits(dataset, name, mask, seed)
    seen = 1 - float(holes["train"].mean())
    if seen < FEWEST:
        raise InputError(f"{name}: of all pixels {seen:.1%} are there: too few to learn from")
    if not any(hole.any() for hole in holes.values()):
        raise InputError(f"{name}: no pixel is missing by {mask}: leave --data-mask out")
    remark(f"{1 - seen:.0%} of the pixels are missing, in {float(holes['train'].any((1, 2)).mean()):.0%} of the images")
    images = {split: _without_alpha(dataset.split(split), mask) for split in SPLITS}
    train, validation, test = (blurred(images[split], holes[split]) for split in SPLITS)
    return Dataset(dataset.name, train, validation, test, dataset.labels, holes=holes)


def _of_splits(dataset: Dataset, name: str, mask: str, seed: int) -> dict[str, Mask]:
    """The holes of every split."""
    if mask in masks.IN_IMAGES or masks.is_spec(mask) or not masks.exists(Path(mask)):
        return {split: masks.fit(mask, dataset.split(split), seed + i) for i, split in enumerate(SPLITS)}
    # A mask in files belongs to the images in their own order: numbers in their place say where each of them went.
    images = read_images(Path(name))
    if isinstance(images, list):
        raise InputError(f"{name}: images with holes must be of one size to be learnt from")
    found, order = masks.fit(mask, images, seed), order_of(len(images))
    tenth = len(images) // 10
    ends = {"train": order[: -2 * tenth], "validation": order[-2 * tenth : -tenth], "test": order[-tenth:]}
    if any(len(ends[split]) != len(dataset.split(split)) for split in SPLITS):
        raise InputError(f"{name}: masks in files are for images in one file or one folder")
    return {split: found[index] for split, index in ends.items()}


def order_of(count: int) -> np.ndarray:
    """The order in which images of one file or folder are divided into splits."""
    return np.random.Generator(np.random.Philox(0)).permutation(count)


def _without_alpha(images: Images, mask: str) -> Images:
    """Images without the alpha channel that only said where they are transparent."""
    if mask != "alpha" or channels_of(images) not in (2, 4):
        return images
    return images[..., 0] if images.shape[3] == 2 else images[..., :3]


def blurred(images: Images, holes: Mask) -> Images:
    """Images ``[N, H, W]`` or ``[N, H, W, C]`` with the mean of what is around in every hole, typed as they came.

    Around is the smallest square with anything in it, of sides 3, 5, 9, ...; what is in the holes is not read.
    """
    planes = torch.from_numpy(np.moveaxis(images if images.ndim == 4 else images[..., None], -1, 1).astype(np.float64))
    known = torch.from_numpy(~holes[:, None]).double()
    planes = torch.where(known > 0, planes, 0.0)
    overall = planes.sum((0, 2, 3), keepdim=True) / known.sum().clamp(min=1)
    filled, left, side = planes.clone(), known == 0, 3
    while bool(left.any()) and side <= min(LARGEST, 2 * max(images.shape[1:3]) + 1):
        total = F.avg_pool2d(planes, side, 1, side // 2, divisor_override=1)
        weight = F.avg_pool2d(known, side, 1, side // 2, divisor_override=1)
        now = left & (weight > 0.5)
        filled = torch.where(now, total / weight.clamp(min=1), filled)
        left, side = left & ~now, 2 * side - 1
    values = torch.where(left, overall, filled).numpy()
    values = values.round() if images.dtype.kind in "iub" else values
    back = np.moveaxis(values, 1, -1).reshape(images.shape).astype(images.dtype)
    return np.where(of_values(holes, images), back, images)
