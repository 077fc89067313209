"""Incomplete training data: the masks of the images, and the first imputation of what is missing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from inkfill.core.masks import as_planes
from inkfill.core.rng import key
from inkfill.data import masks
from inkfill.data.dataset import Dataset
from inkfill.data.images import Images, Mask, channels_of, of_values, without_alpha
from inkfill.errors import InputError, remark

AT_ONCE = 2**23  # values that are filled together: 64 MiB each for a few arrays
SPLITS = ("train", "validation", "test")
MIN_OBSERVED = 0.02  # fraction of the training pixels
MAX_SIDE = 2**10  # side of the largest neighbourhood of a local mean


def load(read: Callable[[str], Dataset], name: str, mask: str, seed: int) -> Dataset:
    """A data set with missing pixels: the complete one that ``read(name)`` gives, masked. Raises InputError."""
    given = masks.read_mask(mask)
    dataset = read(name)
    if dataset.other_sizes:
        raise InputError(f"{name}: incomplete images must have one size")
    holes = _of_splits(dataset, name, given, seed)
    observed = 1 - float(holes["train"].mean())
    if observed < MIN_OBSERVED:
        few = f"{observed:.1%} of the pixels are observed: give at least {MIN_OBSERVED:.0%}"
        raise InputError(f"--data-mask {mask}: {few}")
    if not any(hole.any() for hole in holes.values()):
        raise InputError(f"--data-mask {mask}: no pixel of {name} is missing: leave --data-mask out")
    share = float(holes["train"].any((1, 2)).mean())
    remark(f"{1 - observed:.0%} of the training pixels are missing, in {share:.0%} of the images")
    images = {split: dataset.split(split) for split in SPLITS}
    if given.of_images == "alpha" and channels_of(dataset.train) in (2, 4):  # the mask is no part of the images
        images = {split: without_alpha(x, channels_of(x) - 1) for split, x in images.items()}
    train, validation, test = (blurred(images[split], holes[split]) for split in SPLITS)
    return Dataset(dataset.name, train, validation, test, dataset.labels, holes=holes)


def _of_splits(dataset: Dataset, name: str, given: masks.MaskInput, seed: int) -> dict[str, Mask]:
    """The masks of every split."""
    images = {split: dataset.split(split) for split in SPLITS}
    if given.spec or given.of_images:
        seeds = {"train": seed} | {split: key(seed, "data mask", split) for split in SPLITS[1:]}
        return {split: masks.fit(given, images[split], seeds[split]) for split in SPLITS}
    # Masks in files follow the order of the images: split them as the images of one file or folder are split.
    lengths = [len(images[split]) for split in SPLITS]
    count, tenth = sum(lengths), sum(lengths) // 10
    if not Path(name).exists() or lengths != [count - 2 * tenth, tenth, tenth]:
        raise InputError(f"{name}: mask files need the images in one file or one folder")
    found = masks.fit(given, np.concatenate(list(images.values())))[order_of(count)]
    return dict(zip(SPLITS, np.split(found, np.cumsum(lengths)[:-1]), strict=True))


def order_of(count: int) -> np.ndarray:
    """The order in which the images of one file or folder are split."""
    return np.random.Generator(np.random.Philox(0)).permutation(count)


def blurred(images: Images, holes: Mask) -> Images:
    """Fill the holes (by pixel or channel) of images ``[N, H, W]`` or ``[N, H, W, C]`` with local means.

    The mean is over the smallest square of side 3, 5, 9, ... with an observed pixel. Missing pixels are not read.
    """
    together = max(1, AT_ONCE // images[0].size)
    parts = [slice(start, start + together) for start in range(0, len(images), together)]
    observed = of_values(~holes, images)
    overall = images.sum((0, 1, 2), np.float64, where=observed) / np.maximum(1, observed.sum((0, 1, 2)))
    mean = torch.from_numpy(np.reshape(overall, (1, -1, 1, 1)))
    return np.concatenate([_blurred(images[part], holes[part], mean) for part in parts])


def _blurred(images: Images, holes: Mask, overall: Tensor) -> Images:
    """A part of the images; ``overall`` is the mean of all observed values, by channel."""
    planes = torch.from_numpy(np.moveaxis(images if images.ndim == 4 else images[..., None], -1, 1).astype(np.float64))
    known = torch.from_numpy(~as_planes(holes)).double()
    planes = torch.where(known > 0, planes, 0.0)
    filled, left, side = planes.clone(), known == 0, 3
    while bool(left.any()) and side <= min(MAX_SIDE, 2 * max(images.shape[1:3]) + 1):
        total = F.avg_pool2d(planes, side, 1, side // 2, divisor_override=1)
        weight = F.avg_pool2d(known, side, 1, side // 2, divisor_override=1)
        now = left & (weight > 0.5)
        filled = torch.where(now, total / weight.clamp(min=1), filled)
        left, side = left & ~now, 2 * side - 1
    values = torch.where(left, overall, filled).numpy()
    values = values.round() if images.dtype.kind in "iub" else values
    back = np.moveaxis(values, 1, -1).reshape(images.shape).astype(images.dtype)
    return np.where(of_values(holes, images), back, images)
