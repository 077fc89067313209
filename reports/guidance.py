"""Autoguidance, and a network trained on guided predictions.

    .venv/bin/python reports/guidance.py distil --minutes 105    trains from runs/guidance/good.safetensors
    .venv/bin/python reports/guidance.py measure                 into reports/guidance/
    .venv/bin/python reports/guidance.py page

MNIST, validation digits. Where pixels are observed the guide is the default network after four minutes of training,
where none is, a smaller network after three: see the page.
"""

import copy
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from common import FOUR_MASKS, Row, run, save, saved, show, write_tables
from inkfill.core import masks
from inkfill.core.guidance import INTERVAL, WEIGHT, Guided
from inkfill.core.objectives import Batch, predicted_v
from inkfill.core.rng import stream
from inkfill.core.trainer import Trainer, optimisers
from inkfill.core.unet import UNet
from inkfill.data import load as load_data
from inkfill.evaluation import protocol
from inkfill.models.checkpoint import load_network, save_network
from inkfill.models.model import Model, load
from inkfill.tables import table
from inkfill.training.batches import Batches

REPORT, FOLDER = "guidance", Path("runs/guidance")
GOOD, GUIDE, TINY, DISTILLED = (FOLDER / f"{name}.safetensors" for name in ("good", "guide", "tiny", "model"))
MIXTURE = masks.TRAINING.replace("all@12", "all@60")
UNCONDITIONAL = 2.0  # guidance weight where no pixel is observed
CONSTANT, SAVE = 0.65, 500  # share of the run at a constant rate; steps between saves
SCORES = {
    "weights": ("weights", "{}"), "crps": ("CRPS", "{:.4f}"), "energy": ("energy score", "{:.4f}"),
    "coverage50": ("coverage 50 %", "{:.3f}"), "coverage90": ("coverage 90 %", "{:.3f}"),
    "confident": ("confidence > 0.9", "{:.3f}"), "new8": ("new, 8 NFE", "{:.3f}"), "frechet8": ("Fréchet", "{:.2f}"),
    "new16": ("new, 16 NFE", "{:.3f}"), "frechet16": ("Fréchet", "{:.2f}"),
}  # fmt: skip


class Pair(nn.Module):
    """A network guided by one network where pixels are observed, and by another where none is."""

    def __init__(self, good: UNet, guide: UNet, tiny: UNet):
        super().__init__()
        self.some, self.none = Guided(good, guide, WEIGHT), Guided(good, tiny, UNCONDITIONAL)
        self.config, self.embed = good.config, good.embed

    def forward(self, x_t: Tensor, pixels: Tensor, known: Tensor, t: Tensor, *rest: Tensor | None) -> Tensor:
        """v, as of a ``UNet``."""
        t, v = t.expand(len(x_t)), torch.empty_like(x_t)
        empty = known.flatten(1).sum(1) == 0
        for guided, rows in ((self.some, ~empty), (self.none, empty)):
            if rows.any():
                v[rows] = guided(x_t[rows], pixels[rows], known[rows], t[rows])
        return v


def distil(good: Path = GOOD, guide: Path = GUIDE, tiny: Path = TINY, minutes: float = 100.0, seed: int = 11) -> None:
    """Train from ``good`` on guided predictions inside the interval, and on images below it.

    At a constant rate, then a linear decay by the clock. A run by the clock cannot be repeated bit for bit.
    """
    teacher = Pair(*(load(path, dtype="float32").net for path in (good, guide, tiny)))
    student, recipe = load_network(good)
    model, data = load(good, dtype="float32"), load_data("mnist")
    batches = Batches(model.schedule, masks.parse(MIXTURE), model.value_range, 64)

    def draw(step: int) -> Batch:
        batch: Batch = batches.draw(data.train, stream(seed, "distil", step))
        return batch

    def errors(net: nn.Module, batch: Batch) -> Tensor:
        target, high = batch.schedule.v_from_eps(batch.x0, batch.t, batch.eps), batch.time >= INTERVAL[0]
        known = batch.known[high]
        with torch.no_grad():
            target[high] = teacher(batch.x_t[high], batch.x0[high] * known, known, batch.time[high])
        return (target - predicted_v(net, batch)).square() * batch.scored

    net = copy.deepcopy(student).requires_grad_(True)
    trainer = Trainer(net, optimisers(net, learning_rate=1e-3, muon_rate=8e-3), draw, errors)
    began = time.monotonic()
    while (share := (time.monotonic() - began) / (60 * minutes)) < 1:
        trainer.step(min(1.0, (1 - share) / (1 - CONSTANT), (trainer.done + 1) / 100))
        if trainer.done % SAVE == 0:
            save_network(FOLDER / "model.safetensors", student, trainer.ema.state_dict(), recipe)
    save_network(FOLDER / "model.safetensors", student, trainer.ema.state_dict(), recipe)


def scored(name: str, model: Model, file: Path, count: int) -> Row:
    """Means over four masks, and the realism of unconditional samples at two NFE."""
    networks, data = protocol.Networks(model), load_data("mnist")
    model.source = file
    found = protocol.run(networks, data, "validation", count, protocol.plan(FOUR_MASKS, ["conditional"], [8], 8))
    assert found is not None
    row: Row = {"weights": name}
    row |= {key: float(np.mean([each[key] for each in found.rows])) for key in list(SCORES)[1:6]}
    for steps in (8, 16):
        found = protocol.run(networks, data, "validation", 1000, protocol.plan(["all"], ["conditional"], [steps], 1))
        assert found is not None
        row |= {f"new{steps}": found.rows[0]["confident"], f"frechet{steps}": found.rows[0]["frechet"]}
    return show(row)


def measure(good: Path = GOOD, guide: Path = GUIDE, tiny: Path = TINY, out: Path = DISTILLED, count: int = 200) -> None:
    """Score the shipped weights, those with more unconditional training, these guided, and the distilled network."""
    pair = Pair(*(load(path, dtype="float32").net for path in (good, guide, tiny)))
    guided = load(good, dtype="float32")
    guided.net = pair  # type: ignore[assignment]
    models = {
        "mnist": load("mnist", dtype="float32"),
        "more unconditional training": load(good, dtype="float32"),
        "the same, guided": guided,
        "distilled": load(out, dtype="float32"),
    }
    save(REPORT, "scores", [scored(name, model, good, count) for name, model in models.items()])


def page() -> None:
    """Rewrite the table of the page from JSON."""
    write_tables(REPORT, {"scores": table(saved(REPORT, "scores"), SCORES)})


if __name__ == "__main__":
    run(distil, measure, page)
