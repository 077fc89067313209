"""The recipe that this project started from, as the row that everything is compared with.

    .venv/bin/python benchmarks/original.py train --out runs/original --epochs 30 [--bfloat16]
    .venv/bin/python benchmarks/original.py loss --epochs 1 --json docs/speed/original.json    float32 beside bfloat16
    .venv/bin/python benchmarks/original.py score --weights runs/original/model.safetensors --count 100

One mask, `half:left`. A network of three convolution levels with attention at 7x7 and a tanh at the end predicts the
clean image from one plane: x_t where pixels are missing, clean pixels where they are known. 200 levels, cosine.
Squared error over the missing half, Adam 1e-4, batch 128, 30 epochs, float32. Sampling goes down the levels, and
noises the prediction again at the same level with fresh noise. Training can be stopped and goes on where it was.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from json import dumps
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from common import alternate, bar, run, save, show, timed
from inkfill import data
from inkfill.models.checkpoint import load_state, read_weights, save_state, shapes_of, write_weights
from inkfill.data import masks
from inkfill.core.denoiser import Denoiser, Observation
from inkfill.evaluation import cells, scores
from inkfill import tables
from inkfill.filling.inpaint import inpaint
from inkfill.methods import Task
from inkfill.core.rng import seeded, stream
from inkfill.core.schedule import Schedule
from inkfill.core.objectives import Batch
from inkfill.core.trainer import Trainer

FORMAT = "inkfill-original-1"
MASK, LEVELS, BATCH, RATE, EPOCHS = "half:left", 200, 128, 1e-4, 30.0
CELL = cells.Cell(MASK, "original", LEVELS, 4)  # its row in a table


class Original(nn.Module):
    """``net(x, t) -> x0_hat``: x ``[B, 1, 28, 28]`` with known pixels in it, t in levels ``[B]``; 2.09 M parameters.

    The description names no normalisation. Without any, 25 steps of Adam drive the tanh to -1 everywhere, its gradient is
    then 0, and the network paints black for good, in float32 too. So the inner convolutions are normalised.
    """

    def __init__(self) -> None:
        super().__init__()
        self.level1 = nn.Conv2d(1, 64, 3, padding=1)
        self.level2 = nn.Sequential(nn.Conv2d(64, 128, 3, stride=2, padding=1), nn.GroupNorm(8, 128))
        self.level3 = nn.Sequential(nn.Conv2d(128, 256, 3, stride=2, padding=1), nn.GroupNorm(8, 256))
        self.time = nn.Sequential(nn.Linear(64, 256), nn.SiLU(), nn.Linear(256, 256))
        self.middle = nn.Sequential(nn.Conv2d(256, 256, 3, padding=1), nn.GroupNorm(8, 256))
        self.attention = nn.MultiheadAttention(256, 1, batch_first=True)
        self.up2 = nn.Sequential(nn.ConvTranspose2d(256, 128, 4, stride=2, padding=1), nn.GroupNorm(8, 128))
        self.up1 = nn.ConvTranspose2d(256, 64, 4, stride=2, padding=1)
        self.out = nn.Conv2d(128, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angle = t[:, None].float() * torch.exp(-np.log(1e4) * torch.arange(32) / 32)
        time = self.time(torch.cat([angle.sin(), angle.cos()], 1))
        one = F.relu(self.level1(x))
        two = F.relu(self.level2(one))
        low = F.relu(self.level3(two))
        low = F.relu(self.middle(low) + time[:, :, None, None])
        tokens = low.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        low = tokens.transpose(1, 2).reshape(low.shape)
        h = F.relu(self.up2(low))
        h = F.relu(self.up1(torch.cat([h, two], 1)))
        return torch.tanh(self.out(torch.cat([h, one], 1)).float())  # in bfloat16 its gradient is 0 from 3 on


def clean_errors(net: nn.Module, batch: Batch) -> Tensor:
    """(x0 - x0_hat)^2 where pixels are missing, 0 elsewhere, from x_t there and clean pixels elsewhere."""
    x0_hat = net(torch.where(batch.mask, batch.x_t, batch.x0), batch.t)
    return (x0_hat.float() - batch.x0).square() * batch.mask


def new_trainer(images: data.Images, bfloat16: bool) -> Trainer:
    """A new network and Adam, at a constant rate; no running mean of the weights, and no clipping of the gradient."""
    schedule = Schedule.named("cosine", LEVELS)

    def draw(step: int) -> Batch:
        rng = stream(0, "original", step)
        chosen = images[rng.integers(len(images), size=BATCH)]
        x0, mask = data.to_x0(chosen), torch.from_numpy(masks.fit(MASK, chosen)[:, None])
        t = torch.from_numpy(rng.integers(1, LEVELS + 1, BATCH))
        eps = torch.from_numpy(rng.standard_normal(x0.shape, dtype=np.float32))
        return Batch(x0, mask, t, eps, schedule, float(mask.sum()), mask)

    with seeded(0):
        net = Original().to(memory_format=torch.channels_last)
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    return Trainer(net, [torch.optim.Adam(net.parameters(), RATE)], draw, clean_errors, math.inf, 0.0, dtype)


def train(out: Path = Path("runs/original"), epochs: float = EPOCHS, bfloat16: bool = False) -> None:
    """Train into a folder, or go on there: every 100 steps its state, its weights and a line of its metrics."""
    images = data.load("mnist").train
    trainer, losses, steps = new_trainer(images, bfloat16), [], int(epochs * len(images) / BATCH)
    if (out / "state.pt").exists():
        trainer.restore(load_state(out / "state.pt"))
    out.mkdir(parents=True, exist_ok=True)
    shown = tqdm(range(trainer.done, steps), initial=trainer.done, total=steps, dynamic_ncols=True, mininterval=5)
    for _ in shown:
        losses.append(float(trainer.step(1.0)))
        done = trainer.done
        if done % 100 == 0 or done == steps:
            epoch, mean, losses = done * BATCH / len(images), float(np.mean(losses)), []
            with (out / "metrics.jsonl").open("a") as file:
                file.write(dumps({"step": done, "epoch": epoch, "loss": mean}) + "\n")
            shown.set_postfix_str(f"loss {mean:.4f}", refresh=False)
            save_state(out / "state.pt", trainer.state())
            about = {"format": FORMAT, "recipe": {"epochs": epoch, "bfloat16": bfloat16, "mask": MASK}}
            write_weights(out / "model.safetensors", trainer.net.state_dict(), about)


def loss(epochs: float = EPOCHS, json: Path | None = None) -> None:
    """The same batches in float32 and in bfloat16: losses of both and images a second, alternating."""
    images = data.load("mnist").train
    trainers = {name: new_trainer(images, name == "bfloat16") for name in ("float32", "bfloat16")}
    losses: dict[str, list[float]] = {name: [] for name in trainers}

    def step(name: str) -> None:
        losses[name].append(float(trainers[name].step(1.0)))

    steps = int(epochs * len(images) / BATCH)
    times = alternate({name: partial(step, name) for name in trainers}, steps - 1)  # the first step warms up
    speeds = {name: BATCH / float(np.mean(took)) for name, took in times.items()}
    means = {name: np.array(each[: steps - steps % 25]).reshape(-1, 25).mean(1) for name, each in losses.items()}
    rows = [{"step": 25 * i + 25, **{name: float(mean[i]) for name, mean in means.items()}} for i in range(steps // 25)]
    for row in (*rows, {"images/s": "", **speeds}):
        show(row)
    save({"losses": rows, "images_per_s": speeds}, json)


class OriginalPrior:
    """A trained network, read from a file, as a prior for ``draw``. It computes in bfloat16."""

    channels, schedule = 1, Schedule.named("cosine", LEVELS)
    value_range = data.ValueRange(floor=4)  # as inkfill has it for MNIST, so that backgrounds are alike

    def __init__(self, path: Path):
        weights, about = read_weights(path, FORMAT, lambda about: shapes_of(Original))
        self.epochs = float(about["recipe"]["epochs"])
        self.net = Original().to(memory_format=torch.channels_last).eval().requires_grad_(False)
        self.net.load_state_dict(weights)

    def conditional(self, observation: Observation) -> Denoiser:
        """The prediction from x_t with the known pixels in it."""

        def denoise(x_t: Tensor, t: int) -> Tensor:
            x = torch.where(observation.known, observation.pixels, x_t)
            with torch.autocast("cpu", torch.bfloat16):
                return self.net(x, torch.full((len(x),), t)).float()

        return denoise

    def unconditional(self, like: Tensor) -> Denoiser:
        """With nothing known, which it was not trained for."""
        return self.conditional(Observation.nothing(like))


def draw(task: Task) -> Tensor:
    """Down the levels, as the recipe does: the prediction is noised again at level t, and not at t - 1."""
    x = task.noise()
    for t in task.levels[:-1]:
        x0_hat = task.conditional(x, t)
        x = task.schedule.q_sample(x0_hat, t, task.noise())
    return x0_hat


def complete(
    prior: OriginalPrior, images: data.Images, cell: cells.Cell = CELL, progress: Callable[[int], object] | None = None
) -> cells.Completed:
    """Completions as the recipe draws them, 200 evaluations each."""
    mask = masks.fit(MASK, images)
    fill = partial(inpaint, prior, images, mask, cell.samples, draw, cell.steps, cell.seed, rows=256, progress=progress)
    filled, took = timed(fill)
    return cells.Completed(filled, mask, LEVELS, took * torch.get_num_threads() / (len(images) * cell.samples))


def score(weights: Path = Path("runs/original/model.safetensors"), count: int = 100, samples: int = 4) -> None:
    """Its row of a table, on validation digits."""
    images, cell = data.load("mnist").validation[:count], replace(CELL, samples=samples)
    with bar(count * samples, "original") as progress:
        done = complete(OriginalPrior(weights), images, cell, progress=progress)
    print(tables.table([scores.score(images, done, cell)], scores.COLUMNS))


if __name__ == "__main__":
    run(train, loss, score)
