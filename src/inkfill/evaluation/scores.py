"""Scores of the samples of a cell: one row of the table."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkfill.core.rng import stream
from inkfill.data import Dataset, Images
from inkfill.data.images import BYTES, ValueRange
from inkfill.evaluation import metrics
from inkfill.evaluation.cells import Cell, Completed
from inkfill.evaluation.classifier import MASKED, WHOLE, Classifier, judge, load_classifier
from inkfill.tables import Columns

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
UNIT_COLUMNS = {"crps_units": ("CRPS (units)", "{:.4g}"), "crps_units_se": ("SE", "{:.2g}")}
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


def score(
    truth: Images,
    done: Completed,
    cell: Cell,
    labels: NDArray[np.integer] | None = None,
    judges: Judges | None = None,
    values: ValueRange = BYTES,
) -> dict[str, Any]:
    """One row of the table, NaN where a metric is undefined (CRPS for K = 1).

    Values are divided by the data range; ``crps_units`` is CRPS times the range. Every missing channel of a pixel
    counts as one value.
    """
    grey, drawn = planes(truth, done, values)
    row: dict[str, Any] = {**asdict(cell), "method": cell.name, "samples": done.filled.shape[1], "images": len(truth)}
    row |= _pixels(grey, drawn) | _calibration(grey, drawn, cell.seed)
    row |= {f"crps_units{end}": row[f"crps{end}"] * (values.high - values.low) for end in ("", "_se")}
    row |= {"evaluations": done.evaluations, "seconds": done.seconds, "machine": done.machine}
    if judges is not None and labels is not None:
        row |= _judged(truth, done, cell.seed, labels, judges)
    return row


def columns_for(values: ValueRange) -> Columns:
    """The columns of a table, with CRPS in the images' units where the data range is another than that of bytes."""
    if is_bytes(values):
        return COLUMNS
    first = {key: COLUMNS[key] for key in ("mask", "method", "evaluations", "crps", "crps_se")}
    return {**first, **UNIT_COLUMNS, **COLUMNS}


def is_bytes(values: ValueRange) -> bool:
    """Whether a data range is 0 to 255."""
    return (values.low, values.high) == (0, 255)


def intensities(images: Images, values: ValueRange) -> Images:
    """Images with the data range as [0, 1], float64; uint8 images of the range 0 to 255 stay as they are."""
    if images.dtype == np.uint8 and is_bytes(values):
        return images
    return (images.astype(np.float64) - values.low) / (values.high - values.low)


def planes(truth: Images, done: Completed, values: ValueRange) -> tuple[Images, Completed]:
    """Truth and samples as grey :func:`intensities`, the channels of an image one below another, and so the mask."""
    filled, mask = intensities(done.filled, values), done.mask
    if truth.ndim == 4:
        mask = mask if mask.ndim == 4 else np.repeat(mask[..., None], truth.shape[3], -1)
        truth, filled, mask = (np.concatenate(np.moveaxis(x, -1, 0), axis=-2) for x in (truth, filled, mask))
    return intensities(truth, values), replace(done, filled=filled, mask=mask)


def _pixels(truth: Images, done: Completed) -> dict[str, float]:
    """Scores over missing pixels."""
    given = truth, done.filled, done.mask
    crps, energy = metrics.crps(*given), metrics.energy_score(*given)
    return {
        "crps": metrics.mean(crps),
        "crps_se": metrics.standard_error(crps),
        "energy": metrics.mean(energy),
        "energy_se": metrics.standard_error(energy),
        "psnr_mean": metrics.psnr(metrics.mse_of_mean(*given)),
        "psnr_limit": metrics.psnr(metrics.mse_of_limit(*given)),
        "psnr_sample": metrics.psnr(metrics.mse_of_sample(*given)),
        "ssim": metrics.mean(metrics.ssim(*given)),
        "diversity": metrics.mean(metrics.diversity(done.filled, done.mask)),
    }


def _calibration(truth: Images, done: Completed, seed: int) -> dict[str, Any]:
    """Coverage of central intervals, over all missing pixels and over "uneven" ones.

    A pixel is even where the truth and all samples are equal, usually black: its coverage is ideal by construction.
    """
    filled, mask, rng = done.filled, done.mask, stream(seed, "bootstrap")
    uneven = mask & (filled != truth[:, None]).any(1)
    row: dict[str, Any] = {}
    for name, where in (("coverage", mask), ("uneven", uneven)):
        ranks = metrics.ranks(truth, filled, where, stream(seed, "ranks"))
        if name == "coverage":
            row["ranks"] = ranks.sum(0).tolist()
        for level in (50, 90):
            row[f"{name}{level}"], row[f"{name}{level}_se"] = _coverage(ranks, level / 100, rng)
    return row


def _coverage(ranks: NDArray[np.int64], level: float, rng: np.random.Generator) -> tuple[float, float]:
    """Coverage from the rank histograms of all images and its standard error; NaN for K = 1."""
    if ranks.shape[1] == 2 or not ranks.any():
        return float("nan"), float("nan")

    def covered(images: Any) -> float:
        return metrics.coverage(ranks[images].sum(0), level)

    return covered(slice(None)), metrics.bootstrap_error(covered, len(ranks), rng)


def _judged(truth: Images, done: Completed, seed: int, labels: NDArray[np.integer], judges: Judges) -> dict[str, float]:
    """Scores by the classifiers: labels; realism, for many images; label balance and novelty, where all is missing.

    The label posterior of the samples stands beside the probabilities of the masked classifier. Distances between
    samples, the first of each image, and training digits as sets stand beside those of real digits.
    """
    n, k = done.filled.shape[:2]
    odds, features = (
        each.reshape(n, k, -1) for each in judge(judges.whole, done.filled.reshape(n * k, *truth.shape[1:]))
    )
    drawn, features = done.filled[:, 0], features[:, 0]
    real_odds, real_features = judge(judges.whole, truth)
    masked = judge(judges.masked, truth, done.mask)[0].astype(np.float64)
    posterior = metrics.vote(odds)
    nll, masked_nll = (metrics.negative_log_likelihood(p, labels) for p in (posterior, masked))
    correct = posterior.argmax(1) == labels
    row = {
        "confident": metrics.confident(odds, CONFIDENT),
        "real_confident": metrics.confident(real_odds, CONFIDENT),
        "vote": float(correct.mean()),
        "vote_se": float(correct.std() / n**0.5),
        "nll": float(nll.mean()),
        "nll_se": metrics.standard_error(nll),
        "brier": float(metrics.brier(odds, labels).mean()) if k > 1 else float("nan"),
        "masked_vote": float((masked.argmax(1) == labels).mean()),
        "masked_nll": float(masked_nll.mean()),
        "masked_brier": float(((masked - np.eye(masked.shape[1])[labels]) ** 2).sum(1).mean()),
    }
    if n >= LEAST_IMAGES:
        some, rng = judges.features[:KERNEL_IMAGES], stream(seed, "realism")
        row |= {
            "frechet": metrics.frechet_distance(features, judges.features),
            "frechet_se": metrics.bootstrap_error(
                lambda i: metrics.frechet_distance(features[i], judges.features), n, rng, 20
            ),
            "frechet_floor": metrics.frechet_distance(real_features, judges.features),
            "kernel": metrics.kernel_distance(features, some),
            "kernel_floor": metrics.kernel_distance(real_features, some),
        }
    if done.mask.all():
        kinds = odds.shape[2]
        row |= {
            "imbalance": metrics.imbalance(odds[:, 0].argmax(1), kinds),
            "real_imbalance": metrics.imbalance(labels, kinds),
            "nearest": float(metrics.nearest_distance(drawn, judges.train).mean()),
            "real_nearest": float(metrics.nearest_distance(truth, judges.train).mean()),
        }
    return row
