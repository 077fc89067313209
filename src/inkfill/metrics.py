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


def standard_error(values: PerImage) -> float:
    """Standard error of the mean over images."""
    good = values[~np.isnan(values)]
    return float(good.std(ddof=1) / np.sqrt(len(good))) if len(good) > 1 else float("nan")
