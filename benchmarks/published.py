"""Two published MNIST protocols, beside the figures that were published for them.

    .venv/bin/python benchmarks/published.py [--count 300] [--out docs/published.json]

ACFlow (Li, Akbar and Oliva 2020, arXiv 1909.06319, after VAEAC, Ivanov et al. 2019): digits padded to 32x32, a mixture
of masks, PSNR over the whole canvas (known pixels too), one value a completion, infinite ones dropped, 10 completions.
CVAE (Pyro's tutorial, after Sohn et al. 2015): Bernoulli loss of the grey missing pixels under a predicted mean, in
nats a digit. The prediction here is the network's own mean at level T, eight evaluations, and the mean of K completions,
each with one part in K + 1 of the mean training digit mixed in: K completions cannot say that a pixel is never white.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import inkfill
from common import Row, run, save, show
from inkfill import data
from inkfill.models.checkpoint import SHIPPED
from inkfill.files import file_hash
from inkfill.data import masks
from inkfill.core.denoiser import Observation
from inkfill.models.model import Model
from inkfill.core.rng import SampleNoise, stream

SIDE, PAD = 32, 2


def acflow_masks(n: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Each pixel missing with 0.5 (weight 2), four halves (1 each), a 16x16 square (2), a rectangle of 30 to 100 %
    (2)."""
    halves = ["half:left", "half:right", "half:top", "half:bottom"]
    specs = ["pixels:0.5", "pixels:0.5", *halves, "box:16:random", "box:16:random", "", ""]
    mask = np.zeros((n, SIDE, SIDE), bool)
    for one, which in zip(mask, rng.integers(len(specs), size=n), strict=True):
        if specs[which]:
            one[:] = masks.parse(specs[which]).draw(1, SIDE, SIDE, rng)[0]
        while not one.any():  # a rectangle, uniform among those of enough area
            y, x = np.sort(rng.integers(SIDE + 1, size=(2, 2)), axis=1)
            one[y[0] : y[1], x[0] : x[1]] = (y[1] - y[0]) * (x[1] - x[0]) >= 0.3 * SIDE**2
    return mask


def canvas_psnr(truth: data.Images, guess: NDArray) -> float:
    """Mean PSNR of images over the padded canvas, where the padding is right; those with nothing wrong are dropped."""
    square = ((truth / 255.0 - guess / 255.0) ** 2).sum((-2, -1)) / SIDE**2
    return float(np.mean(-10 * np.log10(square[square > 0])))


def network_mean(model: Model, images: data.Images, mask: NDArray[np.bool_], draws: int = 8) -> NDArray:
    """E[x0 given the known pixels] as the network has it at level T, over a few draws of the noise there; in [0, 1]."""
    means = []
    with torch.no_grad():
        for rows in np.array_split(np.arange(len(images)), -(-len(images) // 250)):
            seen = Observation.of(data.to_x0(images[rows]), torch.from_numpy(mask[rows, None]))
            denoise, noise = model.conditional(seen), SampleNoise(0, rows, np.zeros_like(rows), (1, 28, 28))
            drawn = torch.stack([denoise(noise(), model.schedule.T).clamp(-1, 1) for _ in range(draws)])
            means.append((drawn.double().mean(0)[:, 0] + 1) / 2)
    return np.where(mask, torch.cat(means), images / 255)


def acflow(model: Model, images: data.Images) -> dict[str, float]:
    """PSNR of a completion, of the mean of ten, and of the network's own mean."""
    mask = acflow_masks(len(images), stream(0, "acflow"))[:, PAD:-PAD, PAD:-PAD]
    filled, direct = inkfill.inpaint(model, images, mask, 10), (network_mean(model, images, mask) * 255).round()
    guesses = {"sample": filled.swapaxes(0, 1), "mean": filled.mean(1), "direct": direct}
    return {name: canvas_psnr(images, guess) for name, guess in guesses.items()}


def nats(truth: data.Images, p: NDArray, mask: NDArray[np.bool_]) -> float:
    """Bernoulli loss of the missing grey pixels, a digit; the least that it can be is that of the pixels themselves."""
    x, p = torch.from_numpy(truth / 255.0), torch.from_numpy(p)
    loss = -(torch.xlogy(x, p) + torch.xlogy(1 - x, 1 - p))
    return float(torch.where(torch.from_numpy(mask), loss, 0.0).sum((1, 2)).mean())


def softened(mean: NDArray, prior: NDArray, k: int) -> NDArray:
    """The mean of k draws with one of the prior added, kept a thousandth away from 0 and 1."""
    return np.clip((k * mean + prior) / (k + 1), 1e-3, 1 - 1e-3)


def cvae(model: Model, images: data.Images, prior: NDArray, samples: int) -> list[Row]:
    """Bernoulli losses for the tutorial's three masks."""
    left, low, rows = np.arange(28) < 14, np.arange(28)[:, None] >= 14, []
    holes = {"lower-left quadrant": ~(low & left), "left half": ~left, "all but the lower right": low & ~left}
    for seen, hole in holes.items():
        mask = np.broadcast_to(hole, images.shape).copy()
        filled, direct = inkfill.inpaint(model, images, mask, samples), network_mean(model, images, mask)
        parts = (filled, filled[:, ::2], filled[:, 1::2])
        full, *halves = (nats(images, softened(x.mean(1) / 255, prior, x.shape[1]), mask) for x in parts)
        row = {"seen": seen, "direct": nats(images, softened(direct, prior, samples), mask), "mean": full}
        # What a mean of K draws costs over the mean falls as 1 / K.
        rows.append(show({**row, "limit": 2 * full - sum(halves) / 2, "floor": nats(images, images / 255, mask)}))
    return rows


def main(count: int = 300, samples: int = 16, out: Path | None = None) -> None:
    """Both protocols on ``count`` test digits, with so many completions for the Bernoulli loss."""
    model, mnist = inkfill.load(), data.load("mnist")
    images = mnist.test[:count]
    found = {"checkpoint": file_hash(SHIPPED), "count": len(images), "samples": samples}
    found["acflow"] = show(acflow(model, images))
    found["cvae"] = cvae(model, images, mnist.train.mean(0) / 255, samples)
    save(found, out)


if __name__ == "__main__":
    run(main)
