"""How many training images are enough, from which weights, and beside baselines without training.

    .venv/bin/python reports/data_size.py measure      trains into runs/data-size, once; into reports/data-size/
    .venv/bin/python reports/data_size.py page

Digits are MNIST's, letters those of matplotlib's fonts at 32x32, icons those of Debian's fonts-noto-color-emoji at
32x32 on white. Every network makes 400 steps of 32 images on eight tenths of the images. Scores are on 100 unseen
images, K = 4, 8 NFE, mean of three masks.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from common import (
    Row,
    distinct,
    folder,
    icons,
    on_white,
    run,
    save,
    saved,
    show,
    shuffled,
    small_letters,
    trained,
    write_tables,
)  # fmt: skip
from inkfill import data
from inkfill.app import figures
from inkfill.core.rng import stream
from inkfill.core.unet import Block
from inkfill.data import Dataset, Images, masks
from inkfill.data.images import BYTES
from inkfill.evaluation import protocol
from inkfill.evaluation.baselines import BASELINES
from inkfill.evaluation.cells import Cell, complete
from inkfill.evaluation.metrics import crps
from inkfill.evaluation.scores import planes
from inkfill.files import read_json, write_json, written_whole
from inkfill.filling.inpaint import inpaint
from inkfill.models.model import load
from inkfill.tables import markdown, table
from inkfill.training.config import TrainConfig

REPORT, FOLDER = "data-size", Path("runs/data-size")
MASKS, HELD_OUT = ("half:left", "box:0.5", "pixels:0.9"), 100
SIZES, FEW = (50, 200, 1000, 5000), 200  # training images; the number for the other variants
LONG = 20.0  # minutes of one core
PLAIN = ("biharmonic", "telea", "nearest", "mean")
DISCRETE = "nearest, discrete"
STARTS = {"": "new weights", "mnist": "from `mnist`"}


def digits() -> tuple[Images, Images]:
    """Training images, and held-out ones."""
    mnist = data.load("mnist")
    return mnist.train, mnist.validation[:HELD_OUT]


def parted(draw: Callable[[], Images]) -> tuple[Images, Images]:
    """The same of other images, in a fixed random order."""
    images = shuffled(draw())
    return images[:-HELD_OUT], images[-HELD_OUT:]


KINDS: dict[str, tuple[Callable[[], tuple[Images, Images]], str]] = {  # images, and augmentation
    "icons": (partial(parted, lambda: on_white(icons((32, 32)))), "flip,shift"),
    "digits": (digits, "shift"),
    "letters": (partial(parted, small_letters), "shift"),
}


@contextmanager
def dropout(share: float) -> Iterator[None]:
    """Dropout of the residual branch of every block in training (Srivastava et al. 2014)."""

    def dropped(module: nn.Module, given: Any, out: Tensor) -> Tensor | None:
        return given[0] + F.dropout(out - given[0], share) if isinstance(module, Block) and module.training else None

    hook = register_module_forward_hook(dropped)
    try:
        yield
    finally:
        hook.remove()


def scored(weights: Path, images: Images, held_out: Images, methods: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Means over the masks, of each method."""
    dataset = Dataset("", images, held_out, held_out, {})
    found = protocol.run(
        protocol.Networks.load(weights), dataset, "test", HELD_OUT, protocol.plan(MASKS, methods, [8], 4)
    )
    assert found is not None
    keys = ("crps", "energy", "coverage90", "copied")
    rows = {name: [row for row in found.rows if row["method"] == name] for name in methods}
    return {
        name: {k: float(np.mean([r[k] for r in each])) for k in keys if k in each[0]} for name, each in rows.items()
    }


def discrete(images: Images, held_out: Images) -> float:
    """CRPS of the four nearest training images, scored as a discrete distribution."""
    found, model = [], load()  # the model's machine is recorded, nothing else
    for mask in MASKS:
        truth, done = planes(held_out, complete(model, held_out, Cell(mask, "nearest", 1, 4), images), BYTES)
        found.append(np.nanmean(crps(truth, done.filled, done.mask, draws=False)))
    return float(np.mean(found))


def measured(kind: str, count: int, way: str, config: TrainConfig, dropped: float = 0.0) -> Iterator[Row]:
    """A training and its scores; a second row, for the weights with the lowest validation loss, where they differ."""
    images, held_out = KINDS[kind][0]()
    name = f"{kind}-{count}-{way.replace(' ', '-').replace('`', '')}"
    kept, out = FOLDER / f"{name}.json", FOLDER / name
    if not kept.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        np.save(FOLDER / f"{name}.npy", images[:count])
        with dropout(dropped):
            config = replace(config, data=str(FOLDER / f"{name}.npy"))
            weights, best = trained(config, out, config.steps // 4), out / "best.safetensors"
        plain = PLAIN if way == STARTS[""] else ()
        scores = scored(weights, images[:count], held_out, ("conditional", *plain))
        early = scored(best, images[:count], held_out, ("conditional",)) if best.exists() else {}
        write_json(kept, {"scores": scores, "best": early, "step": load(weights).recipe.step})
    found = read_json(kept)
    last, about = found["scores"].pop("conditional"), {"kind": kind, "count": count}
    yield {**about, "way": way, "steps": found["step"], **last}
    for plain, row in found["scores"].items():
        yield {**about, "way": plain, **row}
    if found["scores"]:
        yield {**about, "way": DISCRETE, "crps": discrete(images[:count], held_out)}
    if found["best"] and found["best"]["conditional"] != last:
        yield {**about, "way": f"{way}, best", **found["best"]["conditional"]}


def all_of(steps: int) -> Iterator[Row]:
    """Every row."""
    base = TrainConfig(steps=steps, batch_size=32)
    for kind, (_, augment) in KINDS.items():
        for count in SIZES[: 3 if kind == "icons" else 4]:
            for start, way in STARTS.items():
                yield from measured(kind, count, way, replace(base, start=start))
        if kind == "icons":
            yield from measured(kind, 1332, "ten minutes", TrainConfig(minutes=LONG, augment=augment))
        if kind != "letters":
            yield from measured(kind, FEW, "`--augment`", replace(base, augment=augment))
            yield from measured(kind, FEW, "`--weight-decay 0.1`", replace(base, weight_decay=0.1))
            yield from measured(kind, FEW, "dropout of 0.1", base, dropped=0.1)


def measure(steps: int = 400) -> None:
    """Train, score, draw."""
    rows = [show(row) for row in all_of(steps)]
    save(REPORT, "scores", rows)
    curves(rows)
    picture()


# ---- the page --------------------------------------------------------------------------------------------------------


def curves(rows: list[Row]) -> None:
    """CRPS against the number of training images."""
    figure, panels = plt.subplots(1, len(KINDS), figsize=(10, 3.2), sharey=True, layout="constrained")
    for panel, kind in zip(panels, KINDS, strict=True):
        for way in (*STARTS.values(), DISCRETE, "biharmonic", "telea"):
            found = [(r["count"], r["crps"]) for r in rows if (r["kind"], r["way"]) == (kind, way)]
            panel.plot(*zip(*found, strict=True), marker="o", label=way.replace("`", ""))
        panel.set(title=kind, xscale="log", xlabel="training images")
    panels[0].set_ylabel("CRPS of missing values")
    panels[0].set_ylim(bottom=0)
    panels[-1].legend(fontsize=8, loc="center right")
    with written_whole(folder(REPORT) / "curves.png") as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def picture(count: int = 8) -> None:
    """Held-out icons after ten minutes of training."""
    images, held_out = KINDS["icons"][0]()
    model, truth = load(FOLDER / "icons-1332-ten-minutes" / "model.safetensors"), held_out[:count]
    mask = masks.fit_each([MASKS[i % 3] for i in range(count)], truth)
    filled = inpaint(model, truth, mask, 3)
    plain = [BASELINES[name](images, truth, mask, 1, stream(0))[:, 0] for name in ("biharmonic", "telea")]
    each = zip(truth, mask, filled, *plain, strict=True)
    rows = [[figures.masked(x, hole), *f, smooth, fast, x] for x, hole, f, smooth, fast in each]
    columns = ["masked", "inkfill", "inkfill", "inkfill", "biharmonic", "telea", "original"]
    figures.save_picture(figures.sheet(rows, columns), folder(REPORT) / "icons.png")


def grid(rows: list[Row]) -> str:
    """CRPS, a column for each kind and number of images."""
    columns = [(kind, n) for kind in KINDS for n in SIZES if any((r["kind"], r["count"]) == (kind, n) for r in rows)]
    at = {(r["kind"], r["count"], r["way"]): r["crps"] for r in rows}
    ways = [way for way in distinct(rows, "way") if way != "ten minutes"]
    cells = {way: [f"{at[*c, way]:.3f}" if (*c, way) in at else "" for c in columns] for way in ways}
    order = sorted(ways, key=lambda way: at.get(("digits", FEW, way), 0.0))
    return markdown(["CRPS", *(f"{kind} {n:,}" for kind, n in columns)], [[way, *cells[way]] for way in order])


def page() -> None:
    """Rewrite the tables of the page from JSON."""
    rows = saved(REPORT, "scores")
    copied = {"kind": ("images", "{}"), "count": ("number", "{:,}"), "way": ("network", "{}")}
    copied |= {"crps": ("CRPS", "{:.4f}"), "coverage90": ("coverage 90 %", "{:.3f}")}
    copied |= {"copied": ("distance ratio", "{:.2f}")}
    fewest = [row for row in rows if "copied" in row and (row["count"] == min(SIZES) or row["way"] == "ten minutes")]
    write_tables(REPORT, {"crps": grid(rows), "copied": table(fewest, copied)})


if __name__ == "__main__":
    run(measure, page)
