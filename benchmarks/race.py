"""The race: how soon is a network from random weights good enough? And what lowers the loss of a short training?

    .venv/bin/python benchmarks/race.py line --original runs/original/model.safetensors --out docs/speed/race.json
    .venv/bin/python benchmarks/race.py variants --minutes 0.6 --rounds 2 --out docs/speed/variants.json

`line` trains afresh for each number of seconds, with the whole curve of learning rates fitted into it, until the CRPS on
200 validation digits (K = 4, default sampler) is under both lines: what `original.py` reaches in its 30 epochs, and what the
shipped weights reach; on `half:left` alone, the one mask that the original learns, then once for all masks. Beside them
stands what the original's 30 epochs take in float32 at the rate measured just before. `variants` trains every variant from
the same random weights for the same time, one after another and round again, so that a machine that changes speed shows.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import inkfill
import original as recipe
from common import CPU, Row, alternate, run, save, show, timed
from inkfill import data
from inkfill.data import masks
from inkfill.evaluation import cells, scores
from inkfill.models.model import Model, find_dtype
from inkfill.core.rng import stream
from inkfill.training.config import TrainConfig
from inkfill.core.objectives import draw_batch, eps_errors, v_errors
from inkfill.training.run import train
from inkfill.core.unet import UNetConfig

BASE = TrainConfig(warmup=50, ema=0.98)  # the shipped recipe, with a warm-up and a mean that fit a short run
FAST = replace(BASE, batch_size=32)  # the best of the variants below, for a minute; not for five
ONE, SEVERAL = ("half:left",), ("half:left", "box:10", "pixels:0.9")
COUNT = 200  # validation digits
SECONDS = (15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 180.0, 300.0)
VARIANTS = {
    "base": BASE,
    "AdamW for everything": replace(BASE, muon_rate=0.0),
    "noise weighting": replace(BASE, objective="eps"),
    "batch 128": replace(BASE, batch_size=128),
    "batch 32": replace(BASE, batch_size=32),
    "batch 16": replace(BASE, batch_size=16),
    "batch 32, AdamW for everything": replace(BASE, batch_size=32, muon_rate=0.0),
    "Muon rate 0.05": replace(BASE, muon_rate=0.05),
    "Muon rate 0.01": replace(BASE, muon_rate=0.01),
    "AdamW rate 0.006": replace(BASE, learning_rate=6e-3),
    "no running mean": replace(BASE, ema=0.0),
    "wider, 64 and 256": replace(BASE, unet=UNetConfig(widths=(64, 256))),
    "deeper, 3 blocks": replace(BASE, unet=UNetConfig(blocks=(1, 3))),
    "float32": replace(BASE, dtype="float32"),
}


def trained(config: TrainConfig, dtype: str | None = None) -> tuple[Model, float]:
    """A network trained afresh, and the seconds that it took."""
    with tempfile.TemporaryDirectory() as folder:
        _, took = timed(lambda: train(config, Path(folder, "run"), validate_every=10**9, quiet=True))
        return inkfill.load(Path(folder, "run", "model.safetensors"), dtype=dtype), took


def mean_crps(model: Model, images: data.Images, specs: tuple[str, ...]) -> float:
    """Over masks."""
    return float(np.mean([scores.evaluate(model, images, cells.Cell(spec, samples=4))["crps"] for spec in specs]))


def goals(images: data.Images, first: Path | None) -> list[Row]:
    """The lines: what the shipped weights reach, and what the original does, if its checkpoint is given."""
    shipped = inkfill.load()
    found = [{"whose": "shipped", "masks": m, "crps": mean_crps(shipped, images, m)} for m in (ONE, SEVERAL)]
    if first:
        prior = recipe.OriginalPrior(first)
        crps = scores.score(images, recipe.complete(prior, images), recipe.CELL)["crps"]
        found.append({"whose": f"original, {prior.epochs:.0f} epochs", "masks": ONE, "crps": crps})
    return [show(goal) for goal in found]


def original_seconds(images: data.Images, steps: int = 6) -> float:
    """What 30 epochs of the original recipe take here, in float32, from a few of its steps."""
    trainer = recipe.new_trainer(images, bfloat16=False)
    each = np.mean(alternate({"step": lambda: trainer.step(1.0)}, steps)["step"])
    return float(each) * recipe.EPOCHS * len(images) / recipe.BATCH


def trial(config: TrainConfig, seconds: float, specs: tuple[str, ...], mnist: data.Dataset) -> Row:
    """A training of so many seconds, and how good its network is on these masks."""
    slow = original_seconds(mnist.train)
    model, took = trained(replace(config, minutes=seconds / 60))
    row = {"seconds": took, "steps": model.recipe.step, "crps": mean_crps(model, mnist.validation[:COUNT], specs)}
    return show({**row, "masks": specs, "only": config.masks != BASE.masks, "original_seconds": slow})


def line(
    original: Path | None = None, seconds: tuple[float, ...] = SECONDS, broad: float = 300.0, out: Path | None = None
) -> None:
    """Train on one mask for longer and longer until the lines are reached, and then for ``broad`` seconds on all.

    ``original`` is a checkpoint of benchmarks/original.py, for the first line.
    """
    mnist, rows = data.load("mnist"), []
    lines = goals(mnist.validation[:COUNT], original)
    lowest = min(goal["crps"] for goal in lines if goal["masks"] == ONE)
    for budget in seconds:
        rows.append(trial(replace(FAST, masks=ONE[0]), budget, ONE, mnist))
        if rows[-1]["crps"] <= lowest:
            break
    rows.append(trial(BASE, broad, SEVERAL, mnist))
    save({"lines": lines, "rows": rows}, out)


def losses(model: Model, config: TrainConfig, images: data.Images) -> dict[str, float]:
    """Validation errors on one set of draws, in the precision of the training."""
    spec, totals, fixed = masks.parse(BASE.masks), {"noise": 0.0, "v": 0.0}, replace(BASE, batch_size=250)
    bfloat16 = find_dtype(config.dtype or None, CPU) == torch.bfloat16
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        for part in range(8):
            batch = draw_batch(fixed, model.schedule, images, spec, stream(0, "race", part))
            for name, objective in (("noise", eps_errors), ("v", v_errors)):
                totals[name] += float(objective(model.net, batch).sum()) / batch.count / 8
    return {"step": model.recipe.step, **totals}


def variants(
    minutes: float = 1.0, rounds: int = 2, variants: tuple[str, ...] = (*VARIANTS,), out: Path | None = None
) -> None:
    """Losses of each variant in each round, each trained for so many minutes."""
    images, rows = data.load("auto").validation, []
    for turn in range(rounds):
        for name in variants:
            model, _ = trained(replace(VARIANTS[name], minutes=minutes), "float32")
            found = losses(model, VARIANTS[name], images)
            rows.append(show({"variant": name, "round": turn, "minutes": minutes, **found}))
    save(rows, out)


if __name__ == "__main__":
    run(line, variants)
