"""Large pictures, filled through windows of the size that a network learnt.

Every window is filled given what is known in it, and what it filled is known to the windows after it: where windows
overlap, they agree. The plan depends on the mask alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inkfill.data.images import Mask

LARGE = 2.0  # sides of a window from which on a picture is filled through windows
CONTEXT = 0.5  # share of a window that should be known when it is filled


@dataclass(frozen=True)
class Window:
    """A part of a picture: its upper left corner and its size, and its number in the plan."""

    top: int
    left: int
    height: int
    width: int
    number: int

    @property
    def place(self) -> tuple[slice, slice]:
        """Where it is, to index ``[H, W]`` with."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def is_large(shape: tuple[int, int], size: tuple[int, int] | None) -> bool:
    """Whether pictures of a shape are to be filled through windows of a size."""
    return size is not None and (shape[0] > LARGE * size[0] or shape[1] > LARGE * size[1])


def plan(mask: Mask, size: tuple[int, int]) -> list[list[Window]]:
    """Waves of windows that cover what a mask ``[H, W]`` hides; the windows of a wave do not overlap.

    Holes that fit into a window with enough around them are filled at once; larger ones from their edges inwards, as
    windows with more known pixels go first.
    """
    height, width = min(size[0], mask.shape[0]), min(size[1], mask.shape[1])
    missing, waves, number = mask.copy(), [], 0
    tops, lefts = (_corners(side, window) for side, window in zip(mask.shape, (height, width), strict=True))
    while missing.any():
        rank = _ranks(missing, tops, lefts, height, width)
        order = np.argsort(-rank, axis=None, kind="stable")
        enough = rank.flat[order[0]] >= height * width  # windows that know too little wait for those that know enough
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
    """Which window should come first, by its corner; -1 for those with nothing to fill.

    Those that know enough by what they would fill (at least ``height`` x ``width``), the others by what they know; of
    equals the one whose hole is nearest to its middle, so that there is context all around.
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
    """Places of a window along a side: every eighth of it, and the last one."""
    return np.unique(np.append(np.arange(0, side - window + 1, max(1, window // 8)), side - window))


def _sums(
    values: NDArray[np.float64], tops: NDArray[np.int64], lefts: NDArray[np.int64], height: int, width: int
) -> NDArray[np.float64]:
    """The sum of the values in the window at each corner, from one table of sums."""
    table = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    table[1:, 1:] = values.cumsum(0).cumsum(1)
    a, b = tops[:, None], lefts[None, :]
    return table[a + height, b + width] - table[a, b + width] - table[a + height, b] + table[a, b]
