"""docs/damaged.md: learning from digits of which none is whole, against learning from whole ones.

    .venv/bin/python docs/damaged.py [--digits N] [--steps S]

MNIST's first training digits, of which a share of the pixels, or one half, is hidden and never seen. For each: rounds
(``inkfill train --data-mask``), and training on blurred and on biharmonic fills as if they were whole; beside them the
same training on whole digits. Scores on 200 validation digits that are whole, K = 8, mean of four masks. Runs are kept
in runs/damaged.
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from skimage.restoration import inpaint_biharmonic
from tqdm import tqdm

from inkfill import data
from inkfill.app import figures
from inkfill.files import written_whole
from inkfill.data import Images, masks
from inkfill.data.incomplete import blurred
from inkfill.data.images import Mask
from inkfill.evaluation import protocol
from inkfill.tables import markdown
from inkfill.filling.inpaint import inpaint
from inkfill.models.model import load
from inkfill.training.config import TrainConfig
from inkfill.training.run import train

DOCS, FOLDER = Path(__file__).parent, Path("runs/damaged")
MASKS = ("half:left", "box:10", "quadrants:3", "pixels:0.9")
HIDDEN = ("pixels:0.25", "pixels:0.5", "pixels:0.75", "half:random")
SHORT = {"whole digits": "whole", "rounds": "rounds", "blurred fills": "blur", "biharmonic fills": "biharm."}
KEYS = {"crps": "CRPS", "energy": "energy", "coverage90": "90 % covers", "confident": "confident", "frechet": "Frechet"}


def biharmonic(images: Images, holes: Mask) -> Images:
    """Every hole filled by scikit-image."""
    each = zip(tqdm(images), holes, strict=True)
    return np.stack([(inpaint_biharmonic(x / 255.0, h).clip(0, 1) * 255).round().astype(np.uint8) for x, h in each])


def trained(name: str, images: Images, steps: int, hidden: str = "", rounds: int = 4) -> Path:
    """A run on these images, made once; gives its weights."""
    out = FOLDER / name
    if not (out / "done").exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        np.save(FOLDER / f"{name}.npy", images)
        config = TrainConfig(
            data=str(FOLDER / f"{name}.npy"), data_mask=hidden, rounds=rounds, steps=steps, batch_size=32, ema=0.998,
            low=0.0, high=255.0,
        )  # fmt: skip
        if not train(config, out, resume=(out / "state.pt").exists(), validate_every=10**9):
            raise KeyboardInterrupt
        (out / "done").touch()
    return out / "model.safetensors"


def scored(weights: Path, count: int) -> dict[str, float]:
    """Means over the masks, on whole validation digits."""
    cells = protocol.plan(MASKS, ["conditional"], [8], 8)
    found = protocol.run(protocol.Networks.load(weights), data.load("mnist"), "validation", count, cells)
    assert found is not None
    return {key: float(np.mean([row[key] for row in found.rows])) for key in KEYS}


def main(digits: int, steps: int, count: int = 200) -> None:
    """Train, score, write the page."""
    mnist = data.load("mnist")
    images, rows, weights = mnist.train[:digits], [], {}

    def row(hidden: str, how: str, path: Path) -> None:
        found = scored(path, count)
        weights[hidden, how] = path
        whole = rows[0][2] if rows else found["crps"]
        rows.append([hidden, how, found["crps"], found["crps"] / whole - 1, *(found[k] for k in list(KEYS)[1:])])
        print(rows[-1], flush=True)
        write(rows, digits, steps, count)

    row("nothing", "whole digits", trained("whole", images, steps))
    for hidden in HIDDEN:
        holes = masks.fit(hidden, images, 0)
        seen = np.where(holes, 0, images).astype(np.uint8)
        mask = FOLDER / f"{hidden.replace(':', '-')}.holes.npy"
        np.save(mask, holes)
        name = hidden.replace(":", "-")
        row(hidden, "rounds", trained(f"rounds-{name}", seen, steps, str(mask)))
        row(hidden, "blurred fills", trained(f"blurred-{name}", blurred(seen, holes), steps))
        row(hidden, "biharmonic fills", trained(f"biharmonic-{name}", biharmonic(seen, holes), steps))
    curve(rows)
    picture(mnist.validation[:6], weights)


def write(rows: list[list[Any]], digits: int, steps: int, count: int) -> None:
    """The page, with the rows that there are."""
    lines = [[a, b, f"{c:.4f}", f"{d:+.1%}", *(f"{x:.4f}" for x in rest)] for a, b, c, d, *rest in rows]
    heads = ["hidden in training", "trained on", "CRPS", "against whole", *list(KEYS.values())[1:]]
    table = markdown(heads, lines, left=2)
    text = (DOCS / "damaged.template.md").read_text()
    for name, value in (("table", table), ("digits", f"{digits:,}"), ("steps", f"{steps:,}"), ("count", str(count))):
        text = text.replace(f"{{{name}}}", value)
    with written_whole(DOCS / "damaged.md") as temporary:
        temporary.write_text(text)


def curve(rows: list[list[Any]]) -> None:
    """CRPS over that of whole digits, against the share of pixels that was never seen."""
    figure, axis = plt.subplots(figsize=(5, 3.2), layout="constrained")
    for way in ("rounds", "blurred fills", "biharmonic fills"):
        found = sorted((float(row[0].split(":")[1]), row[3]) for row in rows if row[1] == way and "pixels" in row[0])
        share, over = zip((0.0, 0.0), *found, strict=True)
        axis.plot([100 * x for x in share], [100 * x for x in over], "o-", label=way)
    axis.set(xlabel="pixels of every digit never seen, %", ylabel="CRPS over whole digits, %", ylim=(0, None))
    axis.legend()
    with written_whole(DOCS / "damaged-curve.png") as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def picture(truth: Images, weights: dict[tuple[str, str], Path]) -> None:
    """What the networks saw of a digit, and what they make of validation digits."""
    mask = masks.fit_each([MASKS[i % 4] for i in range(len(truth))], truth)
    columns = [[figures.masked(image, hole) for image, hole in zip(truth, mask, strict=True)]]
    names = ["masked"]
    for (hidden, how), path in weights.items():
        if hidden == "pixels:0.25":  # as whole ones, to the eye
            continue
        filled = inpaint(load(path), truth, mask, 1)[:, 0]
        columns.append([figures.grey(image) for image in filled])
        names.append(f"{SHORT[how]} {hidden.removeprefix('pixels:').split(':')[0].replace('nothing', '')}")
    columns.append([figures.grey(image) for image in truth])
    rows = [list(row) for row in zip(*columns, strict=True)]
    figures.save_picture(figures.sheet(rows, [*names, "original"]), DOCS / "damaged.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=800)
    arguments = parser.parse_args()
    main(arguments.digits, arguments.steps)
