"""The ways to one evaluation beside each other: as many steps each, from the same weights, on the same batches.

    .venv/bin/python docs/few_ways.py --out docs/few-ways.json

MNIST; 200 validation digits, K = 8, the masks half:left, box:10, quadrants:3 and pixels:0.9. The teacher's completions
are made first, into --pairs, and kept there.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inkfill.models.checkpoint import find_checkpoint, load_network
from inkfill.files import write_json
from inkfill.data import load as load_data
from inkfill.data import masks
from inkfill.evaluation import protocol
from inkfill.models.model import Model, Recipe, find_dtype, load
from inkfill.core.rng import stream
from inkfill.core.schedule import Schedule
from inkfill.training import few
from inkfill.training.config import TrainConfig
from inkfill.core.trainer import Trainer, optimisers
from inkfill.core.unet import UNet

MASKS = ("half:left", "box:10", "quadrants:3", "pixels:0.9")
KEYS = ("crps", "energy", "coverage50", "coverage90", "confident", "ssim", "frechet")
MARKS = (1 / 3, 1.0)  # shares of the steps at which it is measured: each its own run, with its whole curve of rates


def teacher_alone(net: nn.Module, batch: few.DrawBatch) -> Tensor:
    """Distillation: the teacher's completion from the same x_T, and nothing of the truth."""
    assert batch.taught is not None
    drawn, top = few.two_draws(net, batch), (batch.t == batch.schedule.T).to(batch.x0.device)
    apart = sum(few.distance(drawn[:, i], batch.taught[:, i], batch.mask) for i in range(few.DRAWS))
    return (top * apart / 2)[:, None, None, None]


def consistency(share: float) -> Callable[[nn.Module, few.DrawBatch], Tensor]:
    """Consistency tuning (Geng et al. 2024, "Consistency models made easy"): what the network says at level t is
    what it says a little lower down, from the same noise; ``share`` of t is how much lower."""

    def errors(net: nn.Module, batch: few.DrawBatch) -> Tensor:
        T, known = batch.schedule.T, (~batch.mask).float()
        x0, eps, nothing = batch.x0, batch.eps[:, 0], torch.zeros_like(batch.x0)

        def says(t: Tensor) -> Tensor:
            x_t = batch.schedule.q_sample(x0, t, eps)
            v = net(x_t, x0 * known, known, (t / T).float(), None, nothing)
            return batch.schedule.x0_from_v(x_t, t, v.float())

        lower = (batch.t * (1 - share)).long().clamp(min=1)
        with torch.no_grad():
            target = says(lower)
        return few.distance(says(batch.t), target, batch.mask)[:, None, None, None] / share

    return errors


# By name: whether the teacher's completions are given, and what is minimised.
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
    cells = protocol.plan(MASKS, ["few"], [1], 8)
    found = protocol.run(protocol.Networks(model, find_checkpoint(None)), load_data("mnist"), "validation", 200, cells)
    assert found is not None
    return {key: float(np.mean([float(row[key]) for row in found.rows])) for key in KEYS}


def trained(way: str, steps: int, pairs: few.Pairs) -> dict[str, float]:
    """One way for so many steps, and its scores."""
    taught, errors = WAYS[way]
    start, recipe = load_network(find_checkpoint("mnist"))
    config = TrainConfig(
        objective="few", batch_size=32, muon_rate=0.012, learning_rate=0.002, ema=0.99, warmup=50,
        unet=replace(start.config, fresh=True),
    )  # fmt: skip
    net, images, spec = UNet(config.unet, 0), load_data("mnist").train, masks.parse("training")
    net.load_state_dict({**net.state_dict(), **start.state_dict()})
    schedule = Schedule.named(str(recipe["schedule"]))

    def draw(step: int) -> few.DrawBatch:
        return few.draw_few(
            config, schedule, images, spec, stream(0, "train", step), pairs=pairs if taught else None
        )  # fmt: skip

    dtype = find_dtype(None, torch.device("cpu"))
    trainer = Trainer(net, optimisers(config, net), draw, errors, config.clip, config.ema, dtype)
    for step in range(steps):
        trainer.step(config.rate(step, step / steps))
    return measured(trainer.ema, str(recipe["schedule"]))


def main(steps: int, folder: Path, count: int, out: Path) -> None:
    """Train and measure every way, and write what was found after each."""
    spec, rows = masks.parse("training"), []
    pairs = few.find_pairs(folder, load, load_data("mnist").train, spec, count, 0)
    for way in WAYS:
        for share in MARKS:
            rows.append({"way": way, "steps": int(steps * share), **trained(way, int(steps * share), pairs)})
            print(rows[-1], flush=True)
            write_json(out, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=360)
    parser.add_argument("--pairs", type=Path, default=Path("runs/few/pairs"))
    parser.add_argument("--count", type=int, default=16_384, help="conditions that the teacher completes")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "few-ways.json")
    arguments = parser.parse_args()
    main(arguments.steps, arguments.pairs, arguments.count, arguments.out)
