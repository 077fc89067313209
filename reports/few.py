"""The few-step model beside its teacher, at one to eight NFE.

    .venv/bin/python reports/few.py measure      into reports/few/, with samples kept in runs/results
    .venv/bin/python reports/few.py page

MNIST, K = 8. Validation digits and four masks for every NFE, where choices are made; test digits and all masks for the
recommended ones. Samples that reports/results.py drew are found again.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common import FOUR_MASKS, MASKS, Row, folder, run, save, saved, show, write_tables
from inkfill.app import figures
from inkfill.data import load as load_data
from inkfill.data import masks
from inkfill.defaults import METHOD, SAMPLER
from inkfill.evaluation import protocol
from inkfill.filling.inpaint import inpaint, sample
from inkfill.models.checkpoint import find_checkpoint
from inkfill.tables import Columns, table

REPORT, SHIPPED = "few", find_checkpoint("mnist-few")
SCORES = {
    "crps": ("CRPS", "{:.4f}"), "energy": ("energy score", "{:.4f}"), "coverage50": ("coverage 50 %", "{:.3f}"),
    "coverage90": ("coverage 90 %", "{:.3f}"), "confident": ("confidence > 0.9", "{:.3f}"),
    "vote": ("majority label", "{:.3f}"), "ssim": ("SSIM", "{:.3f}"), "frechet": ("Fréchet distance", "{:.2f}"),
    "seconds": ("core-seconds", "{:.4f}"),
}  # fmt: skip
CASES = (("few", 1), ("few", 2), ("few", 4), ("mnist", 1), ("mnist", 2), ("mnist", 3), ("mnist", 8))
TESTED = (("few", 1), ("few", 2), ("mnist", 8))


def scored(weights: Path, split: str, count: int, steps: int, specs: Sequence[str], kept: Path) -> list[Row]:
    """Every score, mask by mask."""
    networks = protocol.Networks.load(weights)
    model = networks.model
    cells = protocol.plan(specs, [model.method or METHOD], [steps], 8, sampler=model.sampler or SAMPLER)
    found = protocol.run(networks, load_data("mnist"), split, count, cells, kept)
    assert found is not None
    return [{"mask": row["mask"], **{key: float(row.get(key, np.nan)) for key in SCORES}} for row in found.rows]


def mean_of(rows: list[Row]) -> Row:
    """Means over the masks."""
    return {key: float(np.mean([row[key] for row in rows])) for key in SCORES}


def measure(few: Path = SHIPPED, validation: int = 200, test: int = 1000, kept: Path = Path("runs/results")) -> None:
    """Score the few-step model and its teacher, and draw the figures."""
    weights = {"few": few, "mnist": find_checkpoint("mnist")}
    rows = [
        {"weights": name, "steps": n, **mean_of(scored(weights[name], "validation", validation, n, FOUR_MASKS, kept))}
        for name, n in CASES
    ]
    save(REPORT, "validation", [show(row) for row in rows])
    rows = [
        {"weights": name, "steps": n, **row}
        for name, n in TESTED
        for row in scored(weights[name], "test", test, n, MASKS, kept)
    ]
    save(REPORT, "test", rows)
    draw_figures(few)


def draw_figures(few: Path) -> None:
    """The same digits, masks and seeds at 1, 2, 8 and 48 NFE, and unconditional samples."""
    digits = load_data("mnist").test[:6]
    specs = ["half:left", "box:10", "quadrants:3", "pixels:0.9", "half:bottom", "strokes"]
    mask = masks.fit_each(specs, digits)
    student, teacher = protocol.Networks.load(few).model, protocol.Networks.load(None).model
    columns = ["masked", "few, 1", "few, 1", "few, 2", "few, 2", "8", "8", "48", "48", "original"]
    made = [inpaint(m, digits, mask, 2, steps=n) for m, n in ((student, 1), (student, 2), (teacher, 8), (teacher, 48))]
    rows = [
        [figures.masked(digit, hole), *(figures.grey(x) for each in made for x in each[i]), figures.grey(digit)]
        for i, (digit, hole) in enumerate(zip(digits, mask, strict=True))
    ]
    figures.save_picture(figures.sheet(rows, columns, specs), folder(REPORT) / "samples.png")
    new = np.concatenate([sample(student, 16, steps=1), sample(student, 16, steps=2), sample(teacher, 16, steps=8)])
    figures.save_picture(figures.grid(new, 16), folder(REPORT) / "new.png")


def page() -> None:
    """Rewrite the tables of the page from JSON."""
    test = saved(REPORT, "test")
    of = {case: [row for row in test if (row["weights"], row["steps"]) == case] for case in TESTED}
    means = [{"weights": name, "steps": n, **mean_of(rows)} for (name, n), rows in of.items()]
    heads: Columns = {"weights": ("weights", "{}"), "steps": ("NFE", "{:d}"), **SCORES}
    ways: Columns = {"way": ("objective", "{}"), "steps": ("steps", "{:d}"), **SCORES}
    average: Columns = {"digits": ("digits", "{}"), **{k: v for k, v in heads.items() if k != "seconds"}}
    exact: Columns = {
        "law": ("prior", "{}"), "missing": ("mask", "{}"), "steps": ("NFE", "{:d}"),
        "error": ("error of the mean (Monte Carlo)", "{:>}"), "deviation": ("std", "{:.3f}"),
        "exact": ("exact", "{:.3f}"), "pixels": ("std of pixels", "{:.3f}"), "exact_pixels": ("exact", "{:.3f}"),
    }  # fmt: skip
    tables = {
        "test": table(means, heads),
        "validation": table(saved(REPORT, "validation"), heads),
        "ways": table(saved(REPORT, "ways"), ways),
        "average": table(saved(REPORT, "average"), average),
        "exact": table(saved(REPORT, "exact"), exact),
    }
    write_tables(REPORT, tables)


if __name__ == "__main__":
    run(measure, page)
