"""Baselines without diffusion: the training mean, training images, smooth fills, and a regression network.

A baseline takes the training images, the masked images, their masks (True = missing), the number K of samples and a
generator. It returns ``[N, K, H, W]`` or ``[N, K, H, W, C]`` in the dtype of the images, observed pixels unchanged. It
never reads missing pixels.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from inkfill.core.denoiser import Observation
from inkfill.data import Images, ValueRange
from inkfill.data.images import channels_of, of_values, range_of, size_words
from inkfill.errors import InputError, needed
from inkfill.evaluation.analytic import EmpiricalPrior
from inkfill.models.model import Model

Mask = NDArray[np.bool_]
Baseline = Callable[[Images, Images, Mask, int, np.random.Generator], Images]
ROWS = 64  # images compared with all training images at a time
BANDWIDTH = 2.0  # of the empirical prior, for intensities in [-1, 1]; chosen on validation digits
REGRESSION = "regression"  # the baseline that needs its own network


def mean_image(train: Images, images: Images, mask: Mask, k: int, rng: np.random.Generator) -> Images:
    """The mean training image, K times. Raises InputError."""
    _check_size(train, images)
    mean = train.mean(0)
    mean = mean.round() if images.dtype.kind in "biu" else mean
    return _put(np.broadcast_to(mean.astype(images.dtype), (len(images), k, *mean.shape)), images, mask)


def nearest(train: Images, images: Images, mask: Mask, k: int, rng: np.random.Generator) -> Images:
    """The K training images nearest in the observed pixels. Raises InputError for fewer than K training images."""
    if k > len(train):
        raise InputError(f"nearest: {k} samples of {len(train)} training images: give fewer --samples")
    return _by_weight(train, images, mask, 1.0, lambda log_weights: log_weights.topk(k, 1).indices.numpy())


def empirical(
    train: Images, images: Images, mask: Mask, k: int, rng: np.random.Generator, bandwidth: float = BANDWIDTH
) -> Images:
    """Training images drawn by posterior weight under an :class:`EmpiricalPrior`, without its noise."""

    def drawn(log_weights: torch.Tensor) -> NDArray[np.int_]:
        weights = log_weights.double().exp().numpy()
        return np.stack([rng.choice(len(train), size=k, p=w / w.sum()) for w in weights])

    return _by_weight(train, images, mask, bandwidth, drawn)


def _by_weight(
    train: Images,
    images: Images,
    mask: Mask,
    bandwidth: float,
    choose: Callable[[torch.Tensor], NDArray[np.int_]],
) -> Images:
    """The training images that ``choose`` selects from their log posterior weights, ``[B, N]`` to ``[B, K]``."""
    _check_size(train, images)
    values = ValueRange(*range_of(train))
    prior, filled = EmpiricalPrior(values.to_x0(train), bandwidth), []
    for start in range(0, len(images), ROWS):
        rows = slice(start, start + ROWS)
        chosen = choose(prior.log_weights(_observation(images[rows], mask[rows], values)))
        filled.append(_put(train[chosen], images[rows], mask[rows]))
    return np.concatenate(filled)


def _check_size(train: Images, images: Images) -> None:
    if train.shape[1:] != images.shape[1:]:
        raise InputError(
            f"baselines: training images of {size_words(train)} do not fit images of {size_words(images)}: "
            "leave out mean, nearest and empirical"
        )


def biharmonic(train: Images, images: Images, mask: Mask, k: int, rng: np.random.Generator) -> Images:
    """Biharmonic interpolation, K times (scikit-image; Damelin and Hoang 2018). Raises InputError without it."""
    restoration = needed("skimage.restoration", "scikit-image")
    filled = np.where(of_values(mask, images), 0, images).astype(images.dtype)
    for image, hole in zip(filled, mask, strict=True):
        if hole.any() and not hole.all():
            channel = -1 if image.ndim == 3 else None
            found = restoration.inpaint_biharmonic(image.astype(np.float64), hole, channel_axis=channel)[hole]
            image[hole] = found.round() if images.dtype.kind in "iu" else found
    return np.repeat(filled[:, None], k, 1)


def opencv(algorithm: str) -> Baseline:
    """OpenCV's ``inpaint`` with a radius of 3 pixels, K times. Raises InputError for dtypes that it cannot fill."""

    def fill(train: Images, images: Images, mask: Mask, k: int, rng: np.random.Generator) -> Images:
        cv2 = needed("cv2", "opencv-python-headless")
        blank = np.where(of_values(mask, images), 0, images).astype(images.dtype)
        pairs = zip(blank, mask.astype(np.uint8), strict=True)
        try:
            found = np.stack([cv2.inpaint(image, hole, 3, getattr(cv2, algorithm)) for image, hole in pairs])
        except cv2.error:
            raise InputError(
                f"OpenCV cannot fill {images.dtype} images of {channels_of(images)} channels, but uint8 of 1 or 3, and "
                "uint16 and float32 of 1: leave out telea and navier-stokes"
            ) from None
        return np.repeat(_put(found.reshape(images.shape)[:, None], images, mask), k, 1)

    return fill


SMOOTH = ("biharmonic", "telea", "navier-stokes")  # baselines without training data
BASELINES: dict[str, Baseline] = {
    "mean": mean_image,
    "nearest": nearest,
    "empirical": empirical,
    "biharmonic": biharmonic,
    "telea": opencv("INPAINT_TELEA"),  # fast marching (Telea 2004)
    "navier-stokes": opencv("INPAINT_NS"),  # isophote continuation (Bertalmio et al. 2001)
}


def regress(model: Model, images: Images, mask: Mask, batch: int = 250) -> Images:
    """E[x0 given the observed pixels], by a network trained with the objective regression, ``[N, 1, ...]``.

    Its input is timestep T and zeros for x_t. Raises InputError for a network of another objective.
    """
    if model.recipe.objective != "regression":
        raise InputError(
            f"regression: this network was trained with the objective {model.recipe.objective}: "
            "train one with --objective regression"
        )
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), batch):
            here = _observation(images[start : start + batch], mask[start : start + batch], model.value_range)
            observation = Observation(here.pixels.to(model.device), here.known.to(model.device))
            x0_hat = model.predictor(observation)(torch.zeros_like(observation.pixels), model.schedule.T)
            values = replace(model.value_range, floor=0.0)  # a floor suits samples, not a mean
            parts.append(values.to_images(x0_hat, images))
    return _put(np.concatenate(parts)[:, None], images, mask)


def _observation(images: Images, mask: Mask, values: ValueRange) -> Observation:
    return Observation.of(values.to_x0(images), torch.from_numpy(np.ascontiguousarray(mask[:, None])))


def _put(found: Images, images: Images, mask: Mask) -> Images:
    """``found`` ``[N, K, ...]`` where pixels are missing, ``images`` elsewhere."""
    return np.where(of_values(mask, images)[:, None], found, images[:, None])
