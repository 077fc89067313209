"""A baseline network: clean-image prediction with tanh, trained for one mask, 200 NFE.

    .venv/bin/python reports/results_original.py train --out runs/original --epochs 30 [--bfloat16]
    .venv/bin/python reports/results_original.py score --weights runs/original/model.safetensors --count 100

Mask `half:left`. Three resolutions, attention at 7x7. The input is one plane: x_t where pixels are missing, clean
pixels elsewhere. T = 200, cosine. Squared error over the missing half, Adam 1e-4, batch 128, 30 epochs, float32.
Sampling noises each prediction again at the same timestep, with new noise. Training resumes.
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

from common import bar, run, timed
from inkfill import data, tables
from inkfill.core.denoiser import ConditionalPrior, Denoiser, Observation
from inkfill.core.objectives import Batch
from inkfill.core.rng import seeded, stream
from inkfill.core.schedule import Schedule
from inkfill.core.trainer import Trainer
from inkfill.data import masks
from inkfill.evaluation import cells, scores
from inkfill.filling.inpaint import inpaint
from inkfill.methods import Task
from inkfill.models.checkpoint import load_state, read_network, save_state, write_weights

FORMAT = "inkfill-original-1"
MASK, T, BATCH, RATE, EPOCHS = "half:left", 200, 128, 1e-4, 30.0
CELL = cells.Cell(MASK, "original", T, 4)  # its row in a table


class Original(nn.Module):
    """``net(x, t) -> x0_hat``: x ``[B, 1, 28, 28]`` with observed pixels in it, timesteps ``[B]``; 2.09 M parameters.

    The inner convolutions are normalised: without, Adam drives the tanh to -1 within 25 steps, where its gradient is 0.
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
    """(x0 - x0_hat)^2 where pixels are missing, 0 elsewhere."""
    x0_hat = net(torch.where(batch.mask, batch.x_t, batch.x0), batch.t)
    return (x0_hat.float() - batch.x0).square() * batch.mask


def new_trainer(images: data.Images, bfloat16: bool) -> Trainer:
    """A new network and Adam at a constant rate, without EMA or gradient clipping."""
    schedule = Schedule.named("cosine", T)

    def draw(step: int) -> Batch:
        rng = stream(0, "original", step)
        chosen = images[rng.integers(len(images), size=BATCH)]
        x0, mask = data.to_x0(chosen), torch.from_numpy(masks.fit(MASK, chosen)[:, None])
        t = torch.from_numpy(rng.integers(1, T + 1, BATCH))
        eps = torch.from_numpy(rng.standard_normal(x0.shape, dtype=np.float32))
        return Batch(x0, mask, t, eps, schedule, mask, float(mask.sum()))

    with seeded(0):
        net = Original().to(memory_format=torch.channels_last)
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    return Trainer(net, [torch.optim.Adam(net.parameters(), RATE)], draw, clean_errors, math.inf, 0.0, dtype)


def train(out: Path = Path("runs/original"), epochs: float = EPOCHS, bfloat16: bool = False) -> None:
    """Train into a folder, or resume there; every 100 steps it saves state, weights and a line of metrics."""
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


class OriginalPrior(ConditionalPrior):
    """A trained network, read from a file, as a prior for ``draw``; computes in bfloat16."""

    channels, schedule = 1, Schedule.named("cosine", T)
    value_range = data.ValueRange(floor=4)  # as the shipped weights

    def __init__(self, path: Path):
        self.net, recipe = read_network(path, FORMAT, lambda about: Original())
        self.epochs = float(recipe["epochs"])

    def conditional(self, observation: Observation) -> Denoiser:
        """The prediction from x_t with the observed pixels in it."""

        def denoise(x_t: Tensor, t: int) -> Tensor:
            x = torch.where(observation.known, observation.pixels, x_t)
            with torch.autocast("cpu", torch.bfloat16):
                return self.net(x, torch.full((len(x),), t)).float()

        return denoise

    def unconditional(self, like: Tensor) -> Denoiser:
        """Nothing observed, which it was not trained for."""
        return self.conditional(Observation.nothing(like))


def draw(task: Task) -> Tensor:
    """Predictions are noised again at timestep t, not at the next one."""
    x = task.noise()
    for t in task.timesteps[:-1]:
        x0_hat = task.conditional(x, t)
        x = task.schedule.q_sample(x0_hat, t, task.noise())
    return x0_hat


def complete(
    prior: OriginalPrior, images: data.Images, cell: cells.Cell, progress: Callable[[int], object] = lambda done: None
) -> cells.Completed:
    """Samples at 200 NFE."""
    mask = masks.fit(MASK, images)
    fill = partial(inpaint, prior, images, mask, cell.samples, draw, cell.steps, cell.seed, rows=256, progress=progress)
    filled, took = timed(fill)
    return cells.Completed(filled, mask, T, took * torch.get_num_threads() / (len(images) * cell.samples))


def scored(weights: Path, mnist: data.Dataset, count: int) -> dict[str, object]:
    """The scores of a checkpoint on test digits."""
    images, labels = mnist.test[:count], mnist.labels["test"][:count]
    done = complete(OriginalPrior(weights), images, CELL)
    return scores.score(images, done, CELL, labels, scores.Judges.of(mnist))


def score(weights: Path = Path("runs/original/model.safetensors"), count: int = 100, samples: int = 4) -> None:
    """Print its scores on validation digits."""
    images, cell = data.load("mnist").validation[:count], replace(CELL, samples=samples)
    with bar(count * samples, "original") as progress:
        done = complete(OriginalPrior(weights), images, cell, progress=progress)
    print(tables.table([scores.score(images, done, cell)], scores.COLUMNS))


if __name__ == "__main__":
    run(train, score)
