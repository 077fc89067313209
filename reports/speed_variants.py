"""Ablations of the training configuration at equal time.

    .venv/bin/python reports/speed_variants.py --minutes 0.6 --rounds 2       into reports/speed/variants.json

Every variant trains from the same random weights for the same time, in turn, so a machine that changes speed shows.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch

import inkfill
from common import CPU, run, save, show
from inkfill import data
from inkfill.core import masks
from inkfill.core.objectives import eps_errors, v_errors
from inkfill.core.rng import stream
from inkfill.core.unet import UNetConfig
from inkfill.data.images import BYTES
from inkfill.models.model import Model, find_dtype
from inkfill.training.batches import Batches
from inkfill.training.config import TrainConfig
from inkfill.training.run import train

BASE = TrainConfig(warmup=50, ema=0.98)  # the default, with warm-up and EMA for a short run
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
    "no EMA": replace(BASE, ema=0.0),
    "wider, 64 and 256": replace(BASE, unet=UNetConfig(widths=(64, 256))),
    "deeper, 3 blocks": replace(BASE, unet=UNetConfig(blocks=(1, 3))),
    "float32": replace(BASE, dtype="float32"),
}


def trained(config: TrainConfig) -> Model:
    """A network trained from random weights."""
    with tempfile.TemporaryDirectory() as folder:
        train(config, Path(folder, "run"), validate_every=10**9, quiet=True)
        return inkfill.load(Path(folder, "run", "model.safetensors"), dtype="float32")


def losses(model: Model, config: TrainConfig, images: data.Images) -> dict[str, float]:
    """Validation errors on one set of draws, in the precision of the training."""
    batches, totals = Batches(model.schedule, masks.parse(BASE.masks), BYTES, 250), {"noise": 0.0, "v": 0.0}
    bfloat16 = find_dtype(config.dtype or None, CPU) == torch.bfloat16
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        for part in range(8):
            batch = batches.draw(images, stream(0, "race", part))
            for name, objective in (("noise", eps_errors), ("v", v_errors)):
                totals[name] += float(objective(model.net, batch).sum()) / batch.count / 8
    return {"step": model.recipe.step, **totals}


def main(minutes: float = 1.0, rounds: int = 2, variants: tuple[str, ...] = (*VARIANTS,)) -> None:
    """Train each variant for so many minutes in each round, and save its losses."""
    images, rows = data.load("auto").validation, []
    for turn in range(rounds):
        for name in variants:
            found = losses(trained(replace(VARIANTS[name], minutes=minutes)), VARIANTS[name], images)
            rows.append(show({"variant": name, "round": turn, "minutes": minutes, **found}))
    save("speed", "variants", rows)


if __name__ == "__main__":
    run(main)
