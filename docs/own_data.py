"""docs/own-data.md: how many pictures are enough, from which weights, and beside what needs no training.

    .venv/bin/python docs/own_data.py

Digits are MNIST's, letters those of matplotlib's fonts at 32x32, icons those of Debian's fonts-noto-color-emoji at
32x32 on white. Every network makes so many steps of 32 images; eight tenths of the pictures are trained on, as ever.
Scores are on 100 pictures that are held out from all of it, K = 4, eight evaluations, mean of three masks. Runs and
their scores are kept in runs/own-data; a run that is there is not made again.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch.nn.functional as F
from pictures import icons, letters, on_white, shuffled
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from inkfill import data
from inkfill.app import figures
from inkfill.files import write_json, written_whole
from inkfill.data import Dataset, Images, masks
from inkfill.data.images import BYTES
from inkfill.evaluation import protocol
from inkfill.evaluation.cells import Cell, complete
from inkfill.evaluation.metrics import crps
from inkfill.evaluation.baselines import BASELINES
from inkfill.evaluation.scores import planes
from inkfill.tables import markdown
from inkfill.filling.inpaint import inpaint
from inkfill.models.model import load
from inkfill.core.rng import stream
from inkfill.training.config import TrainConfig
from inkfill.training.run import train
from inkfill.core.unet import Block

DOCS, FOLDER = Path(__file__).parent, Path("runs/own-data")
MASKS, HELD_OUT = ("half:left", "box:0.5", "pixels:0.9"), 100
SIZES, FEW = (50, 200, 1000, 5000), 200  # pictures; so many are learnt from in other ways too
LONG = 20.0  # minutes of one core for the icons, which are ten of two cores
PLAIN = ("biharmonic", "telea", "nearest", "mean")
ATOMS = "nearest, as atoms"
STARTS = {"": "new weights", "mnist": "from `mnist`"}


def digits() -> tuple[Images, Images]:
    """To learn from, and held out."""
    mnist = data.load("mnist")
    return mnist.train, mnist.validation[:HELD_OUT]


def parted(draw: Callable[[], Images]) -> tuple[Images, Images]:
    """The same of other pictures, in a fixed random order."""
    images = shuffled(draw())
    return images[:-HELD_OUT], images[-HELD_OUT:]


def small_letters() -> Images:
    """Letters of 32x32."""
    return letters().reshape(-1, 32, 2, 32, 2).mean((2, 4)).round().astype(np.uint8)


KINDS: dict[str, tuple[Callable[[], tuple[Images, Images]], str]] = {  # what is drawn, and what leaves it what it is
    "icons": (partial(parted, lambda: on_white(icons((32, 32)))), "flip,shift"),
    "digits": (digits, "shift"),
    "letters": (partial(parted, small_letters), "shift"),
}


@contextmanager
def dropout(share: float) -> Iterator[None]:
    """What every block of a network in training adds is dropped in part (Srivastava et al. 2014)."""

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


def atoms(images: Images, held_out: Images) -> float:
    """CRPS of the nearest pictures as what they are: four points of a distribution, and not four draws from one."""
    found = []
    model = load()  # which it needs for the name of the machine alone
    for mask in MASKS:
        truth, done = planes(held_out, complete(model, held_out, Cell(mask, "nearest", 1, 4), images), BYTES)
        found.append(np.nanmean(crps(truth, done.filled, done.mask, draws=False)))
    return float(np.mean(found))


def measured(
    kind: str, count: int, way: str, config: TrainConfig, dropped: float = 0.0, page: bool = False
) -> Iterator[dict[str, Any]]:
    """A training and its scores; another row where it learnt by heart, for the weights from before that."""
    images, held_out = KINDS[kind][0]()
    name = f"{kind}-{count}-{way.replace(' ', '-').replace('`', '')}"
    kept, out = FOLDER / f"{name}.json", FOLDER / name
    if page and not kept.exists():
        return
    if not kept.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        np.save(FOLDER / f"{name}.npy", images[:count])
        resume, of_heart = (out / "state.pt").exists(), {}
        with dropout(dropped):
            if not train(
                replace(config, data=str(FOLDER / f"{name}.npy")), out, resume, validate_every=config.steps // 4
            ):
                raise KeyboardInterrupt
        plain = PLAIN if way == STARTS[""] else ()
        scores = scored(out / "model.safetensors", images[:count], held_out, ("conditional", *plain))
        if (out / "best.safetensors").exists():
            of_heart = scored(out / "best.safetensors", images[:count], held_out, ("conditional",))
        write_json(kept, {"scores": scores, "best": of_heart, "step": load(out / "model.safetensors").recipe.step})
    found = json.loads(kept.read_text())
    last = found["scores"].pop("conditional")
    yield {"kind": kind, "count": count, "way": way, "steps": found["step"], **last}
    for plain, row in found["scores"].items():
        yield {"kind": kind, "count": count, "way": plain, "steps": 0, **row}
    if found["scores"]:
        yield {"kind": kind, "count": count, "way": ATOMS, "steps": 0, "crps": atoms(images[:count], held_out)}
    if found["best"] and found["best"]["conditional"] != last:
        yield {"kind": kind, "count": count, "way": f"{way}, best", "steps": 0, **found["best"]["conditional"]}


def all_of(steps: int, page: bool) -> Iterator[dict[str, Any]]:
    """Every row, or, for the page alone, those that are there."""
    base, row = TrainConfig(steps=steps, batch_size=32), partial(measured, page=page)
    for kind, (_, augment) in KINDS.items():
        for count in SIZES[: 3 if kind == "icons" else 4]:
            for start, way in STARTS.items():
                yield from row(kind, count, way, replace(base, start=start))
        if kind == "icons":
            yield from row(kind, 1332, "ten minutes", TrainConfig(minutes=LONG, augment=augment))
        if kind != "letters":
            yield from row(kind, FEW, "`--augment`", replace(base, augment=augment))
            yield from row(kind, FEW, "`--weight-decay 0.1`", replace(base, weight_decay=0.1))
            yield from row(kind, FEW, "dropout of 0.1", base, dropped=0.1)


# ---- the page --------------------------------------------------------------------------------------------------------


def table(rows: list[dict[str, Any]], kind: str) -> str:
    """What was measured of a kind, the best first of each number of pictures."""
    lines = [
        [f"{r['count']:,}", r["way"], *(f"{r[k]:.4f}" if k in r else "" for k in ("crps", "energy")),
         f"{r['coverage90']:.3f}" if "coverage90" in r else "", f"{r['copied']:.2f}" if "copied" in r else ""]
        for r in sorted((r for r in rows if r["kind"] == kind), key=lambda r: (r["count"], r["crps"]))
    ]  # fmt: skip
    return markdown(["pictures", "way", "CRPS", "energy", "90 % covers", "copied"], lines, left=2)


def curves(rows: list[dict[str, Any]]) -> None:
    """CRPS against the number of pictures."""
    figure, panels = plt.subplots(1, len(KINDS), figsize=(10, 3.2), sharey=True, layout="constrained")
    for panel, kind in zip(panels, KINDS, strict=True):
        for way in (*STARTS.values(), ATOMS, "biharmonic", "telea"):
            found = [(r["count"], r["crps"]) for r in rows if (r["kind"], r["way"]) == (kind, way)]
            panel.plot(*zip(*found, strict=True), marker="o", label=way.replace("`", ""))
        panel.set(title=kind, xscale="log", xlabel="pictures")
    panels[0].set_ylabel("CRPS of missing values")
    panels[0].set_ylim(bottom=0)
    panels[-1].legend(fontsize=8, loc="center right")
    with written_whole(DOCS / "own-data.png") as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def picture(count: int = 8) -> None:
    """Icons that were held out, after ten minutes of training."""
    images, held_out = KINDS["icons"][0]()
    model, truth = load(FOLDER / "icons-1332-ten-minutes" / "model.safetensors"), held_out[:count]
    mask = masks.fit_each([MASKS[i % 3] for i in range(count)], truth)
    filled = inpaint(model, truth, mask, 3)
    plain = [BASELINES[name](images, truth, mask, 1, stream(0))[:, 0] for name in ("biharmonic", "telea")]
    each = zip(truth, mask, filled, *plain, strict=True)
    rows = [[figures.masked(x, hole), *f, smooth, fast, x] for x, hole, f, smooth, fast in each]
    columns = ["masked", "inkfill", "inkfill", "inkfill", "biharmonic", "telea", "original"]
    figures.save_picture(figures.sheet(rows, columns), DOCS / "own-data-icons.png")


def main(steps: int, page: bool = False) -> None:
    """Train, score, write the page."""
    rows = []
    for row in all_of(steps, page):
        rows.append(row)
        print({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}, flush=True)
    curves(rows)
    picture()
    text = (DOCS / "own-data.template.md").read_text().replace("{steps}", str(steps))
    for kind in KINDS:
        text = text.replace(f"{{{kind}}}", table(rows, kind))
    with written_whole(DOCS / "own-data.md") as temporary:
        temporary.write_text(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--page", action="store_true", help="write the page from the runs that are there")
    arguments = parser.parse_args()
    main(arguments.steps, arguments.page)
