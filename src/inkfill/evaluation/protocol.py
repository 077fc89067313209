"""An evaluation: cells, their samples, their scores, and their provenance."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from inkfill import defaults
from inkfill.data import Dataset, Images, ValueRange
from inkfill.data.images import array_hash, range_for
from inkfill.errors import InputError
from inkfill.evaluation import metrics
from inkfill.evaluation.baselines import BASELINES, REGRESSION, SMOOTH
from inkfill.evaluation.cells import Cell, Completed, complete, forget, kept, machine
from inkfill.evaluation.scores import Judges, score
from inkfill.files import claim, file_hash, locked, write_json
from inkfill.methods import METHODS
from inkfill.models.model import Model, load
from inkfill.processes import ALONE, Processes
from inkfill.progress import Bar, no_bar

MEMORISED = 0.5  # ratio of :func:`memorisation` below which overfitting is reported


@dataclass(frozen=True)
class Result:
    """A cell with its samples and its row of scores."""

    cell: Cell
    done: Completed
    row: dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """All results with their provenance."""

    images: Images
    results: list[Result]
    about: dict[str, Any]  # provenance, as in results.json
    summary: str  # one line for people
    values: ValueRange  # data range of the images

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the table."""
        return [result.row for result in self.results]

    @property
    def labelled(self) -> bool:
        """Whether the rows have label scores."""
        return bool(self.rows) and "vote" in self.rows[0]

    @property
    def generated(self) -> list[dict[str, Any]]:
        """The rows of unconditional samples (mask ``all``) that have label scores."""
        return [row for row in self.rows if "imbalance" in row]

    @property
    def advice(self) -> list[str]:
        """Conclusions in words: overfitting, and diffusion against smooth fills for every mask that has both.

        Diffusion is better where its CRPS is lower by more than two standard errors of either.
        """
        found = [
            f"{row['mask']}: {row['method']} overfits: distance to the nearest training image {row['copied']:.0%} of "
            "that of held-out images: use more images, less training, or --augment"
            for row in self.rows
            if row.get("copied", 1) < MEMORISED
        ]
        for mask in dict.fromkeys(row["mask"] for row in self.rows):
            rows = [row for row in self.rows if row["mask"] == mask and row["crps"] == row["crps"]]
            ranked = sorted(rows, key=lambda row: row["crps"])
            best = next((row for row in ranked if row["method"] in METHODS), None)
            base = next((row for row in ranked if row["method"] in SMOOTH), None)
            if best and base:
                found.append(_compared(mask, best, base))
        return found

    def write(self, path: Path) -> None:
        """Write ``results.json``."""
        write_json(path, {**self.about, "rows": self.rows})


def _compared(mask: str, best: dict[str, Any], base: dict[str, Any]) -> str:
    """The better of a diffusion method and a smooth fill, by their rows."""
    figures = f"CRPS {best['method']} {best['crps']:.4f}, {base['method']} {base['crps']:.4f}"
    if best["crps"] + 2 * max(best["crps_se"], base["crps_se"]) < base["crps"]:
        return f"{mask}: diffusion is better by {1 - best['crps'] / base['crps']:.0%} ({figures})"
    return f"{mask}: {base['method']} is as good and needs no training: use it ({figures})"


@dataclass(frozen=True)
class Networks:
    """The network to evaluate, and perhaps a regression network."""

    model: Model
    regression: Model | None = None

    @classmethod
    def load(
        cls,
        checkpoint: Path | None,
        regression: Path | None = None,
        device: str | None = None,
        dtype: str | None = None,
    ) -> "Networks":
        """From files (default: the shipped weights). Raises InputError."""
        return cls(load(checkpoint, device, dtype), load(regression, device, dtype) if regression else None)

    def about(self, cell: Cell, dataset: Dataset) -> dict[str, str]:
        """Hashes of everything that the samples of a cell depend on, except the images."""
        if cell.method in BASELINES:
            return {"train": dataset.fingerprint}
        model = self.regression if cell.method == REGRESSION else self.model
        return {"weights": str(_hash(model)), "dtype": str(self.model.dtype)}


def _hash(model: Model | None) -> str | None:
    """The hash of the file that a model was read from; None for another."""
    return file_hash(model.source) if model and model.source else None


def plan(
    specs: Sequence[str],
    methods: Sequence[str],
    steps: Sequence[int],
    samples: int = defaults.SAMPLES,
    seed: int = 0,
    sampler: str = defaults.SAMPLER,
    settings: Mapping[str, float] | None = None,
    value_range: tuple[float, float] | None = None,
) -> list[Cell]:
    """The cells of every mask, method and number of steps, without repetitions; baselines have no steps or settings.

    Raises InputError for an unknown mask, method or setting.
    """
    cells = []
    for spec in dict.fromkeys(specs):
        for name in dict.fromkeys(methods):
            baseline = name in (*BASELINES, REGRESSION)
            for count in (1,) if baseline else dict.fromkeys(steps):
                chosen = {} if baseline else dict(settings or {})
                cells.append(Cell(spec, name, count, samples, seed, sampler, chosen, value_range))
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
    """Draw and score the samples of every cell on the first ``count`` images of a split.

    Samples are stored in the folder ``out`` and reused; ``fresh`` discards earlier ones. Only rank 0 of ``group``
    returns an evaluation. Raises InputError.
    """
    images, labels = dataset.split(split)[:count], dataset.labels.get(split)
    holes = dataset.holes[split][:count] if split in dataset.holes else None
    labels = labels[:count] if labels is not None else None
    judges = Judges.of(dataset) if group.first and labels is not None else None
    model, stored, results = networks.model, out if group.first else None, []
    if out and model.source is None:
        raise InputError("out: stored samples belong to a file of weights: load the model from one")
    missing = np.zeros(images.shape[:3], bool) if holes is None else holes
    values = range_for(images, missing, model.value_range, model.image_dtype, cells[0].value_range)
    data_hash = array_hash(images) + (array_hash(holes) if holes is not None else "")
    with locked(stored, "evaluate") if stored else nullcontext():
        if stored:
            claim(stored, "evaluate")
            if fresh:
                forget(stored)
        for i, cell in enumerate(cells):
            about = {"data": data_hash, **networks.about(cell, dataset)}
            title = f"{i + 1}/{len(cells)} {cell.mask} {cell.method}"
            with bar(len(images) * cell.samples // group.world, title) as progress:
                draw = partial(
                    complete, model, images, cell, dataset.train, networks.regression, group, progress, holes
                )
                done = kept(out, cell, about, draw, group) if out else draw()
            if group.first:
                row = score(images, done, cell, labels, judges, values)
                small = len(dataset.train) <= defaults.FEW_IMAGES and dataset.train.shape[1:] == images.shape[1:]
                if small and cell.method in METHODS and done.mask.any():
                    row["copied"] = memorisation(images, done, dataset.train)
                results.append(Result(cell, done, row))
    if not group.first:
        return None
    provenance = {
        "inkfill": defaults.VERSION,
        "data": dataset.name,
        "data_hash": data_hash,
        "split": split,
        "checkpoint": model.source.name if model.source else None,
        "checkpoint_hash": _hash(model),
        "regression_hash": _hash(networks.regression),
        "machine": machine(model),
    }
    summary = (
        f"{dataset.name}, {split} split, {len(images)} images, K = {cell.samples}, seed {cell.seed}, "
        f"sampler {cell.sampler}"
    )
    return Evaluation(images, results, provenance, summary, values)


def memorisation(truth: Images, done: Completed, train: Images) -> float:
    """Distance of samples to the nearest training image, over missing pixels, divided by that of the true images.

    Near 1 for new images, near 0 for memorised training images.
    """
    rows = np.flatnonzero(done.mask.any((1, 2)))[:100]
    drawn, real = (
        float(metrics.nearest_distance(x[rows], train, done.mask[rows]).mean()) for x in (done.filled[:, 0], truth)
    )
    return drawn / max(real, 1e-6)
