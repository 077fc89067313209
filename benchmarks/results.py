"""docs/results.md: the whole evaluation protocol, from completions that are kept and made only once.

    .venv/bin/python benchmarks/results.py [--regression FILE] [--original FILE]

Completions are kept in runs/results: only what is missing is made again. The page's text is in pages/results.md.
Everything is on MNIST's test split; no choice was made there.
"""

import platform
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import inkfill
import original as recipe
from common import DOCS, Row, bar, run, save, show, with_error, without_ranks, write_page
from inkfill import data, defaults
from inkfill.app import figures, report
from inkfill.models.checkpoint import SHIPPED
from inkfill.files import file_hash, read_json
from inkfill.data import masks
from inkfill.data.images import array_hash
from inkfill.evaluation import metrics, protocol, baselines, scores
from inkfill.evaluation.cells import Cell, kept
from inkfill.evaluation.protocol import Result
from inkfill.methods import MEAN_METHODS as METHODS
from inkfill.core.rng import stream

MASKS = (
    *(f"half:{side}" for side in ("left", "right", "top", "bottom")),
    *("box:10", "box:14:random", "quadrants:1", "quadrants:2", "quadrants:3"),
    *("pixels:0.5", "pixels:0.9", "strokes", "bbox:8"),
)
SOME = ("half:left", "box:10", "quadrants:3")
CURVE = (5, 8, 15, 25, 50)
EQUAL = 48  # network evaluations per completion where methods are compared at equal cost
# Losses of the baseline network and of the CVAE, by what is seen.
TUTORIAL = {"lower-left quadrant": (100.4, 71.8), "left half": (61.9, 51.0), "all but the lower right": (25.4, 24.2)}


def rows_of(results: Iterable[Result]) -> list[Row]:
    """Their scores."""
    return [result.row for result in results]


class Results:
    """Cells on MNIST's test split, completed once and kept in a folder, and what they are completed by."""

    def __init__(self, folder: Path, regression: Path | None, first: Path | None, quick: bool):
        self.folder, self.first, self.quick = folder, first, quick
        self.docs = folder if quick else DOCS  # figures of 20 digits are no results
        self.mnist = data.load("mnist")
        network = inkfill.load(regression) if regression else None
        self.networks = protocol.Networks(inkfill.load(), SHIPPED, network, regression)
        self.prior = recipe.OriginalPrior(first) if first else None
        self.found: dict[tuple[Cell, int], Result] = {}

    def of(self, cells: Sequence[Cell], count: int) -> list[Result]:
        """Scored cells, on the first ``count`` test digits."""
        count = min(count, 20) if self.quick else count
        missing = [cell for cell in cells if (cell, count) not in self.found]
        if missing:
            done = protocol.run(self.networks, self.mnist, "test", count, missing, self.folder, bar=bar)
            self.found |= {(result.cell, count): result for result in done.results}
            for row in done.rows:
                show({key: row[key] for key in ("mask", "method", "evaluations", "crps")})
        return [self.found[cell, count] for cell in cells]

    def original(self, count: int) -> Row:
        """The scores of the original recipe: without its checkpoint, which takes hours, those that stand in results.json."""
        count, cell = min(count, 20) if self.quick else count, recipe.CELL
        if not self.first:
            row = next(row for row in read_json(DOCS / "results.json") if row["method"] == cell.method)
            self.found[cell, count] = Result(cell, None, row)
            return row
        images, labels = self.mnist.test[:count], self.mnist.labels["test"][:count]
        about = {"data": array_hash(images), "code": file_hash(Path(recipe.__file__))}
        about["weights"] = file_hash(self.first)
        # The package knows the code behind its own methods alone; what else this depends on is told in ``about``.
        stand_in = replace(cell, method=defaults.METHOD)
        done = kept(self.folder, stand_in, about, lambda: recipe.complete(self.prior, images, cell))
        row = scores.score(images, done, cell, labels, scores.Judges.of(self.mnist))
        self.found[cell, count] = Result(cell, done, row)
        return row


def main_part(results: Results) -> dict[str, Row]:
    """The shipped network on every mask, and its best and worst completions."""
    found, pictures = results.of([Cell(mask) for mask in MASKS], 1000), []
    report.rank_histograms(found, results.docs / "results" / "ranks.png")
    for result in (result for result in found if result.cell.mask in SOME):
        done, spec = result.done, result.cell.mask
        images = results.mnist.test[: len(done.filled)]
        order = [int(i) for i in np.argsort(metrics.energy_score(images, done.filled, done.mask))]
        name = f"results/{spec.replace(':', '-')}.png"
        both = report.error_gallery(images, result, [*order[:3], *order[::-1][:3]]).picture()
        figures.save_picture(both, results.docs / name)
        pictures.append(f"![{spec}: the best three and the worst three]({name})")
    main = {"sampler": defaults.SAMPLER, "steps": defaults.STEPS, "row": rows_of(found)}
    return {"main": main, "pictures": {"pictures": "\n\n".join(pictures)}}


def label_part(results: Results) -> dict[str, Row]:
    """Calibration and labels from 32 completions, and their means beside a regression."""
    rows = rows_of(results.of([Cell(mask, samples=32) for mask in MASKS], 300))
    values = {"labels": {"row": rows}}
    if results.networks.regression:
        guesses = rows_of(results.of([Cell(mask, "regression", 1, 1) for mask in MASKS], 300))
        beside = [(row, guess["psnr_mean"]) for row, guess in zip(rows, guesses, strict=True)]
        values["means"] = {"row": [{**row, "best": best, "over": row["psnr_limit"] - best} for row, best in beside]}
    return values


def reference_part(results: Results) -> dict[str, Row]:
    """The network beside answers that need no diffusion."""
    plain = [name for name in references.BASELINES if name not in references.SMOOTH]
    cells = [Cell(mask, name, 1) for mask in MASKS for name in plain]
    found = results.of([*cells, *(Cell(mask) for mask in MASKS)], 1000)
    rows = {mask: {"mask": mask} for mask in MASKS}
    for cell, done, row in ((result.cell, result.done, result.row) for result in found):
        rows[cell.mask] |= {
            f"{score}_{cell.method}": row[key] for score, key in (("crps", "crps"), ("psnr", "psnr_mean"))
        }
        if cell.method == "nearest":
            truth = results.mnist.test[: len(done.filled)]
            each = metrics.crps(truth, done.filled, done.mask, draws=False)
            rows[cell.mask]["atoms"] = float(np.nanmean(each))
    return {"references": {"row": list(rows.values())}}


def method_part(results: Results) -> dict[str, Row]:
    """Every method at equal cost, and the best of the others beside the conditional one."""
    cells = [Cell(m, name, METHODS[name].steps_for(EQUAL), 4, 0, "ancestral") for m in SOME for name in METHODS]
    found = results.of(cells, 40)
    rows, beside = rows_of(found), []
    for mask in SOME:
        ours, *others = (result for result in found if result.cell.mask == mask)  # `conditional` is the first
        best = min(others, key=lambda result: result.row["crps"])
        row = {"mask": mask, "method": best.cell.method, "times": best.row["seconds"] / ours.row["seconds"]}
        truth = results.mnist.test[: len(best.done.filled)]
        for key, measure in (("crps", metrics.crps), ("energy", metrics.energy_score)):
            gap = np.subtract(*(measure(truth, each.done.filled, each.done.mask) for each in (best, ours)))
            row[key] = with_error(gap, "+.4f")
        beside.append(row)
    values = {"methods": {"evaluations": EQUAL}, "equal": {"row": rows, "difference": beside}}
    rows.insert(len(METHODS), results.original(100))  # after those of the one mask that it learnt
    return values | {"original": {"epochs": results.prior.epochs if results.prior else recipe.EPOCHS}}


def curve_part(results: Results) -> dict[str, Row]:
    """Quality against cost."""
    found = results.of([Cell(mask, steps=steps) for mask in SOME[:2] for steps in CURVE], 200)
    report.cost_curves(found, results.docs / "results" / "cost.png")
    return {"curve": {"row": rows_of(found)}}


def published() -> dict[str, Row]:
    """What `published.py` found, beside the figures that were published."""
    path = DOCS / "published.json"
    found = read_json(path) if path.exists() else {}
    if found.get("checkpoint") != file_hash(SHIPPED):
        return {"unpublished": {}}
    rows = [dict(zip(("baseline", "tutorial"), TUTORIAL[row["seen"]], strict=True)) | row for row in found["cvae"]]
    k = found["samples"]
    return {"published": {**found["acflow"], "count": found["count"], "k": k, "parts": k + 1, "loss": rows}}


def choose_bandwidth(count: int = 200) -> None:
    """CRPS of the reference `empirical` on validation digits, by bandwidth: where its default comes from."""
    mnist = data.load("mnist")
    images = mnist.validation[:count]
    for bandwidth in (0.1, 0.3, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0):
        found = {}
        for spec in SOME:
            mask = masks.fit(spec, images)
            filled = references.empirical(mnist.train, images, mask, 8, stream(0, "empirical"), bandwidth)
            found[spec] = float(np.nanmean(metrics.crps(images, filled, mask)))
        show({"bandwidth": bandwidth, "CRPS": float(np.mean([*found.values()])), **found})


PARTS = {
    "main": main_part,
    "labels": label_part,
    "references": reference_part,
    "methods": method_part,
    "curve": curve_part,
}


def main(
    folder: Path = Path("runs/results"),
    regression: Path | None = None,
    original: Path | None = None,
    parts: tuple[str, ...] = tuple(PARTS),
    bandwidths: bool = False,
    quick: bool = False,
) -> None:
    """Complete what is not yet kept in ``folder``, and write the page.

    ``regression`` is a checkpoint of inkfill train --objective regression, ``original`` one of benchmarks/original.py.
    ``quick`` takes 20 digits, to try it; ``bandwidths`` chooses that of the empirical prior, and does no more.
    """
    if bandwidths:
        choose_bandwidth()
        return
    results = Results(folder, regression, original, quick)
    head = {"weights": file_hash(SHIPPED), "inkfill": inkfill.__version__, "torch": torch.__version__}
    head |= {"threads": torch.get_num_threads(), "machine": platform.machine()}
    values = published() | {"head": {**head, "dtype": str(results.networks.model.dtype).removeprefix("torch.")}}
    for name in parts:
        values |= PARTS[name](results)
    write_page(results.docs / "results.md", values)
    save(without_ranks(rows_of(results.found.values())), results.docs / "results.json")


if __name__ == "__main__":
    run(main)
