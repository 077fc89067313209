"""docs/results.md: the whole evaluation protocol, from completions that are kept and made only once.

    .venv/bin/python benchmarks/results.py [--regression FILE] [--original FILE]

Completions are kept in runs/results; a second run makes only what is missing, and writes the page again. The page names
what each table was measured on. Everything is on MNIST's test split; no choice was made there.
"""

import argparse
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import inkfill
import original as recipe
from inkfill import data, defaults, figures, references, report
from inkfill.checkpoint import SHIPPED, file_hash, written_whole
from inkfill.data import array_hash
from inkfill.evaluate import COLUMNS, Cell, Completed, Judges, complete, kept, score, strict_json, table
from inkfill.inpainting import METHODS, fit_mask
from inkfill.references import REFERENCES
from inkfill.rng import stream

DOCS = Path(__file__).parent.parent / "docs"
MASKS = (
    *(f"half:{side}" for side in ("left", "right", "top", "bottom")),
    *("box:10", "box:14:random", "quadrants:1", "quadrants:2", "quadrants:3"),
    *("pixels:0.5", "pixels:0.9", "strokes", "bbox:8"),
)
SOME = ("half:left", "box:10", "quadrants:3")
CURVE = (5, 8, 15, 25, 50)
EQUAL = 48  # network evaluations per completion where methods are compared at equal cost
LABELS = {
    "mask": ("mask", "{}"),
    "vote": ("vote right", "{:.3f}"),
    "vote_se": ("+-", "{:.3f}"),
    "masked_vote": ("masked classifier", "{:.3f}"),
    "nll": ("NLL", "{:.3f}"),
    "nll_se": ("+-", "{:.3f}"),
    "masked_nll": ("masked classifier", "{:.3f}"),
    "brier": ("Brier", "{:.3f}"),
    "masked_brier": ("masked classifier", "{:.3f}"),
    "calibration": ("calibration error", "{:.3f}"),
}
SETS = {
    "mask": ("mask", "{}"),
    "frechet": ("Frechet", "{:.2f}"),
    "frechet_se": ("+-", "{:.2f}"),
    "frechet_floor": ("floor", "{:.2f}"),
    "kernel": ("kernel", "{:.3f}"),
    "kernel_floor": ("floor", "{:.3f}"),
    "ssim": ("SSIM", "{:.3f}"),
    "diversity": ("diversity", "{:.3f}"),
}
CALIBRATION = {
    "mask": ("mask", "{}"),
    "coverage50": ("50 % covers", "{:.3f}"),
    "coverage50_se": ("+-", "{:.3f}"),
    "coverage90": ("90 % covers", "{:.3f}"),
    "coverage90_se": ("+-", "{:.3f}"),
    "uneven50": ("uneven: 50 %", "{:.3f}"),
    "uneven50_se": ("+-", "{:.3f}"),
    "uneven90": ("uneven: 90 %", "{:.3f}"),
    "uneven90_se": ("+-", "{:.3f}"),
}
COMMANDS = {
    "regression": ".venv/bin/inkfill train --data mnist --objective regression --start shipped --learning-rate 0.001 "
    "--steps 3000 --out runs/regression",
    "original": ".venv/bin/python benchmarks/original.py train --bfloat16 --out runs/original",
}
Row = dict[str, Any]
Entry = tuple[Cell, Completed, Row]


class Desk:
    """The data, the networks, and one way to get a scored cell."""

    def __init__(self, folder: Path, regression: Path | None, first: Path | None, quick: bool):
        self.folder = folder
        self.model = inkfill.load()
        self.mnist = data.load("mnist")
        self.judges = Judges.of(self.mnist)
        self.regression = inkfill.load(regression) if regression else None
        self.original, self.epochs = recipe.load(first) if first else (None, 0.0)
        self.about = {"weights": file_hash(SHIPPED)}
        self.other = {"regression": regression, "original": first}
        self.quick = quick
        self.docs = folder if quick else DOCS  # figures of 20 digits are no results
        self.done: dict[tuple[Cell, int], Entry] = {}

    def row(self, cell: Cell, count: int) -> Row:
        """The scores of a cell on the first ``count`` test digits."""
        return self.entry(cell, count)[2]

    def entry(self, cell: Cell, count: int) -> Entry:
        """Complete the first ``count`` test digits (or find that done), and score them."""
        count = min(count, 20) if self.quick else count
        if (cell, count) in self.done:
            return self.done[cell, count]
        images = self.mnist.test[:count]
        about = {"data": array_hash(images)}
        if cell.method in REFERENCES:
            about["train"] = self.mnist.fingerprint()
        else:
            about["weights"] = file_hash(self.other.get(cell.method) or SHIPPED)
            about["dtype"] = str(self.model.dtype)
        if cell.method == "original":
            about["code"] = file_hash(Path(recipe.__file__))
        title = f"{cell.mask} {cell.method} {cell.steps}"
        with tqdm(total=count * cell.samples, desc=title, delay=2, leave=False) as bar:

            def run() -> Completed:
                if cell.method == "original":
                    assert self.original is not None
                    return recipe.complete(self.original, images, cell.samples, bar.update)
                return complete(self.model, images, cell, self.mnist.train, self.regression, progress=bar.update)

            done = kept(self.folder, cell, about, run)
        row = score(images, done, cell, self.mnist.labels["test"][:count], self.judges)
        self.done[cell, count] = cell, done, row
        print(title, f"CRPS {row['crps']:.4f}", flush=True)
        return self.done[cell, count]


def main_table(desk: Desk) -> list[str]:
    rows = [desk.row(Cell(mask), 1000) for mask in MASKS]
    names = ("mask", "crps", "crps_se", "energy", "energy_se", "coverage90", "psnr_mean", "psnr_sample", "seconds")
    columns = {**COLUMNS, "energy_se": ("+-", "{:.4f}")}
    columns = {name: columns[name] for name in names}
    return [
        f"## The shipped network\n\n1,000 test digits, K = 8 completions each, `conditional`, `{defaults.SAMPLER}`, "
        f"{defaults.STEPS} evaluations a completion, seed 0. `bbox:8` is placed from the digit itself, as no real mask "
        "could be.\n",
        table(rows, columns),
        "\n`quadrants:2` is the upper and the lower right, the same as `half:right`. PSNR is that of the squared error "
        "averaged over digits.\n\n### Realism\n\nFrechet and kernel distances are between the first completion of each digit and 10,000 "
        "training digits, in features of the digit classifier; the floor is that of the 1,000 test digits themselves.\n",
        table(rows, SETS),
        "\n![Rank histograms](results/ranks.png)\n",
    ]


def label_table(desk: Desk) -> list[str]:
    rows = [desk.row(Cell(mask, samples=32), 300) for mask in MASKS]
    lines = [
        "## Calibration\n\n300 test digits, K = 32. Intervals of 50 and 90 % should cover 0.50 and 0.90 of the missing pixels, ties "
        "broken at random; standard errors by drawing digits again. Most missing pixels are black in the truth and in every "
        "completion, and there the interval is right by that rule whatever the network does. *Uneven* leaves them out.\n",
        table(rows, CALIBRATION),
        "\n## What the completions say about the label\n\n300 test digits, K = 32. Votes of the completions under the digit "
        "classifier, beside a classifier that was trained on masked digits and sees what the network sees: an "
        "estimate of what can be known. Brier scores are unbiased in K; the likelihood of votes is not (32 votes cannot say "
        "less than one in fifteen hundred).\n",
        table(rows, LABELS),
    ]
    if desk.regression:
        guesses = [desk.row(Cell(mask, "regression", 1, 1), 300) for mask in MASKS]
        lines += [
            "\n## The mean of the completions and what a mean can reach\n\nThe same 300 digits. `regression` is the same "
            "U-Net, fine-tuned from the shipped weights to predict the missing pixels at once under squared error. PSNR in dB "
            "over missing pixels; that of ever more completions is estimated from the 32, whose mean lies a little under it.\n",
            "| mask | one completion | mean of 32 | of ever more | regression | difference |",
            "|---|--:|--:|--:|--:|--:|",
        ]
        for row, guess in zip(rows, guesses, strict=True):
            one, mean, limit, best = row["psnr_sample"], row["psnr_mean"], row["psnr_limit"], guess["psnr_mean"]
            lines.append(f"| {row['mask']} | {one:.2f} | {mean:.2f} | {limit:.2f} | {best:.2f} | {limit - best:+.2f} |")
    return lines


def reference_table(desk: Desk) -> list[str]:
    lines = [
        "## References\n\nThe same 1,000 digits and masks, K = 8. CRPS, and PSNR of the mean of the completions. `mean`: the "
        "mean training digit. `nearest`: the eight training digits that are closest on the known pixels. `empirical`: training "
        "digits drawn by posterior weight, under a prior that knows them alone with a Gaussian around each. The eight of `nearest` "
        "are no draws: the first column scores them as if they were, the second as the eight atoms that they are.\n",
        "| mask | conditional | nearest | its atoms | empirical | PSNR: conditional | mean | nearest | empirical |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for mask in MASKS:
        ours = desk.row(Cell(mask), 1000)
        mean, exact = (desk.row(Cell(mask, name, 1), 1000) for name in ("mean", "empirical"))
        _, eight, near = desk.entry(Cell(mask, "nearest", 1), 1000)
        truth = desk.mnist.test[: near["images"]]
        atoms = float(np.nanmean(inkfill.metrics.crps(truth, eight.filled, eight.mask, draws=False)))
        crps = f"{ours['crps']:.4f} | {near['crps']:.4f} | {atoms:.4f} | {exact['crps']:.4f}"
        psnr = " | ".join(f"{r['psnr_mean']:.2f}" for r in (ours, mean, near, exact))
        lines.append(f"| {mask} | {crps} | {psnr} |")
    return [
        *lines,
        "\nWith three quadrants missing, `nearest` scores better than the network if its eight digits are taken for draws: there "
        "is room left where little is known.",
    ]


def method_table(desk: Desk) -> list[str]:
    lines = [
        f"## Methods at equal cost\n\n100 test digits, K = 4, at most {EQUAL} network evaluations a completion (a method with "
        "a gradient also runs as many backward passes; see core-seconds), sampler `ancestral` for the guided ones. Particle "
        "methods share their evaluations among their particles, so they have few steps.\n",
    ]
    if desk.original:
        lines.append(
            f"`original` is the recipe that this project started from, trained for {desk.epochs:.0f} epochs "
            "on `half:left` alone. It costs 200 evaluations of a network of its own.\n"
        )
    keys = (
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
    columns = {**COLUMNS, "vote": ("vote right", "{:.2f}"), "frechet": ("Frechet", "{:.1f}"), "steps": ("steps", "{}")}
    rows, beside = [], []
    for mask in SOME:
        cells = [Cell(mask, name, METHODS[name].steps_for(EQUAL), 4, 0, "ancestral") for name in METHODS]
        ours, *others = (desk.entry(cell, 100) for cell in cells)  # `conditional` is the first
        rows += [row for _, _, row in (ours, *others)]
        if desk.original and mask == "half:left":
            rows.append(desk.row(Cell(mask, "original", 200, 4), 100))
        best = min(others, key=lambda entry: entry[2]["crps"])
        truth, apart = desk.mnist.test[: best[2]["images"]], []
        for measure in (inkfill.metrics.crps, inkfill.metrics.energy_score):
            scores = [measure(truth, done.filled, done.mask) for _, done, _ in (best, ours)]
            gap = scores[0] - scores[1]
            apart.append(f"{gap.mean():+.4f} ± {inkfill.metrics.standard_error(gap):.4f}")
        cost = best[2]["seconds"] / ours[2]["seconds"]
        beside.append(f"| {mask} | {best[0].method} | {apart[0]} | {apart[1]} | {cost:.1f} times |")
    return [
        *lines,
        table(rows, {key: columns[key] for key in keys}),
        "\nThe best method other than `conditional`, less it, digit by digit, and what it costs in core-seconds:\n",
        "| mask | method | CRPS | energy score | cost |",
        "|---|---|--:|--:|--:|",
        *beside,
    ]


def curve(desk: Desk) -> list[str]:
    results = [desk.entry(Cell(mask, steps=steps), 200) for mask in SOME[:2] for steps in CURVE]
    report.cost_curves(results, desk.docs / "results" / "cost.png")
    columns = {
        key: COLUMNS[key] for key in ("mask", "evaluations", "crps", "energy", "coverage90", "psnr_sample", "seconds")
    }
    columns["frechet"] = ("Frechet", "{:.2f}")
    return [
        "## Quality against cost\n\n200 test digits, K = 8, the default sampler.\n",
        table([row for _, _, row in results], columns),
        "\n![Quality against cost](results/cost.png)\n",
    ]


def pictures(desk: Desk) -> list[str]:
    chosen = [desk.entry(Cell(mask), 1000) for mask in MASKS]
    report.rank_histograms(chosen, desk.docs / "results" / "ranks.png")
    lines = [
        "## Best and worst\n\nThe three best and the three worst of 1,000 test digits by energy score. |error| is that of "
        "the mean, on the scale of the spread: where the spread is calibrated, errors happen where it is bright.\n"
    ]
    for cell, done, _ in chosen:
        if cell.mask not in SOME:
            continue
        images = desk.mnist.test[: len(done.filled)]
        order = np.argsort(inkfill.metrics.energy_score(images, done.filled, done.mask))
        name = f"{cell.mask.replace(':', '-')}.png"
        both = [*(int(i) for i in order[:3]), *(int(i) for i in order[::-1][:3])]
        figures.save_picture(report.error_gallery(images, done, both), desk.docs / "results" / name)
        lines.append(f"![{cell.mask}: the best three and the worst three](results/{name})\n")
    return lines


def published(desk: Desk) -> list[str]:
    path = DOCS / "published.json"
    if not path.exists():
        return []
    found = json.loads(path.read_text())
    if found["checkpoint"] != desk.about["weights"]:
        return ["*The published protocols have not been run with these weights: see `benchmarks/published.py`.*"]
    a, count = found["acflow"], found["count"]
    k = found["samples"]
    lines = [
        f"## Published protocols\n\n`benchmarks/published.py`, {count:,} test digits. **ACFlow's** (32x32 canvas, their mixture of "
        "masks, PSNR of whole canvases, 10 completions), in dB:\n",
        "| | one completion | best single guess |",
        "|---|--:|--:|",
        f"| inkfill | {a['sample']:.1f} | {a['mean']:.1f} (mean of 10), {a['direct']:.1f} (the network's own mean) |",
        "| ACFlow | 17.3 | 20.8 |",
        "| VAEAC | 19.6 | |",
        "\nDifferences: digits are completed at 28x28 and the padding is put back (it is always black); masks were drawn anew; a "
        "single network for all masks, not trained on this mixture. Published figures, here and below, are quoted at second hand and were "
        "not checked against the papers' tables.\n\n"
        "**Pyro's CVAE tutorial** (Bernoulli loss of the missing pixels, nats a digit):\n",
        f"| seen | network's mean | mean of {k} completions | of ever more | baseline network | CVAE | floor |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    theirs = {"lower-left quadrant": (100.4, 71.8), "left half": (61.9, 51.0), "all but the lower right": (25.4, 24.2)}
    for row in found["cvae"]:
        base, cvae = theirs[row["seen"]]
        lines.append(
            f"| {row['seen']} | {row['direct']:.1f} | {row['mean']:.1f} | {row['limit']:.1f} | {base} | {cvae} | {row['floor']:.1f} |"
        )
    lines.append(
        "\nDifferences: theirs is one network a row, trained on that mask; the CVAE's figures are its variational bound of the "
        "joint likelihood of the missing pixels and not a loss of a mean, so that column is another quantity. Means here have "
        f"one part in {k + 1} of the mean training digit in them, since a handful of completions cannot say that a pixel is never white; that of ever more "
        "is extrapolated from K and K / 2. The baseline is a network trained on this loss for this one mask, and does as well or better."
    )
    return lines


def bandwidths(count: int = 200) -> None:
    """CRPS of the reference `empirical` on validation digits, by bandwidth: where its default comes from."""
    mnist = data.load("mnist")
    images = mnist.validation[:count]
    for references.BANDWIDTH in (0.1, 0.3, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0):
        found = []
        for spec in SOME:
            mask = fit_mask(spec, images, 0)
            filled = references.empirical(mnist.train, images, mask, 8, stream(0, "empirical"))
            found.append(float(np.nanmean(inkfill.metrics.crps(images, filled, mask))))
        print(
            f"bandwidth {references.BANDWIDTH}: CRPS {np.mean(found):.4f}  ", *(f"{x:.4f}" for x in found), flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/results"), help="where completions are kept")
    parser.add_argument("--regression", type=Path, help="checkpoint of inkfill train --objective regression")
    parser.add_argument("--original", type=Path, help="checkpoint of benchmarks/original.py")
    parser.add_argument("--parts", nargs="+", default=["main", "labels", "references", "methods", "curve"])
    parser.add_argument(
        "--bandwidths", action="store_true", help="choose that of the empirical prior, and nothing else"
    )
    parser.add_argument("--quick", action="store_true", help="20 digits, to try it")
    arguments = parser.parse_args()
    if arguments.bandwidths:
        bandwidths()
        return
    desk = Desk(arguments.folder, arguments.regression, arguments.original, arguments.quick)
    parts: dict[str, Callable[[Desk], list[str]]] = {
        "main": main_table,
        "labels": label_table,
        "references": reference_table,
        "methods": method_table,
        "curve": curve,
    }
    sections = []
    for name in arguments.parts:
        sections += [*parts[name](desk), ""]
        print("\n".join(sections[-4:]), flush=True)
    if "main" in arguments.parts:
        sections += pictures(desk)
    sections += ["", *published(desk)]
    given = [name for name in COMMANDS if desk.other[name]]
    commands = [COMMANDS[name] for name in given]
    commands += [".venv/bin/python benchmarks/published.py --out docs/published.json"]
    settings = "".join(f" --{name} runs/{name}/model.safetensors" for name in given)
    commands += [f".venv/bin/python benchmarks/results.py{settings}"]
    head = (
        "# Results\n\nMNIST's test split, from the first digit on; it was used for no choice. Everything is over missing pixels "
        "only (but for labels, Frechet and kernel distances, which are of whole images), intensities in [0, 1], after rounding to uint8. CRPS and energy score: lower is better; they reward completions "
        "that are sharp and honest about what cannot be known.\n\n"
        f"Weights `{desk.about['weights']}` (the shipped ones), inkfill {inkfill.__version__}, torch {torch.__version__}, "
        f"{platform.machine()}, {torch.get_num_threads()} cores, {str(desk.model.dtype).removeprefix('torch.')}.\n\n"
        "```\n" + "\n".join(commands) + "\n```\n"
    )
    with written_whole(desk.docs / "results.md") as temporary:
        temporary.write_text("\n".join([head, *sections]).rstrip() + "\n")
    with written_whole(desk.docs / "results.json") as temporary:
        rows = [{key: value for key, value in row.items() if key != "ranks"} for _, _, row in desk.done.values()]
        temporary.write_text(json.dumps(strict_json(rows), indent=1))


if __name__ == "__main__":
    main()
