"""How good the completions of a cell are: one row of the table."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkfill.core.rng import stream
from inkfill.data import Dataset, Images
from inkfill.data.images import BYTES, ValueRange, as_bytes
from inkfill.evaluation import metrics
from inkfill.evaluation.cells import Cell, Completed, complete
from inkfill.evaluation.classifier import MASKED, WHOLE, Classifier, about_classifier, judge, load_classifier
from inkfill.filling.inpaint import ignore
from inkfill.models.model import Model
from inkfill.progress import Progress

COLUMNS = {  # key in a row: heading, format
    "mask": ("mask", "{}"),
    "method": ("method", "{}"),
    "evaluations": ("nfe", "{:g}"),
    "crps": ("CRPS", "{:.4f}"),
    "crps_se": ("+-", "{:.4f}"),
    "energy": ("energy", "{:.4f}"),
    "coverage90": ("90 % covers", "{:.3f}"),
    "psnr_mean": ("PSNR mean", "{:.2f}"),
    "psnr_sample": ("PSNR sample", "{:.2f}"),
    "seconds": ("core-s each", "{:.4f}"),
}
LABEL_COLUMNS = {
    "mask": ("mask", "{}"),
    "method": ("method", "{}"),
    "vote": ("vote right", "{:.3f}"),
    "masked_vote": ("yardstick", "{:.3f}"),
    "nll": ("NLL", "{:.3f}"),
    "masked_nll": ("yardstick", "{:.3f}"),
    "brier": ("Brier", "{:.3f}"),
    "masked_brier": ("yardstick", "{:.3f}"),
    "confident": ("confident", "{:.3f}"),
    "real_confident": ("real", "{:.3f}"),
    "frechet": ("Frechet", "{:.2f}"),
    "frechet_floor": ("floor", "{:.2f}"),
    "ssim": ("SSIM", "{:.3f}"),
    "diversity": ("diversity", "{:.3f}"),
}
NEW_COLUMNS = {  # of images from nothing
    "method": ("method", "{}"),
    "evaluations": ("nfe", "{:g}"),
    "confident": ("confident", "{:.3f}"),
    "real_confident": ("real", "{:.3f}"),
    "frechet": ("Frechet", "{:.2f}"),
    "frechet_floor": ("floor", "{:.2f}"),
    "kernel": ("kernel", "{:.4f}"),
    "kernel_floor": ("floor", "{:.4f}"),
    "imbalance": ("imbalance", "{:.3f}"),
    "real_imbalance": ("real", "{:.3f}"),
    "nearest": ("nearest", "{:.3f}"),
    "real_nearest": ("real", "{:.3f}"),
}
CONFIDENT = 0.9  # probability from which on a classifier reads a digit without doubt
REFERENCE_IMAGES = 10_000  # training digits that features of completions are compared with
KERNEL_IMAGES = 2_000  # of them for the kernel distance, which takes a table of all pairs
LEAST_IMAGES = 200  # a Frechet distance between fewer has no meaning: its floor is larger than what it measures


@dataclass(frozen=True)
class Judges:
    """The classifiers, and the training digits, with the features that those of completions are compared with."""

    whole: Classifier
    masked: Classifier
    features: NDArray[np.float32]
    train: Images

    @classmethod
    def of(cls, dataset: Dataset) -> "Judges | None":
        """The shipped classifiers, for the data that they were trained on; None for others."""
        if about_classifier(WHOLE).get("data_hash") != dataset.fingerprint:
            return None
        whole = load_classifier(WHOLE)
        return cls(whole, load_classifier(MASKED), judge(whole, dataset.train[:REFERENCE_IMAGES])[1], dataset.train)


@dataclass(frozen=True)
class _Judged:
    """What the classifier of whole digits says of completions and of the truth."""

    found: NDArray[np.float32]  # label probabilities of the completions, [N, K, 10]
    features: NDArray[np.float32]  # of one completion an image, as many as there are truths, [N, 128]
    real: NDArray[np.float32]  # label probabilities of the truth, [N, 10]
    real_features: NDArray[np.float32]  # [N, 128]

    @classmethod
    def of(cls, truth: Images, filled: Images, judges: Judges) -> "_Judged":
        found, features = judge(judges.whole, filled.reshape(-1, *filled.shape[2:]))
        n, k = filled.shape[:2]
        return cls(found.reshape(n, k, -1), features.reshape(n, k, -1)[:, 0], *judge(judges.whole, truth))


def score(
    truth: Images,
    done: Completed,
    cell: Cell,
    labels: NDArray[np.integer] | None = None,
    judges: Judges | None = None,
    values: ValueRange = BYTES,
) -> dict[str, Any]:
    """One row of the table. NaN where a measure has no meaning: CRPS of one completion, PSNR of nothing missing.

    Colour counts by values: every channel of a missing pixel. Other number types are rounded to bytes first.
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
    """Truth and completions as grey bytes; the channels of colour become planes one under another."""
    truth, filled, mask = as_bytes(truth, values), as_bytes(done.filled, values), done.mask
    if truth.ndim == 4:
        channels = truth.shape[3]
        truth, filled = (np.concatenate(np.moveaxis(x, -1, 0), axis=-2) for x in (truth, filled))
        mask = np.concatenate([mask] * channels, axis=-2)
    return truth, replace(done, filled=filled, mask=mask)


def _pixels(truth: Images, done: Completed) -> dict[str, float]:
    """Scores over missing pixels."""
    filled, mask = done.filled, done.mask
    nan, holes = float("nan"), bool(mask.any())
    several = filled.shape[1] > 1 and holes
    crps, energy = metrics.crps(truth, filled, mask), metrics.energy_score(truth, filled, mask)
    return {
        "crps": float(np.nanmean(crps)) if several else nan,
        "crps_se": metrics.standard_error(crps),
        "energy": float(np.nanmean(energy)) if several else nan,
        "energy_se": metrics.standard_error(energy),
        "psnr_mean": metrics.psnr(metrics.mse_of_mean(truth, filled, mask)) if holes else float("inf"),
        "psnr_limit": metrics.psnr(metrics.mse_of_limit(truth, filled, mask)) if several else nan,
        "psnr_sample": metrics.psnr(metrics.mse_of_sample(truth, filled, mask)) if holes else float("inf"),
        "ssim": float(np.nanmean(metrics.ssim(truth, filled, mask))) if holes else 1.0,
        "diversity": float(np.nanmean(metrics.diversity(filled, mask))) if several else nan,
    }


def _calibration(truth: Images, done: Completed, seed: int) -> dict[str, Any]:
    """How often central intervals hold the truth, of all missing pixels and of those that are not even.

    Where the truth and all completions are equal, nearly always black, coverage is right whatever the network does.
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


def _labels(judged: _Judged, labels: NDArray[np.integer], known: NDArray[np.float32]) -> dict[str, float]:
    """What the completions say about the label, beside the classifier that was trained on masked digits, whose
    probabilities are ``known``."""
    found, known = judged.found, known.astype(np.float64)
    posterior = metrics.vote(found)
    nll, known_nll = (metrics.negative_log_likelihood(p, labels) for p in (posterior, known))
    right = posterior.argmax(1) == labels
    return {
        "confident": metrics.confident(found, CONFIDENT),
        "real_confident": metrics.confident(judged.real, CONFIDENT),
        "vote": float(right.mean()),
        "vote_se": float(right.std() / len(labels) ** 0.5),
        "nll": float(nll.mean()),
        "nll_se": metrics.standard_error(nll),
        "brier": float(metrics.brier(found, labels).mean()) if found.shape[1] > 1 else float("nan"),
        "calibration": metrics.calibration_error(posterior, labels),
        "masked_vote": float((known.argmax(1) == labels).mean()),
        "masked_nll": float(known_nll.mean()),
        "masked_brier": float(((known - np.eye(known.shape[1])[labels]) ** 2).sum(1).mean()),
    }


def _realism(judged: _Judged, seed: int, judges: Judges) -> dict[str, float]:
    """Distances between completions and training digits as sets; nothing for too few images."""
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
    """Of images from nothing, one for each of the real ones: how even their labels are, and how new they are.

    The imbalance is how far their labels are from equally many of each. The distance to the nearest training image,
    beside that of real images, shows what is learnt by heart.
    """
    drawn, found = done.filled[:, 0], judged.found[:, 0]
    kinds = found.shape[1]
    return {
        "imbalance": metrics.imbalance(found.argmax(1), kinds),
        "real_imbalance": metrics.imbalance(labels, kinds),
        "nearest": float(metrics.nearest_distance(drawn, judges.train).mean()),
        "real_nearest": float(metrics.nearest_distance(truth, judges.train).mean()),
    }


def evaluate(model: Model, images: Images, cell: Cell, progress: Progress = ignore) -> dict[str, Any]:
    """One row of the table, without labels: complete, then score. Raises InputError."""
    return score(images, complete(model, images, cell, progress=progress), cell, values=model.value_range)
