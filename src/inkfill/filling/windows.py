"""Large images are filled in windows of the training size.

A window is conditioned on its observed pixels and on those filled by the windows before it, so overlapping windows
agree. The plan depends on the mask alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inkfill.data.images import Mask

LARGE = 2.0  # an image with a side above this many sides of a window is filled in windows
WHOLE = -1  # number of a window that is a whole image
CONTEXT = 0.5  # the fraction of a window that should be observed when it is filled


@dataclass(frozen=True)
class Window:
    """A part of an image: its upper left corner, its size and its number in the plan, or ``WHOLE``."""

    top: int
    left: int
    height: int
    width: int
    number: int

    @property
    def place(self) -> tuple[slice, slice]:
        """Its index into ``[H, W]``."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def is_large(shape: tuple[int, ...], size: tuple[int, int] | None) -> bool:
    """Whether images of a shape are filled in windows of a size."""
    return size is not None and (shape[0] > LARGE * size[0] or shape[1] > LARGE * size[1])


def plan(mask: Mask, size: tuple[int, int] | None) -> list[list[Window]]:
    """Waves of windows that cover the missing pixels of a mask ``[H, W]``; windows of a wave do not overlap.

    ``size`` is that of the training images; a mask that is not large beside it is one window.

    Windows with enough context are filled together. Without one, the window with the most observed pixels is filled
    alone, so large holes are filled from their edges inwards.
    """
    if size is None or not is_large(mask.shape, size):
        return [[Window(0, 0, mask.shape[0], mask.shape[1], WHOLE)]] if mask.any() else []
    height, width = min(size[0], mask.shape[0]), min(size[1], mask.shape[1])
    missing, waves, number = mask.copy(), [], 0
    tops, lefts = (_corners(side, window) for side, window in zip(mask.shape, (height, width), strict=True))
    while missing.any():
        rank = _ranks(missing, tops, lefts, height, width)
        order = np.argsort(-rank, axis=None, kind="stable")
        enough = rank.flat[order[0]] >= height * width  # windows with too little context wait for the others
        wave: list[Window] = []
        taken = np.zeros_like(missing)
        for index in order[: int((rank >= (height * width if enough else 0)).sum())]:
            y, x = np.unravel_index(index, rank.shape)
            window = Window(int(tops[y]), int(lefts[x]), height, width, number)
            if not taken[window.place].any():
                taken[window.place] = True
                wave.append(window)
                number += 1
            if not enough:
                break
        for window in wave:
            missing[window.place] = False
        waves.append(wave)
    return waves


def _ranks(
    missing: Mask, tops: NDArray[np.int64], lefts: NDArray[np.int64], height: int, width: int
) -> NDArray[np.float64]:
    """The priority of each window, by its corner; -1 for a window without missing pixels.

    Windows with enough context rank by their number of missing pixels (plus ``height`` x ``width``), the others by
    their number of observed pixels. A tie goes to the window whose missing pixels are nearest to its centre.
    """
    y, x = np.arange(missing.shape[0])[:, None] + 0.5, np.arange(missing.shape[1])[None] + 0.5
    hidden, down, right = (_sums(missing * weight, tops, lefts, height, width) for weight in (1.0, y, x))
    known = height * width - hidden
    count = np.maximum(hidden, 1)
    off = np.hypot(down / count - tops[:, None] - height / 2, right / count - lefts[None] - width / 2)
    middle = 1 - off / (height + width)
    rank = np.where(known >= CONTEXT * height * width, height * width + hidden, known)
    return np.where(hidden > 0, rank + middle, -1.0)


def _corners(side: int, window: int) -> NDArray[np.int64]:
    """Starts of windows along a side: a step of an eighth of a window, and the last start."""
    return np.unique(np.append(np.arange(0, side - window + 1, max(1, window // 8)), side - window))


def _sums(
    values: NDArray[np.float64], tops: NDArray[np.int64], lefts: NDArray[np.int64], height: int, width: int
) -> NDArray[np.float64]:
    """The sum of ``values`` in the window at each corner, from a summed-area table."""
    table = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    table[1:, 1:] = values.cumsum(0).cumsum(1)
    a, b = tops[:, None], lefts[None, :]
    return table[a + height, b + width] - table[a, b + width] - table[a + height, b] + table[a, b]
