"""docs/few.md: few-step weights beside their teacher, at one to eight evaluations.

    .venv/bin/python docs/few.py

MNIST, K = 8. Validation digits and four masks for every number of evaluations (choices are made there), test digits and
all masks for those that are recommended. Completions are kept in --folder, and found there again; so are those that
benchmarks/results.py made.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inkfill.app import figures
from inkfill.models.checkpoint import find_checkpoint
from inkfill.files import read_json, written_whole
from inkfill.data import load as load_data
from inkfill.data import masks
from inkfill.evaluation import protocol
from inkfill.tables import markdown
from inkfill.filling.inpaint import inpaint, sample

MASKS = ("half:left", "box:10", "quadrants:3", "pixels:0.9")
ALL = (
    *(f"half:{side}" for side in ("left", "right", "top", "bottom")),
    *("box:10", "box:14:random", "quadrants:1", "quadrants:2", "quadrants:3"),
    *("pixels:0.5", "pixels:0.9", "strokes", "bbox:8"),
)
MEASURES = {
    "crps": "CRPS", "energy": "energy", "coverage50": "50 % covers", "coverage90": "90 % covers",
    "confident": "confident", "vote": "vote right", "ssim": "SSIM", "frechet": "Frechet", "seconds": "core-s each",
}  # fmt: skip
DOCS = Path(__file__).parent


def scores(
    networks: protocol.Networks, split: str, count: int, steps: int, specs: Sequence[str], folder: Path
) -> dict[str, list[float]]:
    """Every measure, mask by mask."""
    method = networks.model.method
    cells = protocol.plan(specs, [method], [steps], 8, sampler=networks.model.sampler)
    found = protocol.run(networks, load_data("mnist"), split, count, cells, folder)
    assert found is not None
    return {key: [float(row[key]) for row in found.rows] for key in (*MEASURES, "real_confident")}


def lines(
    split: str, count: int, cases: list[tuple[str, int]], few: Path, specs: Sequence[str], folder: Path
) -> tuple[str, str]:
    """A table of means over the masks, and one by masks."""
    mean, each = [], []
    for name, steps in cases:
        networks = protocol.Networks.load(few if name == "few" else find_checkpoint("mnist"))
        found = scores(networks, split, count, steps, specs, folder)
        mean.append([name, steps, *(f"{np.mean(found[key]):.4f}" for key in MEASURES)])
        for i, mask in enumerate(specs):
            each.append([mask, name, steps, *(f"{found[key][i]:.4f}" for key in MEASURES)])
    real = f"Real digits are confident in {np.mean(found['real_confident']):.3f}."
    headings = ["weights", "evaluations", *MEASURES.values()]
    each.sort(key=lambda row: specs.index(row[0]))  # a mask's rows together
    return markdown(headings, mean) + "\n\n" + real, markdown(["mask", *headings], each, left=2)


def pictures(few: Path) -> None:
    """The same digits, masks and seeds with 1, 2, 8 and 48 evaluations, and new digits from one and two."""
    digits = load_data("mnist").test[:6]
    specs = ["half:left", "box:10", "quadrants:3", "pixels:0.9", "half:bottom", "strokes"]
    mask = masks.fit_each(specs, digits)
    student, teacher = protocol.Networks.load(few).model, protocol.Networks.load(None).model
    columns = ["masked", "few, 1", "few, 1", "few, 2", "few, 2", "8", "8", "48", "48", "original"]
    made = [inpaint(m, digits, mask, 2, steps=n) for m, n in ((student, 1), (student, 2), (teacher, 8), (teacher, 48))]
    rows = [
        [
            figures.masked(digits[i], mask[i]),
            *(figures.grey(x) for each in made for x in each[i]),
            figures.grey(digits[i]),
        ]
        for i in range(len(digits))
    ]
    figures.save_picture(figures.sheet(rows, columns, specs), DOCS / "few.png")
    new = np.concatenate([sample(student, 16, steps=1), sample(student, 16, steps=2), sample(teacher, 16, steps=8)])
    figures.save_picture(figures.grid(new, 16), DOCS / "few-new.png")


def ways() -> str:
    """What few_ways.py found of other ways to one evaluation."""
    rows = read_json(DOCS / "few-ways.json")
    keys = [key for key in MEASURES if key in rows[0]]
    cells = [[row["way"], row["steps"], *(f"{row[key]:.4f}" for key in keys)] for row in rows]
    return markdown(["", "steps", *(MEASURES[key] for key in keys)], cells)


def main(few: Path, count: int, folder: Path) -> None:
    """Measure and write the page."""
    curve = [("few", 1), ("few", 2), ("few", 4), ("mnist", 1), ("mnist", 2), ("mnist", 3), ("mnist", 8)]
    validation, _ = lines("validation", 200, curve, few, MASKS, folder)
    test, by_mask = lines("test", count, [("few", 1), ("few", 2), ("mnist", 8)], few, ALL, folder)
    pictures(few)
    text = (DOCS / "few.template.md").read_text()
    for name, value in (
        ("validation", validation),
        ("test", test),
        ("masks", by_mask),
        ("count", f"{count:,}"),
        ("ways", ways()),
    ):
        text = text.replace(f"{{{name}}}", value)
    with written_whole(DOCS / "few.md") as temporary:
        temporary.write_text(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=Path, default=find_checkpoint("mnist-few"), help="few-step weights")
    parser.add_argument("--count", type=int, default=1000, help="test digits")
    parser.add_argument("--folder", type=Path, default=Path("runs/results"), help="for completions")
    arguments = parser.parse_args()
    main(arguments.few, arguments.count, arguments.folder)
