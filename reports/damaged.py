"""Training on incomplete digits, compared with training on complete ones.

    .venv/bin/python reports/damaged.py measure      trains into runs/damaged, once; into reports/damaged/
    .venv/bin/python reports/damaged.py page

MNIST's first training digits, with a share of the pixels, or one half, hidden. For each: EM rounds (``inkfill train
--data-mask``), and training on blurred and on biharmonic fills as if they were complete. Scores on 200 complete
validation digits, K = 8, mean of four masks.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from skimage.restoration import inpaint_biharmonic
from tqdm import tqdm

from common import FOUR_MASKS, Row, folder, run, save, saved, show, trained, write_tables
from inkfill import data
from inkfill.app import figures
from inkfill.data import Images, masks
from inkfill.data.images import Mask
from inkfill.data.incomplete import blurred
from inkfill.evaluation import protocol
from inkfill.files import written_whole
from inkfill.filling.inpaint import inpaint
from inkfill.models.model import load
from inkfill.tables import table
from inkfill.training.config import TrainConfig

REPORT, FOLDER = "damaged", Path("runs/damaged")
HIDDEN = ("pixels:0.25", "pixels:0.5", "pixels:0.75", "half:random")
SHORT = {"complete digits": "complete", "EM rounds": "EM", "blurred fills": "blur", "biharmonic fills": "biharm."}
KEYS = ("crps", "energy", "coverage90", "confident", "frechet")


def biharmonic(images: Images, holes: Mask) -> Images:
    """Every hole filled by biharmonic inpainting."""
    each = zip(tqdm(images), holes, strict=True)
    return np.stack([(inpaint_biharmonic(x / 255.0, h).clip(0, 1) * 255).round().astype(np.uint8) for x, h in each])


def network(name: str, images: Images, steps: int, hidden: str = "", rounds: int = 4) -> Path:
    """Train on these images, once; gives the weights."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    np.save(FOLDER / f"{name}.npy", images)
    config = TrainConfig(
        data=str(FOLDER / f"{name}.npy"), data_mask=hidden, rounds=rounds, steps=steps, batch_size=32, ema=0.998,
        low=0.0, high=255.0,
    )  # fmt: skip
    return trained(config, FOLDER / name)


def scored(weights: Path, count: int) -> dict[str, float]:
    """Means over the masks, on complete validation digits."""
    cells = protocol.plan(FOUR_MASKS, ["conditional"], [8], 8)
    found = protocol.run(protocol.Networks.load(weights), data.load("mnist"), "validation", count, cells)
    assert found is not None
    return {key: float(np.mean([row.get(key, np.nan) for row in found.rows])) for key in KEYS}


def measure(digits: int = 2000, steps: int = 800, count: int = 200) -> None:
    """Train, score, draw."""
    mnist = data.load("mnist")
    images, weights = (
        mnist.train[:digits],
        {("nothing", "complete digits"): network("complete", mnist.train[:digits], steps)},
    )
    for hidden in HIDDEN:
        holes, name = masks.fit(hidden, images, 0), hidden.replace(":", "-")
        observed, mask = np.where(holes, 0, images).astype(np.uint8), FOLDER / f"{name}.holes.npy"
        np.save(mask, holes)
        weights[hidden, "EM rounds"] = network(f"rounds-{name}", observed, steps, str(mask))
        weights[hidden, "blurred fills"] = network(f"blurred-{name}", blurred(observed, holes), steps)
        weights[hidden, "biharmonic fills"] = network(f"biharmonic-{name}", biharmonic(observed, holes), steps)
    rows = [show({"hidden": hidden, "trained": way, **scored(path, count)}) for (hidden, way), path in weights.items()]
    for row in rows:
        row["over"] = row["crps"] / rows[0]["crps"] - 1
    save(REPORT, "digits", rows)
    curve(rows)
    picture(mnist.validation[:6], weights)


def curve(rows: list[Row]) -> None:
    """CRPS relative to complete digits, against the share of hidden pixels."""
    figure, axis = plt.subplots(figsize=(5, 3.2), layout="constrained")
    for way in ("EM rounds", "blurred fills", "biharmonic fills"):
        those = [row for row in rows if row["trained"] == way and "pixels" in row["hidden"]]
        found = [(float(row["hidden"].split(":")[1]), row["over"]) for row in those]
        share, over = zip((0.0, 0.0), *sorted(found), strict=True)
        axis.plot([100 * x for x in share], [100 * x for x in over], "o-", label=way)
    axis.set(xlabel="hidden pixels in training, %", ylabel="CRPS over complete digits, %", ylim=(0, None))
    axis.legend()
    with written_whole(folder(REPORT) / "curve.png") as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def picture(truth: Images, weights: dict[tuple[str, str], Path]) -> None:
    """Validation digits filled by each network."""
    mask = masks.fit_each([FOUR_MASKS[i % 4] for i in range(len(truth))], truth)
    columns, names = [figures.masked(truth, mask)], ["masked"]
    for (hidden, way), path in weights.items():
        if hidden != "pixels:0.25":  # looks like complete digits
            columns.append(figures.grey(inpaint(load(path), truth, mask, 1)[:, 0]))
            names.append(f"{SHORT[way]} {hidden.removeprefix('pixels:').split(':')[0].replace('nothing', '')}")
    rows = [list(row) for row in zip(*columns, figures.grey(truth), strict=True)]
    figures.save_picture(figures.sheet(rows, [*names, "original"]), folder(REPORT) / "samples.png")


def page() -> None:
    """Rewrite the tables of the page from JSON."""
    scores = {
        "hidden": ("hidden in training", "{}"), "trained": ("trained on", "{}"), "crps": ("CRPS", "{:.4f}"),
        "over": ("over complete", "{:+.1%}"), "energy": ("energy score", "{:.4f}"),
        "coverage90": ("coverage 90 %", "{:.3f}"), "confident": ("confidence > 0.9", "{:.3f}"),
        "frechet": ("Fréchet distance", "{:.1f}"),
    }  # fmt: skip
    exact = {
        "law": ("prior", "{}"), "missing": ("mask", "{}"), "error": ("error of the mean (Monte Carlo)", "{:>}"),
        "deviation": ("std", "{:.3f}"), "exact": ("exact", "{:.3f}"), "pixels": ("std of pixels", "{:.3f}"),
        "exact_pixels": ("exact", "{:.3f}"),
    }  # fmt: skip
    write_tables(
        REPORT, {"digits": table(saved(REPORT, "digits"), scores), "exact": table(saved(REPORT, "exact"), exact)}
    )


if __name__ == "__main__":
    run(measure, page)
