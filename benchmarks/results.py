"""docs/results.md: the whole evaluation protocol, from completions that are kept and made only once.

    .venv/bin/python benchmarks/results.py [--regression FILE] [--original FILE]

Completions are kept in runs/results; a second run makes only what is missing, and writes the page again; its text is in
pages/results.md. The page names what each table was measured on. Everything is on MNIST's test split; no choice was made
there.
"""

import platform
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import inkfill
import original
from common import DOCS, Row, bar, command_line, save, show, without_ranks, write_page
from inkfill import data, defaults
from inkfill.app import figures, report
from inkfill.checkpoint import SHIPPED, file_hash, read_json
from inkfill.data import masks
from inkfill.data.images import array_hash
from inkfill.evaluation import metrics, protocol, references
from inkfill.evaluation.cells import Cell, kept
from inkfill.evaluation.protocol import Result
from inkfill.evaluation.scores import COLUMNS, LABEL_COLUMNS, Judges, score
from inkfill.evaluation.tables import markdown, table
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
FORMS = {  # by key in a row: heading, format
    **COLUMNS,
    **LABEL_COLUMNS,
    "steps": ("steps", "{}"),
    "coverage50": ("50 % covers", "{:.3f}"),
    "uneven50": ("uneven: 50 %", "{:.3f}"),
    "uneven90": ("uneven: 90 %", "{:.3f}"),
    "calibration": ("calibration error", "{:.3f}"),
    "kernel": ("kernel", "{:.3f}"),
    "kernel_floor": ("floor", "{:.3f}"),
    "psnr_limit": ("PSNR of ever more", "{:.2f}"),
}


def scores(rows: Iterable[Row], keys: str) -> str:
    """A table of the scores that are named; one that ± follows has its standard error beside it."""
    names = keys.replace(" ±", "_se").split()
    columns = {}
    for name in names:
        plain = name.removesuffix("_se")
        columns[plain] = FORMS[plain]
        if name != plain:
            columns[name] = "+-", FORMS[plain][1]
    return table(list(rows), columns)


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

    def original(self, count: int) -> Row:
        """The scores of the original recipe."""
        count, cell = min(count, 20) if self.quick else count, original.CELL
        images, labels = self.mnist.test[:count], self.mnist.labels["test"][:count]
        about = {
            "data": array_hash(images),
            "weights": file_hash(self.first),
            "code": file_hash(Path(original.__file__)),
        }
        # The package knows the code behind its own methods alone; what else this depends on is told in ``about``.
        stand_in = replace(cell, method=defaults.METHOD)
        done = kept(self.folder, stand_in, about, lambda: original.complete(self.prior, images, cell))
        self.keep(Result(cell, done, score(images, done, cell, labels, Judges.of(self.mnist))), count)
        return self.found[cell, count].row


# ---- the parts of the page: what each fills in -----------------------------------------------------------------------


def main_part(results: Results) -> dict[str, Row]:
    """The shipped network on every mask, and its best and worst completions."""
    found, pictures = results.of([Cell(mask) for mask in MASKS], 1000), []
    report.rank_histograms(found, results.docs / "results" / "ranks.png")
    for result in (result for result in found if result.cell.mask in SOME):
        done, spec = result.done, result.cell.mask
        images = results.mnist.test[: len(done.filled)]
        order = [int(i) for i in np.argsort(metrics.energy_score(images, done.filled, done.mask))]
        name = f"results/{spec.replace(':', '-')}.png"
        both = report.error_gallery(images, result, [*order[:3], *order[::-1][:3]])
        figures.save_picture(both, results.docs / name)
        pictures.append(f"![{spec}: the best three and the worst three]({name})")
    rows = [result.row for result in found]
    main = {"sampler": defaults.SAMPLER, "steps": defaults.STEPS}
    main["table"] = scores(rows, "mask crps ± energy ± coverage90 psnr_mean psnr_sample seconds")
    main["realism"] = scores(rows, "mask frechet ± frechet_floor kernel kernel_floor ssim diversity")
    return {"main": main, "pictures": {"pictures": "\n\n".join(pictures)}}


def label_part(results: Results) -> dict[str, Row]:
    """Calibration and labels from 32 completions, and their means beside a regression."""
    rows = [result.row for result in results.of([Cell(mask, samples=32) for mask in MASKS], 300)]
    votes = "mask vote ± masked_vote nll ± masked_nll brier masked_brier calibration"
    labels = {"calibration": scores(rows, "mask coverage50 ± coverage90 ± uneven50 ± uneven90 ±")}
    values = {"labels": {**labels, "labels": scores(rows, votes)}}
    if results.networks.regression:
        guesses = results.of([Cell(mask, "regression", 1, 1) for mask in MASKS], 300)
        lines = []
        for row, guess in zip(rows, guesses, strict=True):
            best, means = guess.row["psnr_mean"], [row[key] for key in ("psnr_sample", "psnr_mean", "psnr_limit")]
            lines.append([row["mask"], *(f"{x:.2f}" for x in (*means, best)), f"{means[-1] - best:+.2f}"])
        headings = ["mask", "one completion", "mean of 32", "of ever more", "regression", "difference"]
        values["means"] = {"table": markdown(headings, lines)}
    return values


def reference_part(results: Results) -> dict[str, Row]:
    """The network beside answers that need no diffusion."""
    plain, lines = ("mean", "nearest", "empirical"), []
    cells = [Cell(mask, name, 1) for mask in MASKS for name in plain] + [Cell(mask) for mask in MASKS]
    found = {(result.cell.mask, result.cell.method): result for result in results.of(cells, 1000)}
    for mask in MASKS:
        rows = [found[mask, name].row for name in ("conditional", *plain)]
        done = found[mask, "nearest"].done
        truth = results.mnist.test[: len(done.filled)]
        atoms = float(np.nanmean(metrics.crps(truth, done.filled, done.mask, draws=False)))
        ours, _, near, drawn = (row["crps"] for row in rows)
        crps = (f"{x:.4f}" for x in (ours, near, atoms, drawn))
        lines.append([mask, *crps, *(f"{row['psnr_mean']:.2f}" for row in rows)])
    headings = ["mask", "conditional", "nearest", "its atoms", "empirical", "PSNR: conditional", *plain]
    return {"references": {"table": markdown(headings, lines)}}


def method_part(results: Results) -> dict[str, Row]:
    """Every method at equal cost, and the best of the others beside the conditional one."""
    cells = [Cell(m, name, METHODS[name].steps_for(EQUAL), 4, 0, "ancestral") for m in SOME for name in METHODS]
    found = results.of(cells, 100)
    rows, beside = [result.row for result in found], []
    for mask in SOME:
        ours, *others = (result for result in found if result.cell.mask == mask)  # `conditional` is the first
        best = min(others, key=lambda result: result.row["crps"])
        truth, apart = results.mnist.test[: len(best.done.filled)], []
        for measure in (metrics.crps, metrics.energy_score):
            gap = np.subtract(*(measure(truth, each.done.filled, each.done.mask) for each in (best, ours)))
            apart.append(f"{gap.mean():+.4f} ± {metrics.standard_error(gap):.4f}")
        beside.append([mask, best.cell.method, *apart, f"{best.row['seconds'] / ours.row['seconds']:.1f} times"])
    values = {"methods": {"evaluations": EQUAL}}
    if results.prior:
        rows.insert(len(METHODS), results.original(100))  # after those of the one mask that it learnt
        values["original"] = {"epochs": results.prior.epochs}
    shown = scores(rows, "mask method steps evaluations crps ± energy coverage90 vote frechet seconds")
    differences = markdown(["mask", "method", "CRPS", "energy score", "cost"], beside, left=2)
    return {**values, "equal": {"table": shown, "beside": differences}}


def curve_part(results: Results) -> dict[str, Row]:
    """Quality against cost."""
    found = results.of([Cell(mask, steps=steps) for mask in SOME[:2] for steps in CURVE], 200)
    report.cost_curves(found, results.docs / "results" / "cost.png")
    keys = "mask evaluations crps energy coverage90 psnr_sample seconds frechet"
    return {"curve": {"table": scores((result.row for result in found), keys)}}


PARTS = {
    "main": main_part,
    "labels": label_part,
    "references": reference_part,
    "methods": method_part,
    "curve": curve_part,
}


def published() -> dict[str, Row]:
    """What `published.py` found, beside the figures that were published."""
    path = DOCS / "published.json"
    found = read_json(path) if path.exists() else {"checkpoint": None}
    if found["checkpoint"] != file_hash(SHIPPED):
        return {"unpublished": {}}
    a, k, lines = found["acflow"], found["samples"], []
    guess = f"{a['mean']:.1f} (mean of 10), {a['direct']:.1f} (the network's own mean)"
    acflow = [["inkfill", f"{a['sample']:.1f}", guess], ["ACFlow", "17.3", "20.8"], ["VAEAC", "19.6", ""]]
    theirs = {"lower-left quadrant": (100.4, 71.8), "left half": (61.9, 51.0), "all but the lower right": (25.4, 24.2)}
    for row in found["cvae"]:
        losses = row["direct"], row["mean"], row["limit"], *theirs[row["seen"]], row["floor"]
        lines.append([row["seen"], *(f"{loss:.1f}" for loss in losses)])
    headings = [
        "seen",
        "network's mean",
        f"mean of {k} completions",
        "of ever more",
        "baseline network",
        "CVAE",
        "floor",
    ]
    values = {"count": found["count"], "parts": k + 1, "cvae": markdown(headings, lines)}
    return {"published": {**values, "acflow": markdown(["", "one completion", "best single guess"], acflow)}}


def bandwidths(count: int = 200) -> None:
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
    values = published() | {"head": {"weights": file_hash(SHIPPED), "inkfill": inkfill.__version__}}
    values["head"] |= {"torch": torch.__version__, "threads": torch.get_num_threads(), "machine": platform.machine()}
    values["head"]["dtype"] = str(results.networks.model.dtype).removeprefix("torch.")
    for name in arguments.parts:
        values |= PARTS[name](results)
    write_page(results.docs / "results.md", values)
    save(without_ranks(result.row for result in results.found.values()), results.docs / "results.json")


if __name__ == "__main__":
    main()
