"""Scores of the samples of a cell: one row of the table."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkfill.core.rng import stream
from inkfill.data import Dataset, Images
from inkfill.data.images import BYTES, ValueRange, as_bytes
from inkfill.evaluation import metrics
from inkfill.evaluation.cells import Cell, Completed, complete
from inkfill.evaluation.classifier import MASKED, WHOLE, Classifier, judge, load_classifier
from inkfill.filling.inpaint import ignore
from inkfill.models.model import Model
from inkfill.progress import Progress

COLUMNS = {  # key in a row: heading, format
    "mask": ("mask", "{}"),
    "method": ("method", "{}"),
    "evaluations": ("NFE", "{:g}"),
    "crps": ("CRPS", "{:.4f}"),
    "crps_se": ("SE", "{:.4f}"),
    "energy": ("energy", "{:.4f}"),
    "coverage90": ("90 % coverage", "{:.3f}"),
    "psnr_mean": ("PSNR mean", "{:.2f}"),
    "psnr_sample": ("PSNR sample", "{:.2f}"),
    "seconds": ("core-s/sample", "{:.4f}"),
}
REALISM_COLUMNS = {
    "confident": ("confidence > 0.9", "{:.3f}"),
    "real_confident": ("real", "{:.3f}"),
    "frechet": ("Fréchet", "{:.2f}"),
    "frechet_floor": ("real", "{:.2f}"),
}
LABEL_COLUMNS = {
    "mask": ("mask", "{}"),
    "method": ("method", "{}"),
    "vote": ("majority label", "{:.3f}"),
    "masked_vote": ("masked classifier", "{:.3f}"),
    "nll": ("NLL", "{:.3f}"),
    "masked_nll": ("masked classifier", "{:.3f}"),
    "brier": ("Brier", "{:.3f}"),
    "masked_brier": ("masked classifier", "{:.3f}"),
    **REALISM_COLUMNS,
    "ssim": ("SSIM", "{:.3f}"),
    "diversity": ("diversity", "{:.3f}"),
}
NEW_COLUMNS = {  # of unconditional samples
    "method": ("method", "{}"),
    "evaluations": ("NFE", "{:g}"),
    **REALISM_COLUMNS,
    "kernel": ("MMD", "{:.4f}"),
    "kernel_floor": ("real", "{:.4f}"),
    "imbalance": ("imbalance", "{:.3f}"),
    "real_imbalance": ("real", "{:.3f}"),
    "nearest": ("nearest", "{:.3f}"),
    "real_nearest": ("real", "{:.3f}"),
}
CONFIDENT = 0.9  # classifier confidence that is counted
REFERENCE_IMAGES = 10_000  # training digits whose features are compared with those of samples
KERNEL_IMAGES = 2_000  # of these, for the kernel distance, which needs a table of all pairs
LEAST_IMAGES = 200  # with fewer, the Fréchet distance of real images exceeds the differences to be measured


@dataclass(frozen=True)
class Judges:
    """The two classifiers, the training digits, and the features of the first ``REFERENCE_IMAGES`` of them."""

    whole: Classifier
    masked: Classifier
    features: NDArray[np.float32]
    train: Images

    @classmethod
    def of(cls, dataset: Dataset) -> "Judges | None":
        """The shipped classifiers if they were trained on this data set, else None."""
        whole = load_classifier(WHOLE)
        if whole.data_hash != dataset.fingerprint:
            return None
        return cls(whole, load_classifier(MASKED), judge(whole, dataset.train[:REFERENCE_IMAGES])[1], dataset.train)


@dataclass(frozen=True)
class _Judged:
    """Output of the classifier of whole digits for samples and truth."""

    odds: NDArray[np.float32]  # label probabilities of the samples, [N, K, 10]
    features: NDArray[np.float32]  # of the first sample of each image, [N, 128]
    real_odds: NDArray[np.float32]  # label probabilities of the truth, [N, 10]
    real_features: NDArray[np.float32]  # [N, 128]

    @classmethod
    def of(cls, truth: Images, filled: Images, judges: Judges) -> "_Judged":
        odds, features = judge(judges.whole, filled.reshape(-1, *filled.shape[2:]))
        n, k = filled.shape[:2]
        return cls(odds.reshape(n, k, -1), features.reshape(n, k, -1)[:, 0], *judge(judges.whole, truth))


def score(
    truth: Images,
    done: Completed,
    cell: Cell,
    labels: NDArray[np.integer] | None = None,
    judges: Judges | None = None,
    values: ValueRange = BYTES,
) -> dict[str, Any]:
    """One row of the table, NaN where a metric is undefined (CRPS for K = 1).

    Images of other dtypes are rounded to bytes first. Every channel of a missing pixel counts as one value.
    """
    truth, done = planes(truth, done, values)
    row: dict[str, Any] = {**asdict(cell), "samples": done.filled.shape[1], "images": len(truth)}
    row |= _pixels(truth, done) | _calibration(truth, done, cell.seed)
    row |= {"evaluations": done.evaluations, "seconds": done.seconds, "machine": done.machine}
    if judges is None or labels is None:
        return row
    judged = _Judged.of(truth, done.filled, judges)
    row |= _labels(judged, labels, judge(judges.masked, truth, done.mask)[0]) | _realism(judged, cell.seed, judges)
    return row | _generation(truth, done, judged, labels, judges) if done.mask.all() else row


def planes(truth: Images, done: Completed, values: ValueRange) -> tuple[Images, Completed]:
    """Truth and samples as grey bytes, the channels of a colour image one below another."""
    truth, filled, mask = as_bytes(truth, values), as_bytes(done.filled, values), done.mask
    if truth.ndim == 4:
        channels = truth.shape[3]
        truth, filled = (np.concatenate(np.moveaxis(x, -1, 0), axis=-2) for x in (truth, filled))
        mask = np.concatenate([mask] * channels, axis=-2)
    return truth, replace(done, filled=filled, mask=mask)


def _pixels(truth: Images, done: Completed) -> dict[str, float]:
    """Scores over missing pixels."""
    given = truth, done.filled, done.mask
    nan, holes = float("nan"), bool(done.mask.any())
    several = done.filled.shape[1] > 1 and holes
    crps, energy = metrics.crps(*given), metrics.energy_score(*given)
    return {
        "crps": float(np.nanmean(crps)) if several else nan,
        "crps_se": metrics.standard_error(crps),
        "energy": float(np.nanmean(energy)) if several else nan,
        "energy_se": metrics.standard_error(energy),
        "psnr_mean": metrics.psnr(metrics.mse_of_mean(*given)) if holes else float("inf"),
        "psnr_limit": metrics.psnr(metrics.mse_of_limit(*given)) if several else nan,
        "psnr_sample": metrics.psnr(metrics.mse_of_sample(*given)) if holes else float("inf"),
        "ssim": float(np.nanmean(metrics.ssim(*given))) if holes else 1.0,
        "diversity": float(np.nanmean(metrics.diversity(done.filled, done.mask))) if several else nan,
    }


def _calibration(truth: Images, done: Completed, seed: int) -> dict[str, Any]:
    """Coverage of central intervals, over all missing pixels and over "uneven" ones.

    A pixel is even where the truth and all samples are equal, usually black: its coverage is ideal by construction.
    """
    filled, mask = done.filled, done.mask
    several, rng = filled.shape[1] > 1 and bool(mask.any()), stream(seed, "bootstrap")
    uneven = mask & (filled != truth[:, None]).any(1)
    row: dict[str, Any] = {}
    for name, where in (("coverage", mask), ("uneven", uneven)):
        ranks = metrics.ranks(truth, filled, where, stream(seed, "ranks"))
        if name == "coverage":
            row["ranks"] = ranks.sum(0).tolist()
        for level in (0.5, 0.9):
            key, measured = f"{name}{level * 100:.0f}", several and bool(ranks.any())
            row[key] = metrics.coverage(ranks.sum(0), level) if measured else float("nan")
            row[f"{key}_se"] = _coverage_error(ranks, level, rng) if measured else float("nan")
    return row


def _coverage_error(ranks: NDArray[np.int64], level: float, rng: np.random.Generator) -> float:
    return metrics.bootstrap_error(lambda i: metrics.coverage(ranks[i].sum(0), level), len(ranks), rng)


def _labels(judged: _Judged, labels: NDArray[np.integer], masked: NDArray[np.float32]) -> dict[str, float]:
    """Label posterior of the samples beside the probabilities ``masked`` of the masked classifier, ``[N, 10]``."""
    odds, masked = judged.odds, masked.astype(np.float64)
    posterior = metrics.vote(odds)
    nll, masked_nll = (metrics.negative_log_likelihood(p, labels) for p in (posterior, masked))
    correct = posterior.argmax(1) == labels
    return {
        "confident": metrics.confident(odds, CONFIDENT),
        "real_confident": metrics.confident(judged.real_odds, CONFIDENT),
        "vote": float(correct.mean()),
        "vote_se": float(correct.std() / len(labels) ** 0.5),
        "nll": float(nll.mean()),
        "nll_se": metrics.standard_error(nll),
        "brier": float(metrics.brier(odds, labels).mean()) if odds.shape[1] > 1 else float("nan"),
        "calibration": metrics.calibration_error(posterior, labels),
        "masked_vote": float((masked.argmax(1) == labels).mean()),
        "masked_nll": float(masked_nll.mean()),
        "masked_brier": float(((masked - np.eye(masked.shape[1])[labels]) ** 2).sum(1).mean()),
    }


def _realism(judged: _Judged, seed: int, judges: Judges) -> dict[str, float]:
    """Distances between samples and training digits as sets, with those of real digits; empty for few images."""
    features, real = judged.features, judged.real_features
    if len(real) < LEAST_IMAGES:
        return {}
    some, rng = judges.features[:KERNEL_IMAGES], stream(seed, "realism")
    return {
        "frechet": metrics.frechet_distance(features, judges.features),
        "frechet_se": metrics.bootstrap_error(
            lambda i: metrics.frechet_distance(features[i], judges.features), len(features), rng, 20
        ),
        "frechet_floor": metrics.frechet_distance(real, judges.features),
        "kernel": metrics.kernel_distance(features, some),
        "kernel_floor": metrics.kernel_distance(real, some),
    }


def _generation(
    truth: Images, done: Completed, judged: _Judged, labels: NDArray[np.integer], judges: Judges
) -> dict[str, float]:
    """Label balance and novelty of unconditional samples, the first of each image, beside those of real images."""
    drawn, odds = done.filled[:, 0], judged.odds[:, 0]
    kinds = odds.shape[1]
    return {
        "imbalance": metrics.imbalance(odds.argmax(1), kinds),
        "real_imbalance": metrics.imbalance(labels, kinds),
        "nearest": float(metrics.nearest_distance(drawn, judges.train).mean()),
        "real_nearest": float(metrics.nearest_distance(truth, judges.train).mean()),
    }


def evaluate(model: Model, images: Images, cell: Cell, progress: Progress = ignore) -> dict[str, Any]:
    """Draw the samples of a cell and score them, without labels. Raises InputError."""
    return score(images, complete(model, images, cell, progress=progress), cell, values=model.value_range)
