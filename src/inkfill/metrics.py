"""How good completions are, over missing pixels only, intensities in [0, 1].

``truth`` is uint8 ``[N, H, W]``, ``filled`` uint8 ``[N, K, H, W]``, ``mask`` bool ``[N, H, W]`` (True = missing).
Every function gives float64 ``[N]``, NaN for an image with nothing missing, so that means and errors over images are
the caller's choice.
"""

import numpy as np
from numpy.typing import NDArray

from inkfill.data import Images

PerImage = NDArray[np.float64]
Mask = NDArray[np.bool_]


def _mean_missing(values: NDArray[np.floating], mask: Mask) -> PerImage:
    """The mean over missing pixels, image by image; ``values`` is ``[N, H, W]``."""
    missing = mask.sum((1, 2))
    total = np.where(mask, values, 0).sum((1, 2), dtype=np.float64)
    return np.divide(total, missing, out=np.full(len(mask), np.nan), where=missing > 0)


def mse_of_mean(truth: Images, filled: Images, mask: Mask) -> PerImage:
    """Squared error of the mean of the K completions."""
    return _mean_missing((filled.mean(1) / 255 - truth / 255) ** 2, mask)


def mse_of_sample(truth: Images, filled: Images, mask: Mask) -> PerImage:
    """Squared error of one completion, averaged over the K."""
    return _mean_missing(((filled / np.float32(255) - truth[:, None] / np.float32(255)) ** 2).mean(1), mask)


def psnr(mse: PerImage) -> float:
    """PSNR in dB of the squared error averaged over images: one perfect image does not make it infinite."""
    mean = float(np.nanmean(mse))
    return float("inf") if mean == 0 else -10 * float(np.log10(mean))


def crps(truth: Images, filled: Images, mask: Mask) -> PerImage:
    """Continuous ranked probability score per missing pixel, unbiased in K (Gneiting and Raftery 2007, eq. 21).

    E|X - y| - E|X - X'| / 2 with the second mean over the K (K - 1) pairs of different completions; K >= 2, else NaN.
    """
    k = filled.shape[1]
    if k < 2:
        return np.full(len(truth), np.nan)
    error = np.abs(filled.astype(np.float32) - truth[:, None]).mean(1) / 255
    # Sorted, the sum over pairs of |x_i - x_j| is sum_i (2 i - K + 1) x_(i): no K by K array.
    ordered = np.sort(filled, axis=1).astype(np.float32)
    rank = (2 * np.arange(k) - k + 1).astype(np.float32)
    pairs = np.einsum("k,nkhw->nhw", rank, ordered) / 255
    return _mean_missing(error - pairs / (k * (k - 1)), mask)


def _distances(a: NDArray[np.floating], b: NDArray[np.floating]) -> PerImage:
    """Euclidean distances between rows: ``[N, P, D]`` and ``[N, Q, D]`` to ``[N, P, Q]``."""
    square = (a**2).sum(2)[:, :, None] + (b**2).sum(2)[:, None, :] - 2 * a @ b.transpose(0, 2, 1)
    return np.sqrt(np.maximum(square, 0))


def energy_score(truth: Images, filled: Images, mask: Mask) -> PerImage:
    """Energy score of whole completions, unbiased in K (Gneiting and Raftery 2007, eq. 22, with beta = 1).

    E|X - y| - E|X - X'| / 2 with Euclidean norms over missing pixels, divided by the root of their number, so that
    it is on the scale of a pixel. Unlike CRPS it sees whether the pixels of a completion fit each other.
    """
    k = filled.shape[1]
    missing = mask.sum((1, 2))
    if k < 2:
        return np.full(len(truth), np.nan)
    hole = mask[:, None]
    x = np.where(hole, filled / 255, 0).reshape(len(truth), k, -1)
    y = np.where(hole, truth[:, None] / 255, 0).reshape(len(truth), 1, -1)
    score = _distances(x, y).mean((1, 2)) - _distances(x, x).sum((1, 2)) / (2 * k * (k - 1))
    return np.divide(score, np.sqrt(missing), out=np.full(len(truth), np.nan), where=missing > 0)


def diversity(filled: Images, mask: Mask) -> PerImage:
    """Mean distance between two completions of an image, over missing pixels, on the scale of a pixel."""
    k = filled.shape[1]
    missing = mask.sum((1, 2))
    if k < 2:
        return np.full(len(filled), np.nan)
    x = np.where(mask[:, None], filled / 255, 0).reshape(len(filled), k, -1)
    apart = _distances(x, x).sum((1, 2)) / (k * (k - 1))
    return np.divide(apart, np.sqrt(missing), out=np.full(len(filled), np.nan), where=missing > 0)


def ranks(truth: Images, filled: Images, mask: Mask, rng: np.random.Generator) -> NDArray[np.int64]:
    """Histogram of the rank of the truth among its K completions, over all missing pixels: int64 ``[K + 1]``.

    Flat where completions and truth are draws from one distribution. Most pixels are exactly 0 or 255, so ties are
    broken at random: a truth that equals m completions gets one of the m + 1 places among them.
    """
    below = (filled < truth[:, None]).sum(1)
    equal = (filled == truth[:, None]).sum(1)
    rank = below + rng.integers(0, equal + 1)
    return np.bincount(rank[mask], minlength=filled.shape[1] + 1)


def coverage(histogram: NDArray[np.int64], level: float) -> float:
    """How often the central interval of a level held the truth, from a rank histogram; the level itself is ideal.

    The interval takes the middle share ``level`` of the K + 1 places, the outermost two in part where they do not fit.
    """
    share = histogram / histogram.sum()
    places = len(share)
    edges = np.arange(places + 1) / places
    low, high = (1 - level) / 2, (1 + level) / 2
    inside = np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None) * places
    return float(share @ inside)


def standard_error(values: PerImage) -> float:
    """Standard error of the mean over images."""
    good = values[~np.isnan(values)]
    return float(good.std(ddof=1) / np.sqrt(len(good))) if len(good) > 1 else float("nan")
