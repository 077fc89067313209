"""The picture and the figures of docs/recipes/scans.md: characters under stains, none of them whole.

    .venv/bin/python docs/scans.py --minutes 10

Characters are those of matplotlib's fonts at 32x32. Every one lies under a stain; 200 are left out of the training.
"""

import argparse
from pathlib import Path

import numpy as np
from own_data import small_letters
from pictures import shuffled

from inkfill.app import figures
from inkfill.data import masks
from inkfill.evaluation import metrics
from inkfill.evaluation.baselines import BASELINES
from inkfill.filling.inpaint import inpaint
from inkfill.models.model import load
from inkfill.core.rng import stream
from inkfill.training.config import TrainConfig
from inkfill.training.run import train

DOCS, FOLDER = Path(__file__).parent, Path("runs/scans")
COUNT, HELD_OUT, SHOWN = 4000, 200, 6


def main(minutes: float) -> None:
    """Stain, train, fill, score, draw."""
    images = shuffled(small_letters())[: COUNT + HELD_OUT]
    stains = masks.fit("strokes", images, 0)
    seen = np.where(stains, 0, images).astype(np.uint8)
    FOLDER.mkdir(parents=True, exist_ok=True)
    np.save(FOLDER / "scans.npy", seen[:COUNT])
    np.save(FOLDER / "stains.npy", stains[:COUNT])
    if not (FOLDER / "run" / "model.safetensors").exists():
        config = TrainConfig(data=str(FOLDER / "scans.npy"), data_mask=str(FOLDER / "stains.npy"), minutes=minutes)
        if not train(config, FOLDER / "run", validate_every=10**9):
            raise KeyboardInterrupt
    model, truth, holes = load(FOLDER / "run" / "model.safetensors"), images[COUNT:], stains[COUNT:]
    filled = inpaint(model, seen[COUNT:], holes, 8)
    plain = BASELINES["biharmonic"](images[:COUNT], seen[COUNT:], holes, 1, stream(0))
    ours = float(np.nanmean(metrics.crps(truth, filled, holes)))
    theirs = float(np.nanmean(metrics.crps(truth, plain, holes, draws=False)))
    print(f"{model.recipe.step:,} steps; {stains.mean():.0%} stained; CRPS {ours:.4f}, biharmonic {theirs:.4f}")
    widest = np.argsort(-holes.mean((1, 2)), kind="stable")[:SHOWN]
    rows = [
        [figures.masked(truth[i], holes[i]), *map(figures.grey, (*filled[i][:3], plain[i, 0], truth[i]))]
        for i in widest
    ]
    columns = ["stained", "filled", "filled", "filled", "biharmonic", "original"]
    figures.save_picture(figures.sheet(rows, columns), DOCS / "recipes" / "scans.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    main(parser.parse_args().minutes)
