"""An evaluation from start to end: which cells, their completions, their scores, and what they were measured on."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inkfill import defaults
from inkfill.data import Dataset, Images, ValueRange
from inkfill.data.images import array_hash
from inkfill.errors import InputError
from inkfill.evaluation import metrics
from inkfill.evaluation.baselines import BASELINES, SMOOTH
from inkfill.evaluation.cells import Cell, Completed, complete, kept, machine
from inkfill.evaluation.scores import Judges, score
from inkfill.files import file_hash, locked, write_json
from inkfill.methods import METHODS
from inkfill.models.checkpoint import find_checkpoint
from inkfill.models.model import Model, load
from inkfill.processes import ALONE, Processes
from inkfill.progress import Bar, Progress, no_bar

COPIED = 0.5  # how near to training images completions can be, of how near true images are, before it is said


@dataclass(frozen=True)
class Result:
    """A cell with its completions and its row of scores."""

    cell: Cell
    done: Completed
    row: dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """All results, and what they were measured on."""

    images: Images
    results: list[Result]
    about: dict[str, Any]  # provenance, as results.json has it
    summary: str  # the same in a line
    values: ValueRange  # what black and white are

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The table."""
        return [result.row for result in self.results]

    @property
    def labelled(self) -> bool:
        """Whether the rows have scores of labels."""
        return bool(self.rows) and "vote" in self.rows[0]

    @property
    def generated(self) -> list[dict[str, Any]]:
        """The rows of images from nothing that have labels: those of the mask ``all``."""
        return [row for row in self.rows if "imbalance" in row]

    @property
    def advice(self) -> list[str]:
        """What the rows mean, in words: where completions copy training images, and, for every mask that a smooth fill
        was measured on as well, whether diffusion is worth it.

        It is where its CRPS is lower by more than two standard errors of either.
        """
        found = [
            f"{row['mask']}: {row['method']} copies training images (it is {row['copied']:.0%} as far from the nearest "
            "one as the truth is): train on more images, or for less long, or with --augment"
            for row in self.rows
            if row.get("copied", 1) < COPIED
        ]
        for mask in dict.fromkeys(row["mask"] for row in self.rows):
            rows = [row for row in self.rows if row["mask"] == mask and row["crps"] == row["crps"]]
            plain = [row for row in rows if row["method"] in SMOOTH]
            ours = [row for row in rows if row["method"] in METHODS]
            if not plain or not ours:
                continue
            best, base = (min(each, key=lambda row: float(row["crps"])) for each in (ours, plain))
            figures = f"CRPS {best['method']} {best['crps']:.4f}, {base['method']} {base['crps']:.4f}"
            if best["crps"] + 2 * max(best["crps_se"], base["crps_se"]) < base["crps"]:
                found.append(f"{mask}: diffusion is better by {1 - best['crps'] / base['crps']:.0%} ({figures})")
            else:
                found.append(f"{mask}: {base['method']} is as good here, and needs no training: use it ({figures})")
        return found

    def write(self, path: Path) -> None:
        """Write ``results.json``."""
        write_json(path, {**self.about, "rows": self.rows})


@dataclass(frozen=True)
class Networks:
    """What completes, with the files that it came from, for provenance."""

    model: Model
    checkpoint: Path
    regression: Model | None = None
    regression_checkpoint: Path | None = None

    @classmethod
    def load(
        cls,
        checkpoint: Path | None,
        regression: Path | None = None,
        device: str | None = None,
        dtype: str | None = None,
    ) -> "Networks":
        """From files (default: the shipped weights). Raises InputError."""
        other = load(regression, device, dtype) if regression else None
        return cls(load(checkpoint, device, dtype), find_checkpoint(checkpoint), other, regression)

    def about(self, cell: Cell, dataset: Dataset) -> dict[str, str]:
        """What the completions of a cell are made from, besides the images."""
        if cell.method in BASELINES:
            return {"train": dataset.fingerprint}
        path = self.regression_checkpoint if cell.method == "regression" else self.checkpoint
        return {"weights": file_hash(path) if path else "", "dtype": str(self.model.dtype)}


def plan(
    specs: Sequence[str],
    methods: Sequence[str],
    steps: Sequence[int],
    samples: int = defaults.SAMPLES,
    seed: int = 0,
    sampler: str = defaults.SAMPLER,
    settings: Mapping[str, float] | None = None,
) -> list[Cell]:
    """Every mask by every method by every number of steps, once each. References have no steps and no settings.

    Raises InputError for a mask, a method or a setting that there is not.
    """
    plain = (*BASELINES, "regression")
    cells = []
    for spec in dict.fromkeys(specs):
        for name in dict.fromkeys(methods):
            for count in (1,) if name in plain else dict.fromkeys(steps):
                of_method = {} if name in plain else dict(settings or {})
                cells.append(Cell(spec, name, count, samples, seed, sampler, of_method))
                cells[-1].check()
    return cells


def run(
    networks: Networks,
    dataset: Dataset,
    split: str,
    count: int,
    cells: Sequence[Cell],
    out: Path | None = None,
    fresh: bool = False,
    group: Processes = ALONE,
    bar: Bar = no_bar,
) -> Evaluation | None:
    """Complete and score every cell on the first ``count`` images of a split; None but for the first process.

    With ``out``, completions are kept there, and found again; ``fresh`` forgets earlier ones. Raises InputError.
    """
    if networks.regression is None and any(cell.method == "regression" for cell in cells):
        raise InputError("the method regression needs --regression FILE (inkfill train --objective regression)")
    images, labels = dataset.split(split)[:count], dataset.labels.get(split)
    labels = labels[:count] if labels is not None else None
    judges = Judges.of(dataset) if group.first and labels is not None else None
    data_hash, results = array_hash(images), []
    with locked(out, "evaluate") if out and group.first else nullcontext():
        if out and fresh and group.first:
            shutil.rmtree(out / "cells", ignore_errors=True)
        for i, cell in enumerate(cells):
            about = {"data": data_hash, **networks.about(cell, dataset)}
            title = f"{i + 1}/{len(cells)} {cell.mask} {cell.method}"
            with bar(len(images) * cell.samples // group.world, title) as progress:

                def completed(cell: Cell = cell, progress: Progress = progress) -> Completed:
                    return complete(networks.model, images, cell, dataset.train, networks.regression, group, progress)

                done = kept(out, cell, about, completed, group) if out else completed()
            if group.first:
                row = score(images, done, cell, labels, judges, networks.model.value_range)
                few = len(dataset.train) <= defaults.FEW_IMAGES and dataset.train.shape[1:] == images.shape[1:]
                if few and cell.method in METHODS and done.mask.any():
                    row["copied"] = copied(images, done, dataset.train)
                results.append(Result(cell, done, row))
    return _evaluation(networks, dataset, split, images, data_hash, results) if group.first else None


def copied(truth: Images, done: Completed, train: Images) -> float:
    """How far the missing pixels of completions are from those of the nearest training image, as a share of how far
    the true ones are: near 1 for new images, near 0 for training images that were learnt by heart."""
    rows = np.flatnonzero(done.mask.any((1, 2)))[:100]
    near, real = (
        float(metrics.nearest_distance(x[rows], train, done.mask[rows]).mean()) for x in (done.filled[:, 0], truth)
    )
    return near / max(real, 1e-6)


def _evaluation(
    networks: Networks, dataset: Dataset, split: str, images: Images, data_hash: str, results: list[Result]
) -> Evaluation:
    cell = results[0].cell
    about = {
        "inkfill": defaults.VERSION,
        "data": dataset.name,
        "data_hash": data_hash,
        "split": split,
        "checkpoint": networks.checkpoint.name,
        "checkpoint_hash": file_hash(networks.checkpoint),
        "regression_hash": file_hash(networks.regression_checkpoint) if networks.regression_checkpoint else None,
        "machine": machine(networks.model),
    }
    summary = (
        f"{dataset.name}, {split} split, {len(images)} images, K = {cell.samples}, seed {cell.seed}, "
        f"sampler {cell.sampler}"
    )
    return Evaluation(images, results, about, summary, networks.model.value_range)
