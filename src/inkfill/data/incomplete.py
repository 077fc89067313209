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
from inkfill.data.readers import image_files, read_pictures, stacked
from inkfill.errors import InputError, remark

AT_ONCE = 2**23  # values that are filled together: 64 MiB each for a few arrays
SPLITS = ("train", "validation", "test")
MIN_OBSERVED = 0.02  # fraction of the training pixels
MAX_SIDE = 2**10  # side of the largest neighbourhood of a local mean
Parts = tuple[list[Images], Images, Images]  # training images, an array per size; validation; test
Split = Callable[[Images | list[Images]], Parts]


def load(read: Callable[[str], Dataset], split: Split, name: str, mask: str, seed: int) -> Dataset:
    """A data set with missing pixels: the complete one that ``read(name)`` gives, masked. Raises InputError.

    ``split`` divides images as ``read`` does.
    """
    given = masks.read_mask(mask)
    dataset = read(name)
    training, validation, test = _holes(dataset, split, name, given, seed)
    observed = 1 - sum(hole.sum() for hole in training) / sum(hole.size for hole in training)
    if observed < MIN_OBSERVED:
        few = f"{observed:.1%} of the pixels are observed: give at least {MIN_OBSERVED:.0%}"
        raise InputError(f"--data-mask {mask}: {few}")
    if not any(hole.any() for hole in (*training, validation, test)):
        raise InputError(f"--data-mask {mask}: no pixel of {name} is missing: leave --data-mask out")
    share = np.concatenate([incomplete(hole) for hole in training]).mean()
    remark(f"{1 - observed:.0%} of the training pixels are missing, in {share:.0%} of the images")

    def imputed(images: Images, hole: Mask) -> Images:
        if given.of_images == "alpha" and channels_of(images) in (2, 4):  # the mask is no part of the images
            images = without_alpha(images, channels_of(images) - 1)
        return blurred(images, hole)

    train, *others = (imputed(images, hole) for images, hole in zip(dataset.groups, training, strict=True))
    return Dataset(
        dataset.name,
        train,
        imputed(dataset.validation, validation),
        imputed(dataset.test, test),
        dataset.labels,
        tuple(others),
        {"train": training[0], "validation": validation, "test": test},
        tuple(training[1:]),
    )


def _holes(dataset: Dataset, split: Split, name: str, given: masks.MaskInput, seed: int) -> Parts:
    """The masks of the images in ``dataset``. Raises InputError."""
    if given.spec or given.of_images:
        starts = np.cumsum([0, *map(len, dataset.groups)])
        each = zip(dataset.groups, starts, strict=False)
        training = [given.draw(images, seed, int(first)) for images, first in each]
        validation, test = (given.draw(dataset.split(part), key(seed, "data mask", part)) for part in SPLITS[1:])
        return training, validation, test
    # Masks in files follow the order of the images, or have their names: they are split as the images are.
    if given.named and Path(name).is_dir():
        return split(_of_names(Path(name), given))
    if dataset.other_sizes:
        raise InputError(f"{name}: images of several sizes: give a folder of masks with their names")
    found = of_files(dataset, name, given)
    return [found["train"]], found["validation"], found["test"]


def of_files(dataset: Dataset, name: str, given: masks.MaskInput) -> dict[str, Mask]:
    """Masks in files, one for each image of one file or folder ``name``, split as these. Raises InputError."""
    images = [dataset.split(split) for split in SPLITS]
    lengths = [len(each) for each in images]
    count, tenth = sum(lengths), sum(lengths) // 10
    if not Path(name).exists() or lengths != [count - 2 * tenth, tenth, tenth]:
        raise InputError(f"{name}: mask files need the images in one file or one folder")
    names = None
    if given.named and Path(name).is_dir():
        names = [source.name for source in read_pictures(image_files(Path(name)))[1]]
    (found,) = given.draw_all([np.concatenate(images)], names=names)
    return dict(zip(SPLITS, np.split(found[order_of(count)], np.cumsum(lengths)[:-1]), strict=True))


def _of_names(folder: Path, given: masks.MaskInput) -> Mask | list[Mask]:
    """The masks of a folder for the images of another one: an array or a list as ``read_images`` gives the images."""
    images, sources = read_pictures(image_files(folder))
    names = [source.name for source in sources]
    holes = [hole[0] for hole in given.draw_all([image[None] for image in images], names=names)]
    return holes if isinstance(stacked(images), list) else np.stack(holes)


def incomplete(holes: Mask) -> Mask:
    """Whether each image has a missing pixel: ``[N]``."""
    return np.asarray(holes.any(tuple(range(1, holes.ndim))))


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
