"""Characters under stains, none complete: the figure and the numbers of docs/own-images.md.

    .venv/bin/python reports/damaged_stains.py --minutes 10

Characters are those of matplotlib's fonts at 32x32. Every one is stained; 200 are held out of training.
"""

from pathlib import Path

import numpy as np

from common import folder, run, show, shuffled, small_letters, trained
from inkfill.app import figures
from inkfill.core.rng import stream
from inkfill.data import masks
from inkfill.evaluation import metrics
from inkfill.evaluation.baselines import BASELINES
from inkfill.filling.inpaint import inpaint
from inkfill.models.model import load
from inkfill.training.config import TrainConfig

FOLDER = Path("runs/stains")
COUNT, HELD_OUT, SHOWN = 4000, 200, 6


def main(minutes: float = 10.0) -> None:
    """Train, fill, score, draw."""
    images = shuffled(small_letters())[: COUNT + HELD_OUT]
    stains = masks.fit("strokes", images, 0)
    observed = np.where(stains, 0, images).astype(np.uint8)
    FOLDER.mkdir(parents=True, exist_ok=True)
    np.save(FOLDER / "characters.npy", observed[:COUNT])
    np.save(FOLDER / "stains.npy", stains[:COUNT])
    config = TrainConfig(data=str(FOLDER / "characters.npy"), data_mask=str(FOLDER / "stains.npy"), minutes=minutes)
    model, truth, holes = load(trained(config, FOLDER / "run")), images[COUNT:], stains[COUNT:]
    filled = inpaint(model, observed[COUNT:], holes, 8)
    plain = BASELINES["biharmonic"](images[:COUNT], observed[COUNT:], holes, 1, stream(0))
    ours = float(np.nanmean(metrics.crps(truth, filled, holes)))
    theirs = float(np.nanmean(metrics.crps(truth, plain, holes, draws=False)))
    show({"steps": model.recipe.step, "stained": float(stains.mean()), "CRPS": ours, "biharmonic": theirs})
    widest = np.argsort(-holes.mean((1, 2)), kind="stable")[:SHOWN]
    rows = [
        [figures.masked(truth[i], holes[i]), *map(figures.grey, (*filled[i][:3], plain[i, 0], truth[i]))]
        for i in widest
    ]
    columns = ["stained", "filled", "filled", "filled", "biharmonic", "original"]
    figures.save_picture(figures.sheet(rows, columns), folder("damaged") / "stains.png")


if __name__ == "__main__":
    run(main)
