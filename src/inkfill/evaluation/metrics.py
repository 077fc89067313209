"""How good completions are, over missing pixels only, intensities in [0, 1].

``truth`` is uint8 ``[N, H, W]``, ``filled`` uint8 ``[N, K, H, W]``, ``mask`` bool ``[N, H, W]`` (True = missing).
Pixel measures give float64 ``[N]``, NaN for an image with nothing missing, so that means and errors over images are
the caller's choice. Label measures take probabilities, distances between sets of images take features: whoever calls
them runs the classifier.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from inkfill.data.images import Images

PerImage = NDArray[np.float64]
Mask = NDArray[np.bool_]
Floats = NDArray[np.floating]


def _mean_missing(values: NDArray[np.floating], mask: Mask) -> PerImage:
    """The mean over missing pixels, image by image; ``values`` is ``[N, H, W]``."""
    missing = mask.sum((1, 2))
    total = np.where(mask, values, 0).sum((1, 2), dtype=np.float64)
    return np.divide(total, missing, out=np.full(len(mask), np.nan), where=missing > 0)


def mse_of_mean(truth: Images, filled: Images, mask: Mask) -> PerImage:
    """Squared error of the mean of the K completions."""
    return _mean_missing((filled.mean(1) / 255 - truth / 255) ** 2, mask)


def mse_of_limit(truth: Images, filled: Images, mask: Mask) -> PerImage:
    """Squared error that the mean of ever more completions tends to, from K >= 2 of them; unbiased.

    The mean of K has the variance of one completion over K on top, which is taken off.
    """
    if filled.shape[1] < 2:
        return np.full(len(truth), np.nan)
    extra = (filled / np.float32(255)).var(1, ddof=1) / filled.shape[1]
    return mse_of_mean(truth, filled, mask) - _mean_missing(extra, mask)


def mse_of_sample(truth: Images, filled: Images, mask: Mask) -> PerImage:
    """Squared error of one completion, averaged over the K."""
    return _mean_missing(((filled / np.float32(255) - truth[:, None] / np.float32(255)) ** 2).mean(1), mask)


def psnr(mse: PerImage) -> float:
    """PSNR in dB of the squared error averaged over images: one perfect image does not make it infinite."""
    mean = float(np.nanmean(mse))
    return float("inf") if mean == 0 else -10 * float(np.log10(mean))


def ssim(truth: Images, filled: Images, mask: Mask) -> PerImage:
    """Structural similarity of one completion, averaged over the K (Wang et al. 2004, eq. 13).

    Local statistics are those of whole images under a Gaussian window (11 x 11, standard deviation 1.5 pixels,
    mirrored at the edges); the map is averaged over missing pixels.
    """
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    taps /= taps.sum()

    def blur(x: Floats) -> Floats:
        for axis in (-2, -1):
            width = [(0, 0)] * x.ndim
            width[axis] = (5, 5)
            padded, length = np.pad(x, width, mode="symmetric"), x.shape[axis]
            x = sum(tap * padded.take(range(i, i + length), axis) for i, tap in enumerate(taps))
        return x

    y = truth / 255
    mean_y, square_y = blur(y), blur(y**2)
    total = np.zeros(y.shape)
    for completion in filled.swapaxes(0, 1):
        x = completion / 255
        mean_x = blur(x)
        variance_x, variance_y = blur(x**2) - mean_x**2, square_y - mean_y**2
        covariance = blur(x * y) - mean_x * mean_y
        top = (2 * mean_x * mean_y + 0.01**2) * (2 * covariance + 0.03**2)
        total += top / ((mean_x**2 + mean_y**2 + 0.01**2) * (variance_x + variance_y + 0.03**2))
    return _mean_missing(total / filled.shape[1], mask)


def crps(truth: Images, filled: Images, mask: Mask, draws: bool = True) -> PerImage:
    """Continuous ranked probability score per missing pixel, unbiased in K (Gneiting and Raftery 2007, eq. 21).

    E|X - y| - E|X - X'| / 2 with the second mean over the K (K - 1) pairs of different completions; K >= 2, else NaN.
    Without ``draws`` the K are no draws of a distribution but the distribution itself, an atom each: all K^2 pairs.
    """
    k = filled.shape[1]
    if k < 2 and draws:
        return np.full(len(truth), np.nan)
    error = np.abs(filled.astype(np.float32) - truth[:, None]).mean(1) / 255
    # Sorted, the sum over pairs of |x_i - x_j| is sum_i (2 i - K + 1) x_(i): no K by K array.
    ordered = np.sort(filled, axis=1).astype(np.float32)
    rank = (2 * np.arange(k) - k + 1).astype(np.float32)
    pairs = np.einsum("k,nkhw->nhw", rank, ordered) / 255
    return _mean_missing(error - pairs / (k * (k - 1 if draws else k)), mask)


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
    """Histograms of the rank of the truth among its K completions, over missing pixels: int64 ``[N, K + 1]``.

    Flat where completions and truth are draws from one distribution. Most pixels are exactly 0 or 255, so ties are
    broken at random: a truth that equals m completions gets one of the m + 1 places among them.
    """
    below = (filled < truth[:, None]).sum(1)
    equal = (filled == truth[:, None]).sum(1)
    rank = below + rng.integers(0, equal + 1)
    places = filled.shape[1] + 1
    image = np.broadcast_to(np.arange(len(truth))[:, None, None], mask.shape)
    found = np.bincount((image * places + rank)[mask], minlength=len(truth) * places)
    return found.reshape(len(truth), places)


def coverage(histogram: NDArray[np.int64], level: float) -> float:
    """How often the central interval of a level held the truth, from one rank histogram; the level itself is ideal.

    The interval takes the middle share ``level`` of the K + 1 places, the outermost two in part where they do not fit.
    """
    share = histogram / histogram.sum()
    places = len(share)
    edges = np.arange(places + 1) / places
    low, high = (1 - level) / 2, (1 + level) / 2
    inside = np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None) * places
    return float(share @ inside)


# ---- labels ----------------------------------------------------------------------------------------------------------


def confident(probabilities: Floats, least: float) -> float:
    """Share of images that a classifier reads with a probability over ``least``, from ``[..., L]``."""
    return float((probabilities.max(-1) > least).mean())


def imbalance(labels: NDArray[np.integer], kinds: int) -> float:
    """Total variation distance between the shares of labels and equal ones: 0 for equally many of each, under 1."""
    shares = np.bincount(labels, minlength=kinds) / len(labels)
    return float(np.abs(shares - 1 / kinds).sum() / 2)


def vote(probabilities: Floats, smoothing: float = 0.02) -> Floats:
    """Label posterior ``[N, L]`` from a classifier's probabilities ``[N, K, L]`` for the K completions of each image.

    Their mean, with ``smoothing`` of a completion added to every label: K completions cannot say that a label is
    impossible, only that they have not seen it.
    """
    total = probabilities.sum(1, dtype=np.float64) + smoothing
    return total / total.sum(1, keepdims=True)


def negative_log_likelihood(posterior: Floats, labels: NDArray[np.integer]) -> PerImage:
    """-log of what a label posterior ``[N, L]`` gave to the true label, in nats, ``[N]``."""
    return -np.log(posterior[np.arange(len(labels)), labels])


def brier(probabilities: Floats, labels: NDArray[np.integer]) -> PerImage:
    """Brier score of the label posterior behind K draws ``[N, K, L]``, unbiased in K (K >= 2), ``[N]``.

    The squared distance of p from the true label's unit vector e; p^2 in it is estimated from pairs of different draws,
    so that few completions are not punished for being few, and the figure can stand beside that of a classifier that
    gives p itself.
    """
    k = probabilities.shape[1]
    total = probabilities.sum(1, dtype=np.float64)
    square = ((total**2).sum(1) - (probabilities.astype(np.float64) ** 2).sum((1, 2))) / (k * (k - 1))
    return 1 - 2 * total[np.arange(len(labels)), labels] / k + square


def calibration_error(posterior: Floats, labels: NDArray[np.integer], bins: int = 10) -> float:
    """Expected calibration error: accuracy and confidence of the top label apart, over equal bins of confidence."""
    confidence, right = posterior.max(1), posterior.argmax(1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    apart = np.abs(np.bincount(place, right - confidence, bins))
    return float(apart.sum() / len(labels))


# ---- sets of images --------------------------------------------------------------------------------------------------


def frechet_distance(a: Floats, b: Floats) -> float:
    """Frechet distance of two sets of features, ``[N, D]`` and ``[M, D]``, as Gaussians (Heusel et al. 2017, eq. 6).

    Squared, as is usual. It falls with N and M, so print the distance between two sets of real images of that size too.
    NaN for fewer than two images.
    """
    if min(len(a), len(b)) < 2:
        return float("nan")
    a, b = a.astype(np.float64), b.astype(np.float64)
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    values, axes = np.linalg.eigh(cov_a)
    root = axes * np.sqrt(values.clip(0)) @ axes.T
    # The trace of (A B)^(1/2) is that of (A^(1/2) B A^(1/2))^(1/2), which is symmetric.
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def nearest_distance(images: Images, train: Images, mask: Mask | None = None, part: int = 5000) -> PerImage:
    """Distance of images ``[N, ...]`` to the nearest of training images, on the scale of a pixel, ``[N]``.

    With ``mask`` ``[N, H, W]`` over the missing pixels of each image alone; NaN where nothing is missing.
    """
    counts = np.ones_like(images, np.float32)
    if mask is not None:
        counts *= mask.reshape(*mask.shape, *[1] * (images.ndim - mask.ndim))
    counts = counts.reshape(len(images), -1)
    x = images.reshape(len(images), -1).astype(np.float32) / 255 * counts
    least = np.full(len(x), np.inf)
    for start in range(0, len(train), part):
        y = train[start : start + part].reshape(-1, x.shape[1]).astype(np.float32) / 255
        square = (x**2).sum(1)[:, None] + counts @ (y**2).T - 2 * x @ y.T
        least = np.minimum(least, square.min(1))
    number = counts.sum(1, dtype=np.float64)
    return np.sqrt(np.maximum(least, 0) / np.where(number > 0, number, np.nan))


def kernel_distance(a: Floats, b: Floats) -> float:
    """Squared maximum mean discrepancy with the kernel (x . y / D + 1)^3, unbiased (Binkowski et al. 2018, eq. 4).

    ``[N, D]`` and ``[M, D]``, at least two of each, else NaN. Unlike the Frechet distance it does not depend on the
    sizes, and it can be negative.
    """
    if min(len(a), len(b)) < 2:
        return float("nan")
    a, b = a.astype(np.float64), b.astype(np.float64)

    def kernel(x: Floats, y: Floats) -> Floats:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: Floats) -> float:
        table = kernel(x, x)
        return float((table.sum() - np.trace(table)) / (len(x) * (len(x) - 1)))

    return within(a) + within(b) - 2 * float(kernel(a, b).mean())


# ---- errors ----------------------------------------------------------------------------------------------------------


def standard_error(values: PerImage) -> float:
    """Standard error of the mean over images."""
    good = values[~np.isnan(values)]
    return float(good.std(ddof=1) / np.sqrt(len(good))) if len(good) > 1 else float("nan")


def bootstrap_error(
    statistic: Callable[[NDArray[np.int64]], float], n: int, rng: np.random.Generator, rounds: int = 200
) -> float:
    """Standard error of a statistic of n images by drawing them again: ``statistic(indices)`` for resampled indices."""
    if n < 2:
        return float("nan")
    return float(np.std([statistic(rng.integers(n, size=n)) for _ in range(rounds)], ddof=1))
