"""Objectives for one-NFE sampling side by side: as many steps each, from the same weights, on the same batches.

    .venv/bin/python reports/few_ways.py         into reports/few/ways.json

200 validation digits, K = 8, four masks. The teacher's samples are made first, and kept in --pairs.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common import CPU, FOUR_MASKS, optimisers_of, run, save, show
from inkfill.core import masks
from inkfill.core.rng import stream
from inkfill.core.schedule import Schedule
from inkfill.core.trainer import Trainer
from inkfill.core.unet import UNet
from inkfill.data import load as load_data
from inkfill.data.images import BYTES
from inkfill.evaluation import protocol
from inkfill.models.checkpoint import find_checkpoint, load_network
from inkfill.models.model import Model, Recipe, find_dtype, load
from inkfill.training import few
from inkfill.training.batches import Batches
from inkfill.training.config import TrainConfig

KEYS = ("crps", "energy", "coverage50", "coverage90", "confident", "ssim", "frechet")
MARKS = (1 / 3, 1.0)  # fractions of the steps: a run each, with its whole learning-rate schedule


def teacher_alone(net: nn.Module, batch: few.DrawBatch) -> Tensor:
    """Distillation: the distance to the teacher's sample from the same x_T."""
    assert batch.distilled is not None
    drawn, top = few.two_draws(net, batch), (batch.t == batch.schedule.T).to(batch.x0.device)
    apart = sum(few.distance(drawn[:, i], batch.distilled[:, i], batch.mask) for i in range(few.DRAWS))
    return (top * apart / 2)[:, None, None, None]


def consistency(share: float) -> Callable[[nn.Module, few.DrawBatch], Tensor]:
    """Consistency tuning (Geng et al. 2024): the prediction at t matches that at t (1 - share), from the same noise."""

    def errors(net: nn.Module, batch: few.DrawBatch) -> Tensor:
        T, known = batch.schedule.T, (~batch.mask).float()
        x0, eps, nothing = batch.x0, batch.eps[:, 0], torch.zeros_like(batch.x0)

        def prediction(t: Tensor) -> Tensor:
            x_t = batch.schedule.q_sample(x0, t, eps)
            v = net(x_t, x0 * known, known, (t / T).float(), None, nothing)
            return batch.schedule.x0_from_v(x_t, t, v.float())

        lower = (batch.t * (1 - share)).long().clamp(min=1)
        with torch.no_grad():
            target = prediction(lower)
        return few.distance(prediction(batch.t), target, batch.mask)[:, None, None, None] / share

    return errors


# By name: whether the teacher's samples are given, and the loss.
WAYS: dict[str, tuple[bool, Callable[[nn.Module, Any], Tensor]]] = {
    "energy score and teacher": (True, few.few_errors),
    "energy score alone": (False, few.few_errors),
    "teacher alone": (True, teacher_alone),
    "consistency, an eighth lower": (False, consistency(1 / 8)),
    "consistency, a thirtieth lower": (False, consistency(1 / 30)),
}


def measured(net: UNet, schedule: str) -> dict[str, float]:
    """Scores of one evaluation, means over the masks."""
    model = Model(net, Recipe(objective="few", schedule=schedule, sampling_steps=1))
    cells = protocol.plan(FOUR_MASKS, ["few"], [1], 8)
    found = protocol.run(protocol.Networks(model), load_data("mnist"), "validation", 200, cells)
    assert found is not None
    return {key: float(np.mean([float(row[key]) for row in found.rows])) for key in KEYS}


def trained(way: str, steps: int, pairs: few.Pairs) -> dict[str, float]:
    """Train one way for so many steps, and score it."""
    distilled, errors = WAYS[way]
    start, recipe = load_network(find_checkpoint("mnist"))
    config = TrainConfig(
        objective="few", batch_size=32, muon_rate=0.012, learning_rate=0.002, ema=0.99, warmup=50,
        unet=replace(start.config, latent=True),
    )  # fmt: skip
    net, images, schedule = UNet(config.unet, 0), load_data("mnist").train, Schedule.named(str(recipe["schedule"]))
    net.load_state_dict({**net.state_dict(), **start.state_dict()})
    batches = Batches(schedule, masks.parse("training"), BYTES, config.batch_size, make=few.draw_few)
    batches = few.with_pairs(batches, pairs, images) if distilled else batches

    def draw(step: int) -> few.DrawBatch:
        return batches.draw(images, stream(0, "train", step))

    dtype = find_dtype(None, CPU)
    trainer = Trainer(net, optimisers_of(config, net), draw, errors, config.clip, config.ema, dtype)
    for step in range(steps):
        trainer.step(config.rate(step, step / steps))
    return measured(trainer.ema, str(recipe["schedule"]))


def main(steps: int = 360, pairs: Path = Path("runs/few/pairs"), count: int = 16_384) -> None:
    """Train and score every way; ``count``: masked images that the teacher fills."""
    rows = []
    found = few.find_pairs(pairs, load, load_data("mnist").train, masks.parse("training"), count, 0)
    for way, share in ((way, share) for way in WAYS for share in MARKS):
        rows.append(show({"way": way, "steps": int(steps * share), **trained(way, int(steps * share), found)}))
        save("few", "ways", rows)


if __name__ == "__main__":
    run(main)
