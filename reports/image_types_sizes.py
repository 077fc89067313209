"""Images of several sizes: how to batch them; and large images: how many resolutions a network needs.

    .venv/bin/python reports/image_types_sizes.py batches --minutes 5
    .venv/bin/python reports/image_types_sizes.py resolutions --minutes 3

Batches: icons of a colour font (Debian's fonts-noto-color-emoji), a quarter each of 24, 32, 40 and 48 pixels; 24 of
each size are held out (K = 8). All ways start from the same weights and train for the same time.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from common import icons, letters, on_white, optimisers_of, run, save, show, shuffled
from inkfill.core import masks
from inkfill.core.objectives import Batch, v_errors
from inkfill.core.rng import stream
from inkfill.core.schedule import Schedule
from inkfill.core.trainer import Trainer
from inkfill.core.unet import UNet, UNetConfig
from inkfill.data import Images
from inkfill.data.datasets import uniform
from inkfill.data.images import BYTES
from inkfill.evaluation.protocol import evaluate
from inkfill.models.model import Model, Recipe
from inkfill.training.batches import Batches
from inkfill.training.config import TrainConfig

SIZES, HELD_OUT, MASKS = (24, 32, 40, 48), 24, ("half:left", "box:0.5")
CONFIG = TrainConfig(ema=0.998, warmup=50, unet=UNetConfig(channels=3))
Choose = Callable[[np.random.Generator], Images]


def crop(image: Images, side: int, rng: np.random.Generator) -> Images:
    """A square part at a random place."""
    y, x = rng.integers(len(image) - side + 1, size=2)
    return image[y : y + side, x : x + side]


def ways(train: list[Images]) -> dict[str, tuple[Choose, int]]:
    """How the images of a step are chosen, and the largest side in training."""
    tiles = uniform(train)

    def crops_from(images: list[Images], side: int, rng: np.random.Generator) -> Images:
        return np.stack([crop(images[i], side, rng) for i in rng.integers(len(images), size=CONFIG.batch_size)])

    def of_one(rng: np.random.Generator) -> Images:
        side = len(train[rng.integers(len(train))])
        return crops_from([image for image in train if len(image) >= side], side, rng)

    def of_same(rng: np.random.Generator) -> Images:
        side = len(train[rng.integers(len(train))])
        return crops_from([image for image in train if len(image) == side], side, rng)

    return {
        "tiles of the smallest size": (lambda rng: tiles[rng.integers(len(tiles), size=CONFIG.batch_size)], SIZES[0]),
        "random crops of the smallest size": (lambda rng: crops_from(train, SIZES[0], rng), SIZES[0]),
        "crops to the size of one image": (of_one, SIZES[-1]),
        "images of one size": (of_same, SIZES[-1]),
    }


SHAPES = {  # widths and blocks of each resolution
    "64, 192": UNetConfig(),
    "32, 96, 192": UNetConfig(widths=(32, 96, 192), blocks=(1, 1, 2)),
    "32, 64, 128, 192": UNetConfig.for_size(64),
}


def trained(choose: Choose, side: int, minutes: float, config: TrainConfig = CONFIG) -> Model:
    """A network after so many minutes of processor time."""
    net = UNet(config.unet, 0)
    batches = Batches(Schedule.named("cosine"), masks.parse("training"), BYTES, config.batch_size)

    def draw(step: int) -> Batch:
        rng = stream(0, "train", step)
        return batches.draw(choose(rng), rng)

    trainer = Trainer(net, optimisers_of(config, net), draw, v_errors, config.clip, config.ema, torch.bfloat16)
    began = time.process_time()
    while (share := (time.process_time() - began) / 60 / minutes) < 1:
        trainer.step(config.rate(trainer.done, share))
    ema: UNet = trainer.ema  # type: ignore[assignment]
    return Model(ema, Recipe(channels=net.config.channels, image_size=(side, side), step=trainer.done))


def batches(minutes: float = 5.0) -> None:
    """Train each way, and score held-out icons."""
    full = [on_white(icons((side, side))) for side in SIZES]
    order = np.random.Generator(np.random.Philox(1)).permutation(len(full[0]))
    held_out = len(SIZES) * HELD_OUT
    parts = [[full[i % len(SIZES)][k] for i, k in enumerate(order[:held_out]) if i % len(SIZES) == j] for j in range(4)]
    rows = []
    for name, (choose, side) in ways([full[i % len(SIZES)][k] for i, k in enumerate(order[held_out:])]).items():
        model = trained(choose, side, minutes)
        crps = {
            mask: {str(len(part[0])): evaluate(model, np.stack(part), mask)[0]["crps"] for part in parts}
            for mask in MASKS
        }
        rows.append(show({"way": name, "steps": model.recipe.step, "crps": crps}))
    save("image-types", "batches", rows)


def milliseconds(shape: UNetConfig, side: int) -> float:
    """Processor time of one network evaluation of one image; the least of five."""
    net, found, count = UNet(shape).bfloat16(), [], 32 * 1024 // side**2
    x_t, known, time_input = (
        torch.randn(count, 1, side, side).bfloat16(),
        torch.ones(count, 1, side, side),
        torch.ones(1),
    )
    for _ in range(6):
        began = time.process_time()
        with torch.no_grad():
            net(x_t, 0 * x_t, 0 * known.bfloat16(), time_input)
        found.append(1000 * (time.process_time() - began) / count)
    return min(found[1:])


def resolutions(minutes: float = 3.0) -> None:
    """Networks of two to four resolutions: the time of an evaluation, and scores on letters of 64x64."""
    images, rows = shuffled(letters()), []
    for name, shape in SHAPES.items():
        row = {"widths": name, "milliseconds": {str(side): milliseconds(shape, side) for side in (32, 64, 96, 128)}}
        model = trained(lambda rng: images[:-64], 64, minutes, replace(CONFIG, batch_size=32, unet=shape))
        half, box = evaluate(model, images[-64:], MASKS, samples=4)
        row |= {"steps": model.recipe.step, "half_crps": half["crps"], "half_energy": half["energy"]}
        rows.append(show(row | {"box_crps": box["crps"], "box_energy": box["energy"]}))
    save("image-types", "resolutions", rows)


if __name__ == "__main__":
    run(batches, resolutions)
