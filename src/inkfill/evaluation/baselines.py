"""What the table of methods is read against: answers that need no diffusion.

Each takes the training images, the masked test images, their masks, the number of completions and a generator, and
gives ``[N, K, H, W]`` or ``[N, K, H, W, C]`` in the number type of the images, with known pixels as they were. Missing
pixels are blanked first, as for every method.
"""

import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inkfill.core.denoiser import Observation
from inkfill.data import Images, ValueRange
from inkfill.data.images import of_values, range_of, size_words
from inkfill.errors import InputError
from inkfill.evaluation.analytic import EmpiricalPrior
from inkfill.models.model import Model

Baseline = Callable[[Images, Images, NDArray[np.bool_], int, np.random.Generator], Images]
ROWS = 64  # images at a time against all training images
BANDWIDTH = 2.0  # of the empirical prior, intensities in [-1, 1], chosen on validation digits


def mean_image(train: Images, images: Images, mask: NDArray[np.bool_], k: int, rng: np.random.Generator) -> Images:
    """The mean training image, whatever is known: one answer, K times. Raises InputError."""
    _check_size(train, images)
    mean = train.mean(0)
    mean = (mean.round() if images.dtype.kind in "biu" else mean).astype(images.dtype)
    return np.repeat(_put(np.broadcast_to(mean, (len(images), 1, *mean.shape)), images, mask), k, 1)


def nearest(train: Images, images: Images, mask: NDArray[np.bool_], k: int, rng: np.random.Generator) -> Images:
    """The K training images that are closest on the known pixels. Raises InputError where there are fewer than K."""
    if k > len(train):
        raise InputError(f"there are {len(train)} training images: fewer than the {k} that are asked for")
    return _by_weight(train, images, mask, 1.0, lambda log_weights: log_weights.topk(k, 1).indices.numpy())


def empirical(
    train: Images,
    images: Images,
    mask: NDArray[np.bool_],
    k: int,
    rng: np.random.Generator,
    bandwidth: float = BANDWIDTH,
) -> Images:
    """Training images drawn by posterior weight, under a prior that knows them alone with a Gaussian around each.

    The images are put in without the Gaussian's noise, which no digit has.
    """

    def drawn(log_weights: torch.Tensor) -> NDArray[np.int_]:
        weights = log_weights.double().exp().numpy()
        return np.stack([rng.choice(len(train), size=k, p=w / w.sum()) for w in weights])

    return _by_weight(train, images, mask, bandwidth, drawn)


def _by_weight(
    train: Images,
    images: Images,
    mask: NDArray[np.bool_],
    bandwidth: float,
    choose: Callable[[torch.Tensor], NDArray[np.int_]],
) -> Images:
    """The training images that ``choose`` makes of the log of their posterior weights, ``[B, N]`` to ``[B, K]``."""
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
        raise InputError(f"training images of {size_words(train)} say nothing of others of {size_words(images)}")


def biharmonic(train: Images, images: Images, mask: NDArray[np.bool_], k: int, rng: np.random.Generator) -> Images:
    """The smoothest surface through the known pixels (scikit-image; Damelin and Hoang 2018): one answer, K times.

    What people would use who have no training images. Raises InputError without scikit-image.
    """
    restoration = _needed("skimage.restoration", "scikit-image")
    axis = -1 if images.ndim == 4 else None
    filled = images.copy()
    for out, image, hole in zip(filled, images, mask, strict=True):
        if hole.any() and not hole.all():
            blank = np.where(hole if axis is None else hole[..., None], 0, image).astype(np.float64)
            found = restoration.inpaint_biharmonic(blank, hole, channel_axis=axis)[hole]
            out[hole] = found.round() if images.dtype.kind in "iu" else found
        else:
            out[hole] = 0
    return np.repeat(filled[:, None], k, 1)


def _opencv(images: Images, mask: NDArray[np.bool_], k: int, algorithm: str) -> Images:
    """OpenCV's ``inpaint``, with a radius of 3 pixels. Raises InputError without OpenCV, or for other than bytes."""
    cv2 = _needed("cv2", "opencv-python-headless")
    if images.dtype != np.uint8 or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        raise InputError("OpenCV fills grey or colour of 8 bits: leave out telea and navier-stokes")
    blank = np.where(of_values(mask, images), 0, images).astype(np.uint8)
    pairs = zip(blank, mask.astype(np.uint8), strict=True)
    found = np.stack([cv2.inpaint(image, hole, 3, getattr(cv2, algorithm)) for image, hole in pairs])
    return np.repeat(_put(found.reshape(images.shape)[:, None], images, mask), k, 1)


def telea(train: Images, images: Images, mask: NDArray[np.bool_], k: int, rng: np.random.Generator) -> Images:
    """Fast marching from the edge of the hole (OpenCV; Telea 2004): one answer, K times."""
    return _opencv(images, mask, k, "INPAINT_TELEA")


def navier_stokes(train: Images, images: Images, mask: NDArray[np.bool_], k: int, rng: np.random.Generator) -> Images:
    """Lines of equal grey continued (OpenCV; Bertalmio et al. 2001): one answer, K times."""
    return _opencv(images, mask, k, "INPAINT_NS")


def _needed(module: str, package: str) -> Any:
    """A module of an optional package. Raises InputError without it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(f"this reference needs {package}: pip install {package}") from None


SMOOTH = ("biharmonic", "telea", "navier-stokes")  # what people would use without training
BASELINES: dict[str, Baseline] = {
    "mean": mean_image,
    "nearest": nearest,
    "empirical": empirical,
    "biharmonic": biharmonic,
    "telea": telea,
    "navier-stokes": navier_stokes,
}


def regress(model: Model, images: Images, mask: NDArray[np.bool_], batch: int = 250) -> Images:
    """One answer of a network trained by ``inkfill train --objective regression``: ``[N, 1, H, W]`` or with channels.

    It was shown level T and nothing of the clean image, so that its prediction is E[x0 given the known pixels].
    Raises InputError for a network trained for anything else.
    """
    if model.recipe.objective != "regression":
        raise InputError(
            f"this network was trained with the objective {model.recipe.objective}, and this needs regression"
        )
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), batch):
            seen = _observation(images[start : start + batch], mask[start : start + batch], model.value_range)
            observation = Observation(seen.pixels.to(model.device), seen.known.to(model.device))
            x0_hat = model.predictor(observation)(torch.zeros_like(observation.pixels), model.schedule.T)
            values = replace(model.value_range, floor=0.0)  # a mean has none
            parts.append(values.to_images(x0_hat, images))
    return _put(np.concatenate(parts)[:, None], images, mask)


def _observation(images: Images, mask: NDArray[np.bool_], values: ValueRange) -> Observation:
    return Observation.of(values.to_x0(images), torch.from_numpy(np.ascontiguousarray(mask[:, None])))


def _put(found: Images, images: Images, mask: NDArray[np.bool_]) -> Images:
    """What was found ``[N, K, ...]`` where pixels are missing, the images elsewhere."""
    return np.where(of_values(mask, images)[:, None], found, images[:, None])
