"""Pictures of several sizes: four ways to make batches of them, at equal training time. Prints a table.

    .venv/bin/python docs/sizes.py --minutes 5
    .venv/bin/python docs/sizes.py --levels --minutes 3     large pictures: how many resolutions a network should have

Icons of a colour font (Debian's fonts-noto-color-emoji), a quarter each of 24, 32, 40 and 48 pixels; 24 of each size
are held out and completed (K = 8, CRPS per missing value). Each way starts from the same weights.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from pictures import icons, letters, on_white, shuffled

from inkfill.data import Images, masks
from inkfill.data.datasets import uniform
from inkfill.evaluation.cells import Cell
from inkfill.evaluation.scores import evaluate
from inkfill.tables import markdown
from inkfill.models.model import Model, Recipe
from inkfill.core.rng import stream
from inkfill.core.schedule import Schedule
from inkfill.training.config import TrainConfig
from inkfill.core.objectives import Batch, draw_batch, v_errors
from inkfill.core.trainer import Trainer, optimisers
from inkfill.core.unet import UNet, UNetConfig

SIZES, HELD_OUT, MASKS = (24, 32, 40, 48), 24, ("half:left", "box:0.5")
CONFIG = TrainConfig(ema=0.998, warmup=50, unet=UNetConfig(channels=3))
Choose = Callable[[np.random.Generator], Images]


def crop(picture: Images, side: int, rng: np.random.Generator) -> Images:
    """A square part at a random place."""
    y, x = rng.integers(len(picture) - side + 1, size=2)
    return picture[y : y + side, x : x + side]


def ways(train: list[Images]) -> dict[str, tuple[Choose, int]]:
    """How 64 pictures are chosen for a step, and the largest side that a network then knows."""
    tiles = uniform(train)

    def crops_from(pictures: list[Images], side: int, rng: np.random.Generator) -> Images:
        return np.stack([crop(pictures[i], side, rng) for i in rng.integers(len(pictures), size=CONFIG.batch_size)])

    def of_one(rng: np.random.Generator) -> Images:
        side = len(train[rng.integers(len(train))])
        return crops_from([picture for picture in train if len(picture) >= side], side, rng)

    def of_same(rng: np.random.Generator) -> Images:
        side = len(train[rng.integers(len(train))])
        return crops_from([picture for picture in train if len(picture) == side], side, rng)

    return {
        "tiles of the least size": (lambda rng: tiles[rng.integers(len(tiles), size=CONFIG.batch_size)], SIZES[0]),
        "random crops of the least size": (lambda rng: crops_from(train, SIZES[0], rng), SIZES[0]),
        "crops of the size of one picture": (of_one, SIZES[-1]),
        "batches of one size": (of_same, SIZES[-1]),
    }


LEVELS = {  # widths and blocks of each resolution
    "64, 192": UNetConfig(),
    "32, 96, 192": UNetConfig(widths=(32, 96, 192), blocks=(1, 1, 2)),
    "32, 64, 128, 192": UNetConfig.for_size(64),
}


def trained(choose: Choose, side: int, minutes: float, config: TrainConfig = CONFIG) -> Model:
    """A network after so many minutes of the processor."""
    net = UNet(config.unet, 0)
    schedule, spec, channels = Schedule.named("cosine"), masks.parse("training"), net.config.channels

    def draw(step: int) -> Batch:
        rng = stream(0, "train", step)
        return draw_batch(config, schedule, choose(rng), spec, rng)

    trainer = Trainer(net, optimisers(config, net), draw, v_errors, config.clip, config.ema, torch.bfloat16)
    began = time.process_time()
    while (share := (time.process_time() - began) / 60 / minutes) < 1:
        trainer.step(config.rate(trainer.done, share))
    ema: UNet = trainer.ema  # type: ignore[assignment]
    return Model(ema, Recipe(channels=channels, image_size=(side, side), step=trainer.done))


def main(minutes: float) -> None:
    """Train each way, and print what the networks make of held-out icons."""
    full = [on_white(icons((side, side))) for side in SIZES]
    order = np.random.Generator(np.random.Philox(1)).permutation(len(full[0]))
    held_out = len(SIZES) * HELD_OUT
    parts = [[full[i % len(SIZES)][k] for i, k in enumerate(order[:held_out]) if i % len(SIZES) == j] for j in range(4)]
    rows = []
    for name, (choose, side) in ways([full[i % len(SIZES)][k] for i, k in enumerate(order[held_out:])]).items():
        model = trained(choose, side, minutes)
        scores = [evaluate(model, np.stack(part), Cell(mask))["crps"] for mask in MASKS for part in parts]
        rows.append([name, f"{model.recipe.step:,}", *(f"{score:.3f}" for score in scores)])
    print(markdown(["way", "steps", *(f"{mask} {side}" for mask in MASKS for side in SIZES)], rows))


def milliseconds(shape: UNetConfig, side: int) -> float:
    """Of the processor, for one evaluation of one picture; the least of five."""
    net, found, count = UNet(shape).bfloat16(), [], 32 * 1024 // side**2
    x_t, known, level = torch.randn(count, 1, side, side).bfloat16(), torch.ones(count, 1, side, side), torch.ones(1)
    for _ in range(6):
        began = time.process_time()
        with torch.no_grad():
            net(x_t, 0 * x_t, 0 * known.bfloat16(), level)
        found.append(1000 * (time.process_time() - began) / count)
    return min(found[1:])


def levels(minutes: float) -> None:
    """Networks of two to four resolutions: what an evaluation costs, and what they learn of letters of 64x64."""
    sides = (32, 64, 96, 128)
    rows = [[name, *(f"{milliseconds(shape, side):.1f}" for side in sides)] for name, shape in LEVELS.items()]
    print(markdown(["widths", *(f"{side} pixels" for side in sides)], rows), flush=True)
    images, rows = shuffled(letters()), []
    for name, shape in LEVELS.items():
        config = replace(CONFIG, batch_size=32, unet=shape)
        model = trained(lambda rng: images[:-64], 64, minutes, config)
        scores = [evaluate(model, images[-64:], Cell(mask, samples=4)) for mask in MASKS]
        rows.append([name, f"{model.recipe.step:,}", *(f"{s[k]:.3f}" for s in scores for k in ("crps", "energy"))])
    print(markdown(["widths", "steps", *(f"{mask} {k}" for mask in MASKS for k in ("CRPS", "energy"))], rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="of the processor, each way")
    parser.add_argument("--levels", action="store_true")
    arguments = parser.parse_args()
    (levels if arguments.levels else main)(arguments.minutes)
