"""Baselines without diffusion: the training mean, training images, interpolation, regressions of many kinds.

A baseline takes the training images, the masked images, their masks (True = missing), the number K of samples and a
generator. It returns ``[N, K, H, W]`` or ``[N, K, H, W, C]`` in the dtype of the images, observed pixels unchanged. It
never reads missing pixels.
"""

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from inkfill.core.denoiser import Observation
from inkfill.data import Images, ValueRange
from inkfill.data.images import Mask, natural_range, of_values, size_words
from inkfill.errors import InputError, needed
from inkfill.evaluation.analytic import EmpiricalPrior
from inkfill.evaluation.interpolation import SMOOTH, Baseline, cast, kriging, put
from inkfill.models.model import Model

ROWS = 64  # images compared with all training images at a time
BANDWIDTH = 2.0  # of the empirical prior, for intensities in [-1, 1]; chosen on validation digits
REGRESSION = "regression"  # the baseline that needs its own network
MAX_IMPUTED = 1024  # values of an image of the iterative imputer, which fits a regression for each
IMPUTED_IMAGES, IMPUTED_NEIGHBOURS, IMPUTED_ROUNDS = 1000, 16, 3  # training images, predictors of a value, rounds


def mean_image(train: Images, images: Images, mask: Mask, k: int, rng: np.random.Generator) -> Images:
    """The mean training image, K times. Raises InputError."""
    _check_size(train, images)
    mean = cast(train.mean(0), images.dtype)
    return put(np.broadcast_to(mean, (len(images), k, *mean.shape)), images, mask)


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
    values = ValueRange(*(natural_range(train.dtype) or _span(train)))
    prior, filled = EmpiricalPrior(values.to_x0(train), bandwidth), []
    for start in range(0, len(images), ROWS):
        rows = slice(start, start + ROWS)
        chosen = choose(prior.log_weights(_observation(images[rows], mask[rows], values)))
        filled.append(put(train[chosen], images[rows], mask[rows]))
    return np.concatenate(filled)


def _span(train: Images) -> tuple[float, float]:
    """The least and the largest value of training images, and one more where they are equal."""
    low, high = float(train.min()), float(train.max())
    return low, high if high > low else low + 1


def _check_size(train: Images, images: Images) -> None:
    if train.shape[1:] != images.shape[1:]:
        raise InputError(
            f"baselines: training images of {size_words(train)} do not fit images of {size_words(images)}: "
            "leave out mean, nearest, empirical and iterative-imputer"
        )


def iterative_imputer(train: Images, images: Images, mask: Mask, k: int, rng: np.random.Generator) -> Images:
    """Chained equations: K draws of scikit-learn's ``IterativeImputer`` on flattened images (van Buuren 2011).

    It learns from training images, complete ones and the same with the masks. Raises InputError for large images.
    """
    _check_size(train, images)
    if images[0].size > MAX_IMPUTED:
        raise InputError(f"iterative-imputer: {images[0].size} values an image, at most {MAX_IMPUTED}: leave it out")
    needed("sklearn.experimental.enable_iterative_imputer", "scikit-learn")  # its import makes the class available
    some = train[rng.permutation(len(train))[:IMPUTED_IMAGES]]
    hidden = np.broadcast_to(of_values(mask, images), images.shape)
    complete, torn = _rows(some, np.zeros(some.shape, bool)), _rows(some, np.resize(hidden, some.shape))
    low, high = _span(complete)
    imputer = needed("sklearn.impute", "scikit-learn").IterativeImputer(
        sample_posterior=True,
        max_iter=IMPUTED_ROUNDS,
        n_nearest_features=min(IMPUTED_NEIGHBOURS, complete.shape[1]),
        min_value=low,
        max_value=high,
        random_state=int(rng.integers(2**31)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a pixel of one value everywhere has no correlation with others
        imputer.fit(np.concatenate([complete, torn]))
        drawn = imputer.transform(np.repeat(_rows(images, hidden), k, 0))
    return put(cast(drawn, images.dtype).reshape(len(images), k, *images.shape[1:]), images, mask)


def _rows(images: Images, hidden: Mask) -> NDArray[np.float64]:
    """Images as rows of values, NaN where they are hidden."""
    return np.where(hidden, np.nan, images.astype(np.float64)).reshape(len(images), -1)


BASELINES: dict[str, Baseline] = {
    "mean": mean_image,
    "nearest": nearest,
    "empirical": empirical,
    **SMOOTH,
    "kriging": kriging,
    "iterative-imputer": iterative_imputer,
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
    return put(np.concatenate(parts)[:, None], images, mask)


def _observation(images: Images, mask: Mask, values: ValueRange) -> Observation:
    hidden = mask[:, None] if mask.ndim == 3 else np.moveaxis(mask, -1, 1)
    return Observation.of(values.to_x0(images), torch.from_numpy(np.ascontiguousarray(hidden)))
