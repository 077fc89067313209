"""docs/results.md: the whole evaluation protocol, from completions that are kept and made only once.

    .venv/bin/python benchmarks/results.py [--regression FILE] [--original FILE]

Completions are kept in runs/results; a second run makes only what is missing, and writes the page again; its text is in
pages/results.md. The page names what each table was measured on. Everything is on MNIST's test split; no choice was made
there.
"""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import inkfill
import original
from common import DOCS, Row, bar, command_line, show, without_ranks, write_page
from inkfill import data, defaults
from inkfill.app import figures, report
from inkfill.checkpoint import SHIPPED, file_hash, read_json, write_json
from inkfill.data import masks
from inkfill.data.images import array_hash
from inkfill.evaluation import metrics, protocol, references
from inkfill.evaluation.cells import Cell, kept
from inkfill.evaluation.protocol import Result
from inkfill.evaluation.scores import COLUMNS, Judges, score
from inkfill.evaluation.tables import Columns, markdown, table
from inkfill.methods import METHODS
from inkfill.rng import stream

MASKS = (
    *(f"half:{side}" for side in ("left", "right", "top", "bottom")),
    *("box:10", "box:14:random", "quadrants:1", "quadrants:2", "quadrants:3"),
    *("pixels:0.5", "pixels:0.9", "strokes", "bbox:8"),
)
SOME = ("half:left", "box:10", "quadrants:3")
CURVE = (5, 8, 15, 25, 50)
EQUAL = 48  # network evaluations per completion where methods are compared at equal cost
COMMANDS = {
    "regression": ".venv/bin/inkfill train --data mnist --objective regression --start shipped --learning-rate 0.001 "
    "--steps 3000 --out runs/regression",
    "original": ".venv/bin/python benchmarks/original.py train --bfloat16 --out runs/original",
}


def columns(form: str, headings: Mapping[str, str]) -> Columns:
    """Columns of one format by their keys; one whose key ends in ± has its standard error beside it."""
    found: dict[str, tuple[str, str]] = {}
    for key, heading in headings.items():
        name = key.removesuffix(" ±")
        found[name] = heading, form
        if name != key:
            found[f"{name}_se"] = "+-", form
    return found


MASK = {"mask": ("mask", "{}")}
PIXELS = {**COLUMNS, **columns("{:.4f}", {"energy ±": "energy"})}
REALISM = {
    **MASK,
    **columns("{:.2f}", {"frechet ±": "Frechet", "frechet_floor": "floor"}),
    **columns("{:.3f}", {"kernel": "kernel", "kernel_floor": "floor", "ssim": "SSIM", "diversity": "diversity"}),
}
INTERVALS = {"coverage50 ±": "50 % covers", "coverage90 ±": "90 % covers"}
UNEVEN = {"uneven50 ±": "uneven: 50 %", "uneven90 ±": "uneven: 90 %"}
LABELS = {
    "vote ±": "vote right",
    "masked_vote": "masked classifier",
    "nll ±": "NLL",
    "masked_nll": "masked classifier",
    "brier": "Brier",
    "masked_brier": "masked classifier",
    "calibration": "calibration error",
}
MEANS = {"psnr_sample": "one completion", "psnr_mean": "mean of 32", "psnr_limit": "of ever more"}


class Results:
    """Cells on MNIST's test split, completed once and kept in a folder, and what they are completed by."""

    def __init__(self, folder: Path, regression: Path | None, first: Path | None, quick: bool):
        self.folder, self.first, self.quick = folder, first, quick
        self.docs = folder if quick else DOCS  # figures of 20 digits are no results
        self.mnist = data.load("mnist")
        network = inkfill.load(regression) if regression else None
        self.networks = protocol.Networks(inkfill.load(), SHIPPED, network, regression)
        self.prior = original.OriginalPrior(first) if first else None
        self.found: dict[tuple[Cell, int], Result] = {}

    def of(self, cells: Sequence[Cell], count: int) -> list[Result]:
        """Scored cells, on the first ``count`` test digits."""
        count = min(count, 20) if self.quick else count
        missing = [cell for cell in cells if (cell, count) not in self.found]
        if missing:
            done = protocol.run(self.networks, self.mnist, "test", count, missing, self.folder, bar=bar)
            for result in done.results:
                self.keep(result, count)
        return [self.found[cell, count] for cell in cells]

    def keep(self, result: Result, count: int) -> None:
        """Remember a result, and say so."""
        self.found[result.cell, count] = result
        show({key: result.row[key] for key in ("mask", "method", "evaluations", "crps")})

    def original(self, count: int) -> Result:
        """The row of the original recipe."""
        count, cell = min(count, 20) if self.quick else count, original.CELL
        images, labels = self.mnist.test[:count], self.mnist.labels["test"][:count]
        about = {
            "data": array_hash(images),
            "weights": file_hash(self.first),
            "code": file_hash(Path(original.__file__)),
        }
        # The package knows the code behind its own methods alone; what else this depends on is told in ``about``.
        stand_in = replace(cell, method=defaults.METHOD)
        with bar(count * cell.samples, "original") as progress:
            done = kept(
                self.folder, stand_in, about, lambda: original.complete(self.prior, images, cell, progress=progress)
            )
        self.keep(Result(cell, done, score(images, done, cell, labels, Judges.of(self.mnist))), count)
        return self.found[cell, count]


def rows_of(results: Sequence[Result]) -> list[Row]:
    """Their scores."""
    return [result.row for result in results]


# ---- the parts of the page: what each fills in ---------------------------------------------------------------------------


def shipped(results: Results) -> dict[str, Row]:
    """The shipped network on every mask, and its best and worst completions."""
    found = results.of([Cell(mask) for mask in MASKS], 1000)
    names = ("mask", "crps", "crps_se", "energy", "energy_se", "coverage90", "psnr_mean", "psnr_sample", "seconds")
    shown = table(rows_of(found), {name: PIXELS[name] for name in names})
    values = {"table": shown, "realism": table(rows_of(found), REALISM)}
    report.rank_histograms(found, results.docs / "results" / "ranks.png")
    pictures = []
    for result in (result for result in found if result.cell.mask in SOME):
        done, spec = result.done, result.cell.mask
        images = results.mnist.test[: len(done.filled)]
        order = [int(i) for i in np.argsort(metrics.energy_score(images, done.filled, done.mask))]
        name = f"results/{spec.replace(':', '-')}.png"
        both = report.error_gallery(images, result, [*order[:3], *order[::-1][:3]])
        figures.save_picture(both, results.docs / name)
        pictures.append(f"![{spec}: the best three and the worst three]({name})")
    main = {**values, "sampler": defaults.SAMPLER, "steps": defaults.STEPS}
    return {"main": main, "pictures": {"pictures": "\n\n".join(pictures)}}


def labels(results: Results) -> dict[str, Row]:
    """Calibration and labels from 32 completions, and their means beside a regression."""
    rows = rows_of(results.of([Cell(mask, samples=32) for mask in MASKS], 300))
    calibration, votes = (table(rows, MASK | columns("{:.3f}", names)) for names in (INTERVALS | UNEVEN, LABELS))
    values = {"labels": {"calibration": calibration, "labels": votes}}
    if results.networks.regression:
        guesses = results.of([Cell(mask, "regression", 1, 1) for mask in MASKS], 300)
        best = [guess.row["psnr_mean"] for guess in guesses]
        beside = [{**row, "best": psnr, "over": row["psnr_limit"] - psnr} for row, psnr in zip(rows, best, strict=True)]
        form = columns("{:.2f}", {**MEANS, "best": "regression"}) | columns("{:+.2f}", {"over": "difference"})
        values["means"] = {"table": table(beside, MASK | form)}
    return values


def reference_part(results: Results) -> dict[str, Row]:
    """The network beside answers that need no diffusion."""
    plain = ("mean", "nearest", "empirical")
    cells = [Cell(mask, name, 1) for mask in MASKS for name in plain] + [Cell(mask) for mask in MASKS]
    found = {(result.cell.mask, result.cell.method): result for result in results.of(cells, 1000)}
    rows = []
    for mask in MASKS:
        row, near = {"mask": mask}, found[mask, "nearest"].done
        row["atoms"] = float(
            np.nanmean(metrics.crps(results.mnist.test[: len(near.filled)], near.filled, near.mask, draws=False))
        )
        for name in (defaults.METHOD, *plain):
            row |= {f"{key} {name}": found[mask, name].row[key] for key in ("crps", "psnr_mean")}
        rows.append(row)
    crps = {"crps conditional": "conditional", "crps nearest": "nearest", "atoms": "its atoms"}
    psnr = {"psnr_mean conditional": "PSNR: conditional", **{f"psnr_mean {name}": name for name in plain}}
    form = columns("{:.4f}", {**crps, "crps empirical": "empirical"}) | columns("{:.2f}", psnr)
    return {"references": {"table": table(rows, MASK | form)}}


def methods(results: Results) -> dict[str, Row]:
    """Every method at equal cost, and the best of the others beside the conditional one."""
    names = (
        "mask",
        "method",
        "steps",
        "evaluations",
        "crps",
        "crps_se",
        "energy",
        "coverage90",
        "vote",
        "frechet",
        "seconds",
    )
    form = {**COLUMNS, "vote": ("vote right", "{:.2f}"), "frechet": ("Frechet", "{:.1f}"), "steps": ("steps", "{}")}
    cells = [Cell(m, name, METHODS[name].steps_for(EQUAL), 4, 0, "ancestral") for m in SOME for name in METHODS]
    found = results.of(cells, 100)
    rows, beside = rows_of(found), []
    for mask in SOME:
        ours, *others = (result for result in found if result.cell.mask == mask)  # `conditional` is the first
        best = min(others, key=lambda result: result.row["crps"])
        truth, apart = results.mnist.test[: len(best.done.filled)], []
        for measure in (metrics.crps, metrics.energy_score):
            gap = np.subtract(*(measure(truth, each.done.filled, each.done.mask) for each in (best, ours)))
            apart.append(f"{gap.mean():+.4f} ± {metrics.standard_error(gap):.4f}")
        beside.append([mask, best.cell.method, *apart, f"{best.row['seconds'] / ours.row['seconds']:.1f} times"])
    told = ""
    if results.prior:
        rows.insert(len(METHODS), results.original(100).row)  # after those of the one mask that it learnt
        told = (
            f"`original` is the recipe that this project started from, trained for {results.prior.epochs:.0f} epochs "
            "on `half:left` alone. It costs 200 evaluations of a network of its own."
        )
    shown = table(rows, {name: form[name] for name in names})
    differences = markdown(["mask", "method", "CRPS", "energy score", "cost"], beside, left=2)
    return {"methods": {"evaluations": EQUAL, "original": told, "table": shown, "beside": differences}}


def curve(results: Results) -> dict[str, Row]:
    """Quality against cost."""
    found = results.of([Cell(mask, steps=steps) for mask in SOME[:2] for steps in CURVE], 200)
    report.cost_curves(found, results.docs / "results" / "cost.png")
    names = ("mask", "evaluations", "crps", "energy", "coverage90", "psnr_sample", "seconds")
    form = {name: COLUMNS[name] for name in names} | {"frechet": ("Frechet", "{:.2f}")}
    return {"curve": {"table": table(rows_of(found), form)}}


PARTS: dict[str, Callable[[Results], dict[str, Row]]] = {
    "main": shipped,
    "labels": labels,
    "references": reference_part,
    "methods": methods,
    "curve": curve,
}


def published() -> dict[str, Row]:
    """What `published.py` found, beside the figures that were published."""
    path = DOCS / "published.json"
    if not path.exists():
        return {}
    found = read_json(path)
    if found["checkpoint"] != file_hash(SHIPPED):
        return {"unpublished": {}}
    a = found["acflow"]
    guess = f"{a['mean']:.1f} (mean of 10), {a['direct']:.1f} (the network's own mean)"
    acflow = [["inkfill", f"{a['sample']:.1f}", guess], ["ACFlow", "17.3", "20.8"], ["VAEAC", "19.6", ""]]
    theirs = {"lower-left quadrant": (100.4, 71.8), "left half": (61.9, 51.0), "all but the lower right": (25.4, 24.2)}
    rows = [dict(zip(("baseline", "cvae"), theirs[row["seen"]], strict=True)) | row for row in found["cvae"]]
    ours = {"direct": "network's mean", "mean": f"mean of {found['samples']} completions", "limit": "of ever more"}
    form = columns("{:.1f}", {**ours, "baseline": "baseline network", "cvae": "CVAE", "floor": "floor"})
    return {
        "published": {
            "count": found["count"],
            "parts": found["samples"] + 1,
            "acflow": markdown(["", "one completion", "best single guess"], acflow),
            "cvae": table(rows, {"seen": ("seen", "{}")} | form),
        }
    }


def head(results: Results) -> dict[str, Row]:
    """What the page was measured on, and the commands that make it."""
    checkpoints = {"regression": results.networks.regression_checkpoint, "original": results.first}
    given = [name for name, path in checkpoints.items() if path]
    files = "".join(f" --{name} runs/{name}/model.safetensors" for name in given)
    commands = [COMMANDS[name] for name in given]
    commands.append(".venv/bin/python benchmarks/published.py --out docs/published.json")
    commands.append(f".venv/bin/python benchmarks/results.py{files}")
    values = {"weights": file_hash(SHIPPED), "inkfill": inkfill.__version__, "torch": torch.__version__}
    values |= {"machine": platform.machine(), "threads": torch.get_num_threads(), "commands": "\n".join(commands)}
    return {"head": {**values, "dtype": str(results.networks.model.dtype).removeprefix("torch.")}}


def bandwidths(count: int = 200) -> None:
    """CRPS of the reference `empirical` on validation digits, by bandwidth: where its default comes from."""
    mnist = data.load("mnist")
    images = mnist.validation[:count]
    for bandwidth in (0.1, 0.3, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0):
        row = {"bandwidth": bandwidth}
        for spec in SOME:
            mask = masks.fit(spec, images)
            filled = references.empirical(mnist.train, images, mask, 8, stream(0, "empirical"), bandwidth)
            row[spec] = float(np.nanmean(metrics.crps(images, filled, mask)))
        show({**row, "mean": float(np.mean([row[spec] for spec in SOME]))})


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/results"), help="where completions are kept")
    parser.add_argument("--regression", type=Path, help="checkpoint of inkfill train --objective regression")
    parser.add_argument("--original", type=Path, help="checkpoint of benchmarks/original.py")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--bandwidths", action="store_true", help="choose that of the empirical prior, and no more")
    parser.add_argument("--quick", action="store_true", help="20 digits, to try it")
    arguments = parser.parse_args()
    if arguments.bandwidths:
        bandwidths()
        return
    results = Results(arguments.folder, arguments.regression, arguments.original, arguments.quick)
    values = head(results) | published()
    for name in arguments.parts:
        values |= PARTS[name](results)
    write_page(results.docs / "results.md", values)
    write_json(results.docs / "results.json", without_ranks(rows_of(list(results.found.values()))))


if __name__ == "__main__":
    main()
