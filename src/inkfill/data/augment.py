"""Augmentation: random changes that leave an image a plausible one. For small data sets, on request."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkfill.errors import InputError

Array = NDArray[Any]
SHIFT = 0.1  # largest shift, as a fraction of the side


def parse(words: str) -> tuple[str, ...]:
    """The names in ``flip,shift,rotate90``; empty for none. Raises InputError for an unknown name."""
    names = tuple(word.strip() for word in words.split(",") if word.strip())
    for name in names:
        if name not in CHANGES:
            raise InputError(f"--augment {words}: unknown augmentation {name!r}: choose from {', '.join(CHANGES)}")
    return names


def augmented(words: str, rng: np.random.Generator, *arrays: Array) -> tuple[Array, ...]:
    """Every image changed at random, in the same way in all arrays ``[N, H, W]`` or ``[N, H, W, C]``.

    Raises InputError for rotations of images that are not square.
    """
    for name in parse(words):
        arrays = CHANGES[name](rng, *arrays)
    return arrays


def flip(rng: np.random.Generator, *arrays: Array) -> tuple[Array, ...]:
    """Mirror half of the images, left to right."""
    mirrored = rng.random(len(arrays[0])) < 0.5
    copies = tuple(x.copy() for x in arrays)
    for x in copies:
        x[mirrored] = x[mirrored, :, ::-1]
    return copies


def shift(rng: np.random.Generator, *arrays: Array) -> tuple[Array, ...]:
    """Shift by up to a tenth of the side; pixels that enter repeat the edge."""
    height, width = arrays[0].shape[1:3]
    most = max(1, round(SHIFT * height)), max(1, round(SHIFT * width))
    down, right = (rng.integers(-m, m + 1, len(arrays[0])) for m in most)
    rows = (np.arange(height) - down[:, None]).clip(0, height - 1)
    columns = (np.arange(width) - right[:, None]).clip(0, width - 1)
    index = np.arange(len(arrays[0]))[:, None, None]
    return tuple(x[index, rows[:, :, None], columns[:, None, :]] for x in arrays)


def rotate90(rng: np.random.Generator, *arrays: Array) -> tuple[Array, ...]:
    """Rotate by 0, 90, 180 or 270 degrees."""
    height, width = arrays[0].shape[1:3]
    if height != width:
        raise InputError(f"--augment rotate90: needs square images, these are {height}x{width}: leave it out")
    quarters = rng.integers(4, size=len(arrays[0]))
    copies = tuple(x.copy() for x in arrays)
    for x in copies:
        for k in (1, 2, 3):
            x[quarters == k] = np.rot90(x[quarters == k], k, (1, 2))
    return copies


CHANGES = {"flip": flip, "shift": shift, "rotate90": rotate90}
