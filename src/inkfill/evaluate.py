"""Evaluation on held-out images: complete them, compare them with what was hidden, write down everything.

Generation is separated from scoring by files: completions of a cell (one mask, one method, one number of steps) are
kept beside what they cost, so that an evaluation that was stopped goes on, and a new measure needs no new completions.
"""

import hashlib
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from inkfill import defaults, metrics
from inkfill.checkpoint import read_weights, written_whole
from inkfill.classifier import FORMAT, MASKED, WHOLE, Classifier, judge, load_classifier
from inkfill.data import Dataset, Images
from inkfill.denoiser import Model
from inkfill.errors import InputError
from inkfill.inpainting import METHODS, fit_mask, inpaint
from inkfill.processes import Processes
from inkfill.references import REFERENCES, regress
from inkfill.rng import stream

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
    "frechet": ("Frechet", "{:.2f}"),
    "frechet_floor": ("floor", "{:.2f}"),
    "ssim": ("SSIM", "{:.3f}"),
    "diversity": ("diversity", "{:.3f}"),
}
REFERENCE_IMAGES = 10_000  # training digits that features of completions are compared with
KERNEL_IMAGES = 2_000  # of them for the kernel distance, which takes a table of all pairs


@dataclass(frozen=True)
class Cell:
    """One mask, one method, and how it is run."""

    mask: str
    method: str = defaults.METHOD
    steps: int = defaults.STEPS
    samples: int = defaults.SAMPLES
    seed: int = 0
    sampler: str = defaults.SAMPLER


@dataclass(frozen=True)
class Judges:
    """The classifiers, and the features of training digits that those of completions are compared with."""

    whole: Classifier
    masked: Classifier
    features: NDArray[np.float32]

    @classmethod
    def of(cls, dataset: Dataset) -> "Judges | None":
        """The shipped classifiers, for the data that they were trained on; None for others."""
        _, about = read_weights(WHOLE, FORMAT)
        if about["recipe"]["data_hash"] != dataset.fingerprint():
            return None
        whole = load_classifier(WHOLE)
        return cls(whole, load_classifier(MASKED), judge(whole, dataset.train[:REFERENCE_IMAGES])[1])


# ---- completions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Completed:
    """Completions of a cell, uint8 ``[N, K, H, W]``, their mask, what they cost, and on which machine."""

    filled: Images
    mask: NDArray[np.bool_]
    evaluations: float  # of the network, per completion
    seconds: float  # core-seconds per completion
    machine: str = ""


ALONE = Processes(0, 1, torch.device("cpu"))


def complete(
    model: Model,
    images: Images,
    cell: Cell,
    train: Images | None = None,
    regression: Model | None = None,
    here: Processes = ALONE,
    progress: Callable[[int], object] | None = None,
) -> Completed:
    """Run a cell. Diffusion methods are shared by the processes, each a run of images; how many there are changes the
    result by rounding alone. References need ``train``, ``regression`` a network trained for it. Raises InputError.
    """
    mask = fit_mask(cell.mask, images, cell.seed)
    samples, evaluations, began = cell.samples, 0.0, time.perf_counter()
    if cell.method in REFERENCES:
        if train is None:
            raise InputError(f"{cell.method} needs training images")
        filled = REFERENCES[cell.method](train, images, mask, samples, stream(cell.seed, cell.method))
        cores = torch.get_num_threads()
    elif cell.method == "regression":
        if regression is None:
            raise InputError(
                "regression needs a network of its own: train one with inkfill train --objective regression"
            )
        filled, samples, evaluations = regress(regression, images, mask), 1, 1.0
        cores = torch.get_num_threads()
    else:
        if len(images) < here.world:
            raise InputError(f"{len(images)} images cannot be shared by {here.world} processes")
        edges = [len(images) * rank // here.world for rank in range(here.world + 1)]
        part = slice(edges[here.rank], edges[here.rank + 1])
        before = model.evaluations
        settings = (samples, cell.method, cell.steps, cell.seed, cell.sampler)
        filled = inpaint(model, images[part], mask[part], *settings, progress=progress, first=part.start)
        spent = here.total(model.evaluations - before)
        if here.world > 1:
            parts: list[Images] = [filled] * here.world
            dist.all_gather_object(parts, filled)
            filled = np.concatenate(parts)
        evaluations, cores = spent / (len(images) * samples), torch.get_num_threads() * here.world
    seconds = (time.perf_counter() - began) * cores / (len(images) * samples)
    where = machine(model)
    said = f"{where['device']}, {where['threads']} threads x {here.world}, {where['dtype']}, torch {where['torch']}"
    return Completed(filled, mask, evaluations, seconds, said)


def code_hash() -> str:
    """Hash of the code that completions depend on: a change to it makes them anew."""
    names = (
        "data",
        "denoiser",
        "inpainting",
        "masks",
        "oracle",
        "references",
        "rng",
        "samplers",
        "schedule",
        "smc",
        "unet",
    )
    files = [Path(__file__).with_name(f"{name}.py") for name in names]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def kept(
    folder: Path, cell: Cell, about: dict[str, str], run: Callable[[], Completed], here: Processes = ALONE
) -> Completed:
    """The completions of a cell from its file in ``folder``, or from ``run``, and then kept there.

    ``about`` (hashes of data and weights, the precision) and the hash of the code are part of the file's name: what
    other weights made, or an earlier form of a method, is never found.
    """
    identity = [asdict(cell), about, code_hash()]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    name = "".join(c if c.isalnum() or c in ".-" else "-" for c in f"{cell.mask}_{cell.method}_{cell.steps}")
    path = folder / "cells" / f"{name[:80]}-{digest}.npz"
    if here.leads(path.exists()):
        with np.load(path) as file:
            evaluations, seconds = file["cost"]
            return Completed(file["filled"], file["mask"], float(evaluations), float(seconds), str(file["machine"]))
    done = run()
    if here.rank == 0:
        with written_whole(path) as temporary, temporary.open("wb") as file:
            cost, machine = np.array([done.evaluations, done.seconds]), np.array(done.machine)
            np.savez_compressed(file, filled=done.filled, mask=done.mask, cost=cost, machine=machine)
    return done


# ---- scores ----------------------------------------------------------------------------------------------------------


def score(
    truth: Images, done: Completed, cell: Cell, labels: NDArray[np.integer] | None = None, judges: Judges | None = None
) -> dict[str, Any]:
    """One row of the table. NaN where a measure has no meaning: CRPS of one completion, PSNR of nothing missing."""
    filled, mask = done.filled, done.mask
    nan, k = float("nan"), filled.shape[1]
    several, holes = k > 1 and bool(mask.any()), bool(mask.any())
    crps, energy = metrics.crps(truth, filled, mask), metrics.energy_score(truth, filled, mask)
    ranks = metrics.ranks(truth, filled, mask, stream(cell.seed, "ranks"))
    # Where the truth and all completions are equal, nearly always black, coverage is right whatever the network does.
    uneven = mask & (filled != truth[:, None]).any(1)
    hard = metrics.ranks(truth, filled, uneven, stream(cell.seed, "ranks"))
    rng = stream(cell.seed, "bootstrap")

    def covers(name: str, ranks: NDArray[np.int64], level: float) -> dict[str, float]:
        if not (several and ranks.any()):
            return {name: nan, f"{name}_se": nan}
        error = metrics.bootstrap_error(lambda i: metrics.coverage(ranks[i].sum(0), level), len(truth), rng)
        return {name: metrics.coverage(ranks.sum(0), level), f"{name}_se": error}

    row: dict[str, Any] = {**asdict(cell), "samples": k, "images": len(truth)}
    row |= {
        "crps": float(np.nanmean(crps)) if several else nan,
        "crps_se": metrics.standard_error(crps),
        "energy": float(np.nanmean(energy)) if several else nan,
        "energy_se": metrics.standard_error(energy),
        **covers("coverage50", ranks, 0.5),
        **covers("coverage90", ranks, 0.9),
        **covers("uneven50", hard, 0.5),
        **covers("uneven90", hard, 0.9),
        "ranks": ranks.sum(0).tolist(),
        "psnr_mean": metrics.psnr(metrics.mse_of_mean(truth, filled, mask)) if holes else float("inf"),
        "psnr_limit": metrics.psnr(metrics.mse_of_limit(truth, filled, mask)) if several else nan,
        "psnr_sample": metrics.psnr(metrics.mse_of_sample(truth, filled, mask)) if holes else float("inf"),
        "ssim": float(np.nanmean(metrics.ssim(truth, filled, mask))) if holes else 1.0,
        "diversity": float(np.nanmean(metrics.diversity(filled, mask))) if several else nan,
        "evaluations": done.evaluations,
        "seconds": done.seconds,
        "machine": done.machine,
    }
    if judges is None or labels is None:
        return row
    found, features = judge(judges.whole, filled.reshape(-1, *filled.shape[2:]))
    found = found.reshape(*filled.shape[:2], -1)
    features = features.reshape(*filled.shape[:2], -1)[:, 0]  # one completion an image: as many as there are truths
    posterior, known = metrics.vote(found), judge(judges.masked, truth, mask)[0].astype(np.float64)
    real = judge(judges.whole, truth)[1]
    nll, known_nll = (metrics.negative_log_likelihood(p, labels) for p in (posterior, known))
    row |= {
        "vote": float((posterior.argmax(1) == labels).mean()),
        "vote_se": float((posterior.argmax(1) == labels).std() / len(labels) ** 0.5),
        "nll": float(nll.mean()),
        "nll_se": metrics.standard_error(nll),
        "brier": float(metrics.brier(found, labels).mean()) if k > 1 else nan,
        "calibration": metrics.calibration_error(posterior, labels),
        "masked_vote": float((known.argmax(1) == labels).mean()),
        "masked_nll": float(known_nll.mean()),
        "masked_brier": float(((known - np.eye(known.shape[1])[labels]) ** 2).sum(1).mean()),
        "frechet": metrics.frechet_distance(features, judges.features),
        "frechet_se": metrics.bootstrap_error(
            lambda i: metrics.frechet_distance(features[i], judges.features), len(features), rng, 20
        ),
        "frechet_floor": metrics.frechet_distance(real, judges.features),
        "kernel": metrics.kernel_distance(features, judges.features[:KERNEL_IMAGES]),
        "kernel_floor": metrics.kernel_distance(real, judges.features[:KERNEL_IMAGES]),
    }
    return row


def evaluate(
    model: Model, images: Images, cell: Cell, progress: Callable[[int], object] | None = None
) -> dict[str, Any]:
    """One row of the table, without labels: complete, then score."""
    return score(images, complete(model, images, cell, progress=progress), cell)


def strict_json(value: Any) -> Any:
    """The same with null for NaN and infinity, which JSON does not know."""
    if isinstance(value, dict):
        return {key: strict_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [strict_json(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def check_method(name: str) -> None:
    """Raise InputError for what is neither a method nor a reference."""
    allowed = (*METHODS, *REFERENCES, "regression")
    if name not in allowed:
        raise InputError(f"unknown method {name!r}: choose from {', '.join(allowed)}")


# ---- words -----------------------------------------------------------------------------------------------------------


def table(rows: list[dict[str, Any]], columns: dict[str, tuple[str, str]] = COLUMNS) -> str:
    """The rows as aligned text that is also a Markdown table. What was not measured is left out of its cell."""
    cells = [[heading for heading, _ in columns.values()]]
    cells += [[_cell(row.get(key), form) for key, (_, form) in columns.items()] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    left = sum(form == "{}" for _, form in columns.values())  # words to the left, numbers to the right
    lines = [
        "| "
        + " | ".join(c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(x, widths, strict=True)))
        + " |"
        for x in cells
    ]
    rule = "|" + "|".join("-" * (w + 1) + ("-" if i < left else ":") for i, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _cell(value: Any, form: str) -> str:
    return "" if value is None or (isinstance(value, float) and np.isnan(value)) else form.format(value)


def machine(model: Model) -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": platform.processor() or platform.machine(),
        "device": str(model.device) if model.device.type == "cpu" else torch.cuda.get_device_name(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }
