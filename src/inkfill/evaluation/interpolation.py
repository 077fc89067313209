"""Baselines that interpolate: each channel of an image from its own observed pixels.

All but ``kriging`` need no training images and give one estimate, K times.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkfill.data.images import Images, Mask, channels_of, of_values, size_words
from inkfill.errors import InputError, needed

Baseline = Callable[[Images, Images, Mask, int, np.random.Generator], Images]
Fill = Callable[[Images, Mask], NDArray[Any]]  # a channel [H, W] and what is missing of it, to the missing values
Floats = NDArray[np.float64]
OPENCV = ("uint8", "uint16", "float32")
MAX_PIXELS = 64 * 64  # of kriging, which inverts a matrix of pixels by pixels
FITTED_IMAGES, FITTED_PIXELS = 32, 100  # training images, and pixels of them, that a covariance is fitted to
SMOOTHNESS = (0.5, 1.5, 2.5)  # of the Matern covariances that are tried
NUGGET = 1e-8  # least variance of independent noise, as a fraction of the variance


def blank(images: Images, mask: Mask) -> Images:
    """The images with 0 where they are missing."""
    return np.where(of_values(mask, images), np.zeros((), images.dtype), images)


def put(found: Images, images: Images, mask: Mask) -> Images:
    """``found`` ``[N, K, ...]`` where pixels are missing, ``images`` elsewhere."""
    return np.where(of_values(mask, images)[:, None], found, images[:, None])


def cast(values: NDArray[Any], dtype: np.dtype) -> NDArray[Any]:
    """Real values in a dtype: rounded and clipped to it for integers and bool."""
    if dtype.kind == "f":
        return values.astype(dtype)
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return values.round().clip(low, high).astype(dtype)


def channels(images: Images) -> Iterator[Images]:
    """Views ``[H, W]`` of every channel of every image."""
    for image in images if images.ndim == 3 else np.moveaxis(images, -1, 1):
        yield from [image] if image.ndim == 2 else image


def by_channel(fill: Fill) -> Baseline:
    """The baseline that fills each channel with ``fill``; a channel without an observed pixel becomes 0."""

    def baseline(train: Images, images: Images, mask: Mask, k: int, rng: np.random.Generator) -> Images:
        filled, missing = blank(images, mask), of_values(mask, images) & np.ones(images.shape, bool)
        for channel, hole in zip(channels(filled), channels(missing), strict=True):
            if hole.any() and not hole.all():
                channel[hole] = cast(fill(*map(np.ascontiguousarray, (channel, hole))), images.dtype)
        return np.repeat(filled[:, None], k, 1)

    return baseline


def biharmonic(channel: Images, hole: Mask) -> Floats:
    """Biharmonic interpolation (scikit-image; Damelin and Hoang 2018)."""
    restoration = needed("skimage.restoration", "scikit-image")
    found: Floats = restoration.inpaint_biharmonic(channel.astype(np.float64), hole)[hole]
    return found


def opencv(algorithm: str) -> Fill:
    """OpenCV's ``inpaint`` with a radius of 3 pixels.

    Floats are filled with their observed range as 0 to 255: to each value Telea's algorithm adds a term of about 1.
    """

    def fill(channel: Images, hole: Mask) -> Images:
        cv2 = needed("cv2", "opencv-python-headless")
        if channel.dtype.name not in OPENCV:
            names = ", ".join(OPENCV)
            raise InputError(f"OpenCV fills no {channel.dtype} images, but {names}: leave out telea and navier-stokes")
        low, span = np.float32(0), np.float32(1)
        if channel.dtype == np.float32:
            low, span = channel[~hole].min(), np.ptp(channel[~hole]) / np.float32(255) or np.float32(1)
            channel = (channel - low) / span
        found: Images = cv2.inpaint(channel, hole.astype(np.uint8), 3, getattr(cv2, algorithm))
        return found[hole] * span + low

    return fill


def nearest_pixel(channel: Images, hole: Mask) -> Images:
    """The value of the nearest observed pixel (SciPy's ``griddata``)."""
    interpolate = needed("scipy.interpolate", "scipy")
    found: Images = interpolate.griddata(np.argwhere(~hole), channel[~hole], np.argwhere(hole), "nearest")
    return found


def linear(channel: Images, hole: Mask) -> Floats:
    """Linear interpolation on a Delaunay triangulation (SciPy's ``griddata``), nearest pixels outside the hull."""
    interpolate, spatial = needed("scipy.interpolate", "scipy"), needed("scipy.spatial", "scipy")
    near, values = nearest_pixel(channel, hole), channel[~hole].astype(np.float64)
    try:
        found = interpolate.griddata(np.argwhere(~hole), values, np.argwhere(hole), "linear")
    except spatial.QhullError:  # fewer than three observed pixels, or all on one line
        return near.astype(np.float64)
    return np.where(np.isnan(found), near, found)


def kriging(train: Images, images: Images, mask: Mask, k: int, rng: np.random.Generator) -> Images:
    """Samples of a Gaussian process with the training images' mean: simple kriging with conditional simulation.

    Each channel has a stationary Matern covariance with a nugget, whose parameters maximise the likelihood of training
    images (scikit-learn). Rasmussen and Williams 2006, eq. 2.19. Raises InputError for large images.
    """
    if images.shape[1] * images.shape[2] > MAX_PIXELS:
        raise InputError(f"kriging: images of {size_words(images)}: it takes at most {MAX_PIXELS} pixels: leave it out")
    if channels_of(train) != channels_of(images):
        raise InputError("kriging: training images and images have different channels: leave it out")
    filled, missing = blank(images, mask), np.broadcast_to(of_values(mask, images), images.shape)
    filled = np.repeat(filled[:, None], k, 1)
    planes, learnt, holes = (x if x.ndim == 4 else x[..., None] for x in (images, train, missing))
    drawn = filled if filled.ndim == 5 else filled[..., None]  # a view
    for c in range(planes.shape[-1]):
        mean, covariance = _covariance(learnt[..., c].astype(np.float64), images.shape[1:3], rng)
        patterns, number = np.unique(holes[..., c].reshape(len(images), -1), axis=0, return_inverse=True)
        for i, hole in enumerate(patterns):
            rows, here = np.flatnonzero(number == i), hole.reshape(images.shape[1:3])
            observed = planes[rows][..., c][:, ~here].astype(np.float64) - mean
            found = mean + _simulated(covariance, observed, hole, k, rng)
            for row, values in zip(rows, found, strict=True):
                drawn[row, ..., c][:, here] = cast(values, images.dtype)
    return filled


def _covariance(train: Floats, size: tuple[int, int], rng: np.random.Generator) -> tuple[float, Floats]:
    """The mean of training images, and the covariance of the pixels of an image ``size``, ``[H W, H W]``."""
    process = needed("sklearn.gaussian_process", "scikit-learn")
    kernels = process.kernels
    mean, variance = float(train.mean()), float(train.var()) or 1.0
    some = train[rng.permutation(len(train))[:FITTED_IMAGES]]
    pixels = rng.permutation(some[0].size)[:FITTED_PIXELS]
    places = np.stack(np.unravel_index(pixels, some.shape[1:]), -1).astype(np.float64)
    values = (some.reshape(len(some), -1)[:, pixels].T - mean) / variance**0.5
    fits = []
    for smoothness in SMOOTHNESS:
        matern = kernels.Matern(max(size) / 8, (0.1, 100.0 * max(size)), smoothness)
        kernel = kernels.ConstantKernel(1.0, (1e-3, 1e3)) * matern + kernels.WhiteKernel(0.01, (NUGGET, 10.0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of parameters at their bounds
            fits.append(process.GaussianProcessRegressor(kernel).fit(places, values))
    best = max(fits, key=lambda fit: fit.log_marginal_likelihood_value_)
    covariance: Floats = best.kernel_(np.indices(size).reshape(2, -1).T.astype(np.float64))
    return mean, variance * (covariance + NUGGET * np.eye(len(covariance)))


def _simulated(covariance: Floats, observed: Floats, hole: Mask, k: int, rng: np.random.Generator) -> Floats:
    """Samples ``[N, K, missing]`` of a centred Gaussian given its observed values ``[N, observed]``."""
    across = covariance[np.ix_(~hole, hole)]
    gain = np.linalg.solve(covariance[np.ix_(~hole, ~hole)], across)
    rest = covariance[np.ix_(hole, hole)] - across.T @ gain
    root = np.linalg.cholesky(rest + NUGGET * np.diag(covariance).mean() * np.eye(len(rest)))
    return (observed @ gain)[:, None] + rng.standard_normal((len(observed), k, len(rest))) @ root.T


SMOOTH: dict[str, Baseline] = {
    "biharmonic": by_channel(biharmonic),
    "telea": by_channel(opencv("INPAINT_TELEA")),  # fast marching (Telea 2004)
    "navier-stokes": by_channel(opencv("INPAINT_NS")),  # isophote continuation (Bertalmio et al. 2001)
    "linear": by_channel(linear),
    "nearest-pixel": by_channel(nearest_pixel),
}
