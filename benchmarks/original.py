"""The recipe that this project started from, as the row that everything is compared with.

    .venv/bin/python benchmarks/original.py train --out runs/original --epochs 30 [--bfloat16]
    .venv/bin/python benchmarks/original.py loss --epochs 1 --json docs/speed/original.json    float32 beside bfloat16
    .venv/bin/python benchmarks/original.py score --weights runs/original/model.safetensors --count 100

One mask, `half:left`. A network of three convolution levels with attention at 7x7 and a tanh at the end predicts the
clean image from one plane: x_t where pixels are missing, clean pixels where they are known. 200 levels, cosine.
Squared error over the missing half, Adam 1e-4, batch 128, 30 epochs, float32. Sampling goes down the levels, and
noises the prediction again at the same level with fresh noise. Training can be stopped and goes on where it was.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from inkfill import data, evaluate
from inkfill.checkpoint import load_state, read_weights, save_state, write_weights, written_whole
from inkfill.denoiser import Observation
from inkfill.inpainting import fit_mask
from inkfill.rng import SampleNoise, stream
from inkfill.schedule import Schedule

FORMAT = "inkfill-original-1"
MASK, LEVELS, BATCH, RATE, EPOCHS = "half:left", 200, 128, 1e-4, 30


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


def step_loss(net: Original, images: data.Images, schedule: Schedule, step: int, bfloat16: bool) -> Tensor:
    """Mean squared error over the missing half of one batch."""
    rng = stream(0, "original", step)
    chosen = images[rng.integers(len(images), size=BATCH)]
    x0 = data.to_x0(chosen)
    mask = torch.from_numpy(fit_mask(MASK, chosen, 0)[:, None])
    t = torch.from_numpy(rng.integers(1, LEVELS + 1, BATCH))
    eps = torch.from_numpy(rng.standard_normal(x0.shape, dtype=np.float32))
    x = torch.where(mask, schedule.q_sample(x0, t, eps), x0)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        x0_hat = net(x, t)
    return (x0_hat.float() - x0).square()[mask].mean()


def advance(
    net: Original,
    adam: torch.optim.Optimizer,
    images: data.Images,
    schedule: Schedule,
    step: int,
    bfloat16: bool,
) -> float:
    """One step of training; gives its loss."""
    loss = step_loss(net, images, schedule, step, bfloat16)
    adam.zero_grad()
    loss.backward()
    adam.step()
    return float(loss.detach())


def new_network() -> Original:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Original().to(memory_format=torch.channels_last)


def train(out: Path, epochs: float, bfloat16: bool) -> None:
    images, schedule = data.load("mnist").train, Schedule.named("cosine", LEVELS)
    net = new_network()
    optimiser = torch.optim.Adam(net.parameters(), RATE)
    first, state_file = 0, out / "state.pt"
    if state_file.exists():
        state = load_state(state_file)
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    steps = int(epochs * len(images) / BATCH)
    losses = []
    bar = tqdm(range(first, steps), initial=first, total=steps, dynamic_ncols=True, mininterval=5)
    for step in bar:
        losses.append(advance(net, optimiser, images, schedule, step, bfloat16))
        if (step + 1) % 100 == 0 or step + 1 == steps:
            out.mkdir(parents=True, exist_ok=True)
            with (out / "metrics.jsonl").open("a") as file:
                epoch = (step + 1) * BATCH / len(images)
                file.write(json.dumps({"step": step + 1, "epoch": epoch, "loss": float(np.mean(losses))}) + "\n")
            bar.set_postfix_str(f"loss {np.mean(losses):.4f}", refresh=False)
            losses = []
            save_state(state_file, {"net": net.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1})
            recipe = {"epochs": epoch, "bfloat16": bfloat16, "mask": MASK}
            write_weights(out / "model.safetensors", net.state_dict(), {"format": FORMAT, "recipe": recipe})


def compare_losses(epochs: float, out: Path | None) -> None:
    """The same batches in float32 and in bfloat16: losses of both and images a second, alternating."""
    images, schedule = data.load("mnist").train, Schedule.named("cosine", LEVELS)
    nets = {False: new_network(), True: new_network()}
    optimisers = {which: torch.optim.Adam(net.parameters(), RATE) for which, net in nets.items()}
    losses: dict[bool, list[float]] = {False: [], True: []}
    seconds, names, rows = {False: 0.0, True: 0.0}, {False: "float32", True: "bfloat16"}, []
    steps = int(epochs * len(images) / BATCH)
    for step in range(steps):
        for which, net in nets.items():
            began = time.perf_counter()
            losses[which].append(advance(net, optimisers[which], images, schedule, step, which))
            seconds[which] += time.perf_counter() - began
        if (step + 1) % 25 == 0:
            row = {"step": step + 1, **{names[which]: float(np.mean(losses[which][-25:])) for which in nets}}
            rows.append(row)
            print(f"step {step + 1:5d}  float32 {row['float32']:.5f}  bfloat16 {row['bfloat16']:.5f}", flush=True)
    speeds = {name: steps * BATCH / seconds[which] for which, name in names.items()}
    for name, speed in speeds.items():
        print(f"{name}: {speed:.0f} images/s, 30 epochs in {EPOCHS * len(images) / speed / 60:.0f} minutes")
    if out:
        with written_whole(out) as temporary:
            temporary.write_text(json.dumps({"losses": rows, "images_per_s": speeds}, indent=1))


def load(path: Path) -> tuple[Original, float]:
    """The network, and for how many epochs it was trained."""
    net = Original().to(memory_format=torch.channels_last)
    weights, about = read_weights(path, FORMAT)
    net.load_state_dict(weights)
    return net.eval().requires_grad_(False), about["recipe"]["epochs"]


def complete(
    net: Original, images: data.Images, samples: int, progress: Callable[[int], object] | None = None, batch: int = 256
) -> evaluate.Completed:
    """Completions as the recipe draws them, 200 evaluations each."""
    schedule, mask, floor = Schedule.named("cosine", LEVELS), fit_mask(MASK, images, 0), data.black_floor(images)
    filled = np.repeat(images[:, None], samples, 1)
    flat, n = filled.reshape(-1, *images.shape[1:]), len(images) * samples
    began = time.perf_counter()
    for start in range(0, n, batch):
        chunk = np.arange(start, min(start + batch, n))
        image, sample = chunk // samples, chunk % samples
        seen = Observation.of(data.to_x0(images[image]), torch.from_numpy(mask[image][:, None]))
        noise = SampleNoise(0, image, sample, (1, *images.shape[1:]))
        x, x0_hat = noise(), seen.pixels
        for t in range(LEVELS, 0, -1):
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                level = torch.full((len(x),), t)
                x0_hat = net(torch.where(seen.known, seen.pixels, x), level).float()
            x = schedule.q_sample(x0_hat, t, noise())  # again at level t, and not at t - 1
        values = data.to_uint8(x0_hat)
        values = np.where(values <= floor, np.uint8(0), values)  # as inkfill does, so that backgrounds are alike
        flat[chunk] = np.where(mask[image], values, images[image])
        if progress:
            progress(len(chunk))
    seconds = (time.perf_counter() - began) * torch.get_num_threads() / n
    return evaluate.Completed(filled, mask, LEVELS, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["train", "loss", "score"])
    parser.add_argument("--out", type=Path, default=Path("runs/original"))
    parser.add_argument("--epochs", type=float, default=EPOCHS)
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--json", type=Path, help="write what loss finds here, too")
    parser.add_argument("--weights", type=Path, default=Path("runs/original/model.safetensors"))
    parser.add_argument("--count", type=int, default=100, help="validation digits to score")
    parser.add_argument("--samples", type=int, default=4)
    arguments = parser.parse_args()
    if arguments.part == "train":
        train(arguments.out, arguments.epochs, arguments.bfloat16)
    elif arguments.part == "loss":
        compare_losses(arguments.epochs, arguments.json)
    else:
        images = data.load("mnist").validation[: arguments.count]
        with tqdm(total=len(images) * arguments.samples) as bar:
            done = complete(load(arguments.weights)[0], images, arguments.samples, bar.update)
        cell = evaluate.Cell(MASK, "original", LEVELS, arguments.samples)
        print(evaluate.table([evaluate.score(images, done, cell)]))


if __name__ == "__main__":
    main()
