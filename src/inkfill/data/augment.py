"""Augmentation: changes that a user says leave their pictures what they are. For small sets of images."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkfill.errors import InputError

Array = NDArray[Any]
SHIFT = 0.1  # of a side, at most


def parse(words: str) -> tuple[str, ...]:
    """``flip,shift,rotate90`` as names; empty for none. Raises InputError for a name that there is not."""
    names = tuple(word.strip() for word in words.split(",") if word.strip())
    for name in names:
        if name not in CHANGES:
            raise InputError(f"unknown augmentation {name!r}: choose from {', '.join(CHANGES)}")
    return names


def augmented(words: str, rng: np.random.Generator, *arrays: Array) -> tuple[Array, ...]:
    """Every image changed at random, the same way in each of the arrays ``[N, H, W]`` or ``[N, H, W, C]``.

    Raises InputError for turns of pictures that are not square.
    """
    for name in parse(words):
        arrays = CHANGES[name](rng, *arrays)
    return arrays


def flip(rng: np.random.Generator, *arrays: Array) -> tuple[Array, ...]:
    """Left and right exchanged, in half of the images."""
    turned = rng.random(len(arrays[0])) < 0.5
    return tuple(np.where(_like(turned, x), x[:, :, ::-1], x) for x in arrays)


def shift(rng: np.random.Generator, *arrays: Array) -> tuple[Array, ...]:
    """Moved by up to a tenth of a side; what comes in repeats the edge."""
    height, width = arrays[0].shape[1:3]
    most = max(1, round(SHIFT * height)), max(1, round(SHIFT * width))
    down, right = (rng.integers(-m, m + 1, len(arrays[0])) for m in most)
    rows = (np.arange(height) - down[:, None]).clip(0, height - 1)
    columns = (np.arange(width) - right[:, None]).clip(0, width - 1)
    index = np.arange(len(arrays[0]))[:, None, None]
    return tuple(x[index, rows[:, :, None], columns[:, None, :]] for x in arrays)


def rotate90(rng: np.random.Generator, *arrays: Array) -> tuple[Array, ...]:
    """Turned by none, one, two or three quarters."""
    height, width = arrays[0].shape[1:3]
    if height != width:
        raise InputError(f"rotate90 needs square pictures, these are {height}x{width}")
    quarters = rng.integers(4, size=len(arrays[0]))
    return tuple(
        np.select([_like(quarters == k, x) for k in range(4)], [np.rot90(x, k, (1, 2)) for k in range(4)])
        for x in arrays
    )


def _like(rows: Array, x: Array) -> Array:
    """A value an image, shaped to choose images of x."""
    return rows.reshape(-1, *[1] * (x.ndim - 1))


CHANGES = {"flip": flip, "shift": shift, "rotate90": rotate90}
