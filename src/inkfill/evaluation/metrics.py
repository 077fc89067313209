"""Quality of samples, over missing pixels only, with intensities in [0, 1].

``truth`` is ``[N, H, W]``, ``filled`` ``[N, K, H, W]``, both uint8 (255 is intensity 1) or float64 intensities, and
``mask`` is bool ``[N, H, W]`` (True = missing).
Pixel metrics return float64 ``[N]``, NaN for an image without missing pixels. Label metrics take label probabilities,
and distances between sets of images take features; the caller runs the classifier.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from inkfill.data.images import Images

PerImage = NDArray[np.float64]
Mask = NDArray[np.bool_]
Floats = NDArray[np.floating]

# ---- pixels ----------------------------------------------------------------------------------------------------------


def _ratio(values: Floats, counts: Floats | NDArray[np.int64]) -> PerImage:
    """``values / counts``, NaN where the count is 0."""
    return np.divide(values, counts, out=np.full(len(counts), np.nan), where=counts > 0)


def _mean_missing(values: Floats, mask: Mask) -> PerImage:
    """The mean of ``values`` ``[N, H, W]`` over the missing pixels of each image."""
    return _ratio(np.where(mask, values, 0).sum((1, 2), dtype=np.float64), mask.sum((1, 2)))


def _top(images: Images) -> float:
    """Intensity 1 as it is stored: 255 in uint8, 1 in floats."""
    return 255.0 if images.dtype == np.uint8 else 1.0


def _real(images: Images) -> Floats:
    """Values as real numbers: float32 holds those of uint8; floats stay."""
    return images.astype(np.float32) if images.dtype == np.uint8 else images


def mse_of_mean(truth: Images, filled: Images, mask: Mask) -> PerImage:
    """Squared error of the mean of the K samples."""
    return _mean_missing((filled.mean(1) / _top(filled) - truth / _top(truth)) ** 2, mask)


def mse_of_limit(truth: Images, filled: Images, mask: Mask) -> PerImage:
    """Squared error of the mean of infinitely many samples, estimated without bias from K >= 2.

    It is the error of the mean of K samples minus the variance of that mean.
    """
    if filled.shape[1] < 2:
        return np.full(len(truth), np.nan)
    extra = (_real(filled) / _top(filled)).var(1, ddof=1) / filled.shape[1]
    return mse_of_mean(truth, filled, mask) - _mean_missing(extra, mask)


def mse_of_sample(truth: Images, filled: Images, mask: Mask) -> PerImage:
    """Squared error of one sample, averaged over the K."""
    apart = _real(filled) / _top(filled) - _real(truth[:, None]) / _top(truth)
    return _mean_missing((apart**2).mean(1), mask)


def psnr(mse: PerImage) -> float:
    """PSNR in dB of the mean squared error over images, so that one perfect image does not make it infinite."""
    error = mean(mse)
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def _blur(x: Floats) -> Floats:
    """Gaussian window over the last two axes: 11 x 11, standard deviation 1.5 pixels, mirrored at the edges."""
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    taps /= taps.sum()
    for axis in (-2, -1):
        width = [(0, 0)] * x.ndim
        width[axis] = (5, 5)
        padded, length = np.pad(x, width, mode="symmetric"), x.shape[axis]
        x = sum(tap * padded.take(range(i, i + length), axis) for i, tap in enumerate(taps))
    return x


def ssim(truth: Images, filled: Images, mask: Mask) -> PerImage:
    """Structural similarity of one sample, averaged over the K (Wang et al. 2004, eq. 13).

    Local statistics are computed on whole images; their map is averaged over missing pixels.
    """
    y = truth / _top(truth)
    mean_y, square_y = _blur(y), _blur(y**2)
    total = np.zeros(y.shape)
    for sample in filled.swapaxes(0, 1):
        x = sample / _top(sample)
        mean_x = _blur(x)
        variance_x, variance_y = _blur(x**2) - mean_x**2, square_y - mean_y**2
        covariance = _blur(x * y) - mean_x * mean_y
        top = (2 * mean_x * mean_y + 0.01**2) * (2 * covariance + 0.03**2)
        total += top / ((mean_x**2 + mean_y**2 + 0.01**2) * (variance_x + variance_y + 0.03**2))
    return _mean_missing(total / filled.shape[1], mask)


def crps(truth: Images, filled: Images, mask: Mask, draws: bool = True) -> PerImage:
    """Continuous ranked probability score per missing pixel, unbiased in K (Gneiting and Raftery 2007, eq. 21).

    E|X - y| - E|X - X'| / 2, with the second mean over the K (K - 1) pairs of different samples; NaN for K < 2.
    With ``draws`` False the K images are a discrete distribution: the second mean is over all K^2 pairs.
    """
    k = filled.shape[1]
    if k < 2 and draws:
        return np.full(len(truth), np.nan)
    error = np.abs(_real(filled) - truth[:, None]).mean(1) / _top(filled)
    # With sorted values the sum over pairs of |x_i - x_j| is sum_i (2 i - K + 1) x_(i), without a K by K array.
    ordered = _real(np.sort(filled, axis=1))
    rank = (2 * np.arange(k) - k + 1).astype(ordered.dtype)
    pairs = np.einsum("k,nkhw->nhw", rank, ordered) / _top(filled)
    return _mean_missing(error - pairs / (k * (k - 1 if draws else k)), mask)


def _vectors(images: Images, mask: Mask) -> Floats:
    """Images ``[N, K, H, W]`` as vectors ``[N, K, H W]`` of intensities, 0 at observed pixels."""
    return np.where(mask[:, None], images / _top(images), 0).reshape(*images.shape[:2], -1)


def _distances(a: Floats, b: Floats) -> PerImage:
    """Euclidean distances between rows: ``[N, P, D]`` and ``[N, Q, D]`` to ``[N, P, Q]``."""
    square = (a**2).sum(2)[:, :, None] + (b**2).sum(2)[:, None, :] - 2 * a @ b.transpose(0, 2, 1)
    return np.sqrt(np.maximum(square, 0))


def energy_score(truth: Images, filled: Images, mask: Mask) -> PerImage:
    """Energy score of whole samples, unbiased in K; NaN for K < 2 (Gneiting and Raftery 2007, eq. 22, beta = 1).

    E|X - y| - E|X - X'| / 2 with Euclidean norms over missing pixels, divided by the square root of their number.
    Unlike CRPS it depends on the joint distribution of the pixels.
    """
    error = _distances(_vectors(filled, mask), _vectors(truth[:, None], mask)).mean((1, 2))
    return _ratio(error, np.sqrt(mask.sum((1, 2)))) - diversity(filled, mask) / 2


def diversity(filled: Images, mask: Mask) -> PerImage:
    """Mean distance between two samples of an image over missing pixels, per root pixel; NaN for K < 2."""
    k = filled.shape[1]
    if k < 2:
        return np.full(len(filled), np.nan)
    x = _vectors(filled, mask)
    return _ratio(_distances(x, x).sum((1, 2)) / (k * (k - 1)), np.sqrt(mask.sum((1, 2))))


# ---- calibration -----------------------------------------------------------------------------------------------------


def ranks(truth: Images, filled: Images, mask: Mask, rng: np.random.Generator) -> NDArray[np.int64]:
    """Histograms of the rank of the truth among its K samples, over missing pixels: int64 ``[N, K + 1]``.

    A flat histogram means that truth and samples have one distribution. Most pixels are exactly 0 or 255, so ties are
    broken at random: a truth that equals m samples gets one of the m + 1 ranks among them.
    """
    below = (filled < truth[:, None]).sum(1)
    equal = (filled == truth[:, None]).sum(1)
    rank = below + rng.integers(0, equal + 1)
    bins = filled.shape[1] + 1
    image = np.broadcast_to(np.arange(len(truth))[:, None, None], mask.shape)
    counts = np.bincount((image * bins + rank)[mask], minlength=len(truth) * bins)
    return counts.reshape(len(truth), bins)


def coverage(histogram: NDArray[np.int64], level: float) -> float:
    """Coverage of central intervals of a nominal ``level``, from a rank histogram ``[K + 1]``.

    The interval is the middle share ``level`` of the K + 1 ranks; its outermost two ranks count in part.
    """
    share = histogram / histogram.sum()
    bins = len(share)
    edges = np.arange(bins + 1) / bins
    low, high = (1 - level) / 2, (1 + level) / 2
    inside = np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None) * bins
    return float(share @ inside)


# ---- labels ----------------------------------------------------------------------------------------------------------


def confident(probabilities: Floats, least: float) -> float:
    """Share of images whose largest label probability is over ``least``, from ``[..., L]``."""
    return float((probabilities.max(-1) > least).mean())


def imbalance(labels: NDArray[np.integer], kinds: int) -> float:
    """Total variation distance in [0, 1) between the frequencies of ``kinds`` labels and equal frequencies."""
    shares = np.bincount(labels, minlength=kinds) / len(labels)
    return float(np.abs(shares - 1 / kinds).sum() / 2)


def vote(probabilities: Floats, smoothing: float = 0.02) -> Floats:
    """Label posterior ``[N, L]`` from the label probabilities ``[N, K, L]`` of K samples of each image.

    Their mean, after ``smoothing`` of a sample is added to every label: K samples cannot rule a label out.
    """
    total = probabilities.sum(1, dtype=np.float64) + smoothing
    return total / total.sum(1, keepdims=True)


def negative_log_likelihood(posterior: Floats, labels: NDArray[np.integer]) -> PerImage:
    """-log of the true label's probability under a label posterior ``[N, L]``, in nats, ``[N]``."""
    return -np.log(posterior[np.arange(len(labels)), labels])


def brier(probabilities: Floats, labels: NDArray[np.integer]) -> PerImage:
    """Brier score of the label posterior behind K >= 2 samples ``[N, K, L]``, unbiased in K, ``[N]``.

    It is ``|p - e|^2`` for the true label's unit vector e. The term p^2 is estimated from pairs of different samples,
    so the score is comparable with that of a classifier that returns p.
    """
    k = probabilities.shape[1]
    total = probabilities.sum(1, dtype=np.float64)
    square = ((total**2).sum(1) - (probabilities.astype(np.float64) ** 2).sum((1, 2))) / (k * (k - 1))
    return 1 - 2 * total[np.arange(len(labels)), labels] / k + square


# ---- sets of images --------------------------------------------------------------------------------------------------


def frechet_distance(a: Floats, b: Floats) -> float:
    """Squared Fréchet distance between Gaussians fitted to features ``[N, D]`` and ``[M, D]`` (Heusel et al. 2017).

    Their eq. 6, in classifier features. It decreases with N and M, so report the distance between two sets of real
    images of these sizes too. NaN for fewer than two images.
    """
    if min(len(a), len(b)) < 2:
        return float("nan")
    a, b = a.astype(np.float64), b.astype(np.float64)
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    values, axes = np.linalg.eigh(cov_a)
    root = axes * np.sqrt(values.clip(0)) @ axes.T
    # tr (A B)^(1/2) = tr (A^(1/2) B A^(1/2))^(1/2), and the latter matrix is symmetric.
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def kernel_distance(a: Floats, b: Floats) -> float:
    """Squared maximum mean discrepancy, kernel (x . y / D + 1)^3, unbiased (Binkowski et al. 2018, eq. 4).

    ``[N, D]`` and ``[M, D]``; NaN for fewer than two images. Its expectation does not depend on N and M; an estimate
    can be negative.
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


def nearest_distance(images: Images, train: Images, mask: Mask | None = None, part: int = 5000) -> PerImage:
    """Root-mean-square distance of images ``[N, ...]`` to the nearest training image, ``[N]``.

    With a ``mask`` ``[N, H, W]`` or ``[N, H, W, C]`` it is over missing values, NaN for an image without any. ``part``
    training images are compared at a time.
    """
    counts = np.ones_like(images, np.float32)
    if mask is not None:
        counts *= mask.reshape(*mask.shape, *[1] * (images.ndim - mask.ndim))
    counts = counts.reshape(len(images), -1)
    x = images.reshape(len(images), -1).astype(np.float32) / _top(images) * counts
    least = np.full(len(x), np.inf)
    for start in range(0, len(train), part):
        y = train[start : start + part].reshape(-1, x.shape[1]).astype(np.float32) / _top(train)
        square = (x**2).sum(1)[:, None] + counts @ (y**2).T - 2 * x @ y.T
        least = np.minimum(least, square.min(1))
    return np.sqrt(_ratio(np.maximum(least, 0), counts.sum(1, dtype=np.float64)))


# ---- means and standard errors ---------------------------------------------------------------------------------------


def mean(values: PerImage) -> float:
    """Mean over images, NaN left out; NaN without any."""
    finite = values[~np.isnan(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def standard_error(values: PerImage) -> float:
    """Standard error of the mean over images, NaN left out."""
    finite = values[~np.isnan(values)]
    return float(finite.std(ddof=1) / np.sqrt(len(finite))) if len(finite) > 1 else float("nan")


def bootstrap_error(
    statistic: Callable[[NDArray[np.int64]], float], n: int, rng: np.random.Generator, rounds: int = 200
) -> float:
    """Bootstrap standard error of ``statistic(indices)``, a function of n resampled images; NaN for n < 2."""
    if n < 2:
        return float("nan")
    return float(np.std([statistic(rng.integers(n, size=n)) for _ in range(rounds)], ddof=1))
