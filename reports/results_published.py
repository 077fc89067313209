"""The MNIST protocol of Pyro's CVAE tutorial (https://pyro.ai/examples/cvae.html, after Sohn et al. 2015).

    .venv/bin/python reports/results_published.py [--count 300]

Bernoulli loss of the grey missing pixels under a predicted mean, in nats per digit. The mean is the network's own at
timestep T, or that of K samples, with one part in K + 1 of the mean training digit mixed in: K samples cannot say that
a pixel is never white. Writes reports/results/published.json.
"""

import numpy as np
import torch
from numpy.typing import NDArray

import inkfill
from common import Row, run, save, show
from inkfill import data
from inkfill.core.denoiser import Observation
from inkfill.core.rng import SampleNoise
from inkfill.files import file_hash
from inkfill.models.checkpoint import SHIPPED
from inkfill.models.model import Model

# The row "NN (baseline)" of their table, read in November 2026.
BASELINE = {
    "lower-left quadrant": 100.4,
    "left half": 61.9,
    "all but the lower right": 25.4,
}


def network_mean(model: Model, images: data.Images, mask: NDArray[np.bool_], draws: int = 8) -> NDArray:
    """E[x0 given the observed pixels]: the prediction at T, mean over a few draws of x_T; in [0, 1]."""
    means = []
    with torch.no_grad():
        for rows in np.array_split(np.arange(len(images)), -(-len(images) // 250)):
            observation = Observation.of(data.to_x0(images[rows]), torch.from_numpy(mask[rows, None]))
            denoise, noise = model.conditional(observation), SampleNoise(0, rows, np.zeros_like(rows), (1, 28, 28))
            drawn = torch.stack([denoise(noise(), model.schedule.T).clamp(-1, 1) for _ in range(draws)])
            means.append((drawn.double().mean(0)[:, 0] + 1) / 2)
    return np.where(mask, torch.cat(means), images / 255)


def nats(truth: data.Images, p: NDArray, mask: NDArray[np.bool_]) -> float:
    """Bernoulli loss of the missing grey pixels, per digit; at least that of the pixels themselves."""
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
        row = {
            "seen": seen,
            "baseline": BASELINE[seen],
            "direct": nats(images, softened(direct, prior, samples), mask),
            "mean": full,
        }
        # The excess loss of a mean of K samples falls as 1 / K.
        rows.append(show({**row, "limit": 2 * full - sum(halves) / 2, "floor": nats(images, images / 255, mask)}))
    return rows


def main(count: int = 300, samples: int = 16) -> None:
    """The protocol on ``count`` test digits."""
    model, mnist = inkfill.load(), data.load("mnist")
    found = {"checkpoint": file_hash(SHIPPED), "count": count, "samples": samples}
    found["cvae"] = cvae(model, mnist.test[:count], mnist.train.mean(0) / 255, samples)
    save("results", "published", found)


if __name__ == "__main__":
    run(main)
