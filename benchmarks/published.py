"""Two published MNIST protocols, beside the figures that were published for them.

    .venv/bin/python benchmarks/published.py [--count 300] [--out docs/published.json]

ACFlow (Li, Akbar and Oliva 2020, arXiv 1909.06319, after VAEAC, Ivanov et al. 2019): digits padded to 32x32, a mixture
of masks, PSNR over the whole canvas (known pixels too), one value a completion, infinite ones dropped, 10 completions.
CVAE (Pyro's tutorial, after Sohn et al. 2015): Bernoulli loss of the grey missing pixels under a predicted mean, in
nats a digit. The prediction here is the network's own mean at level T, eight evaluations, and the mean of K completions,
each with one part in K + 1 of the mean training digit mixed in: K completions cannot say that a pixel is never white.
"""

import numpy as np
import torch
from numpy.typing import NDArray

import inkfill
from common import Row, command_line, save, show
from inkfill import data
from inkfill.checkpoint import SHIPPED, file_hash
from inkfill.data import masks
from inkfill.denoiser import Observation
from inkfill.model import Model
from inkfill.rng import SampleNoise, stream

SIDE, PAD = 32, 2
HALVES = ("left", "right", "top", "bottom")


def acflow_masks(n: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Each pixel missing with 0.5 (weight 2), four halves (1 each), a 16x16 square (2), a rectangle of 30 to 100 %
    (2)."""
    specs = ["pixels:0.5"] * 2 + [f"half:{side}" for side in HALVES] + ["box:16:random"] * 2 + [""] * 2
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
            drawn = torch.stack([denoise(noise(), model.schedule.T) for _ in range(draws)])
            means.append((drawn.double().mean(0)[:, 0] + 1) / 2)
    return np.where(mask, torch.cat(means), images / 255)


def acflow(model: Model, images: data.Images) -> dict[str, float]:
    """PSNR of a completion, of the mean of ten, and of the network's own mean."""
    mask = acflow_masks(len(images), stream(0, "acflow"))[:, PAD:-PAD, PAD:-PAD]
    filled, direct = inkfill.inpaint(model, images, mask, 10), (network_mean(model, images, mask) * 255).round()
    guesses = {"sample": filled.swapaxes(0, 1), "mean": filled.mean(1), "direct": direct}
    return {name: canvas_psnr(images, guess) for name, guess in guesses.items()}


def bernoulli(truth: data.Images, mean: NDArray, mask: NDArray[np.bool_], prior: NDArray, k: int) -> float:
    """Nats a digit of the mean of k draws with one of the prior added, kept a thousandth away from 0 and 1."""
    x, p = truth / 255.0, np.clip((k * mean + prior) / (k + 1), 1e-3, 1 - 1e-3)
    loss = -(x * np.log(p) + (1 - x) * np.log(1 - p))
    return float(np.where(mask, loss, 0).sum((1, 2)).mean())


def entropy(truth: data.Images, mask: NDArray[np.bool_]) -> float:
    """The least that the loss can be: that of the grey pixels themselves."""
    x = truth / 255.0
    parts = [np.where(q > 0, -q * np.log(np.maximum(q, 1e-12)), 0) for q in (x, 1 - x)]
    return float(np.where(mask, sum(parts), 0).sum((1, 2)).mean())


def cvae(model: Model, images: data.Images, prior: NDArray, samples: int) -> list[Row]:
    """Bernoulli losses for the tutorial's three masks."""
    left, low, rows = np.arange(28) < 14, np.arange(28)[:, None] >= 14, []
    holes = {"lower-left quadrant": ~(low & left), "left half": ~left, "all but the lower right": low & ~left}
    for seen, hole in holes.items():
        mask = np.broadcast_to(hole, images.shape)
        filled, direct = inkfill.inpaint(model, images, mask, samples), network_mean(model, images, mask)
        parts = (filled, filled[:, ::2], filled[:, 1::2])
        full, *halves = (bernoulli(images, x.mean(1) / 255, mask, prior, x.shape[1]) for x in parts)
        row = {"seen": seen, "direct": bernoulli(images, direct, mask, prior, samples), "mean": full}
        # What a mean of K draws costs over the mean falls as 1 / K.
        rows.append(show({**row, "limit": 2 * full - sum(halves) / 2, "floor": entropy(images, mask)}))
    return rows


def main() -> None:
    parser = command_line(__doc__, "write the figures here, as JSON")
    parser.add_argument("--count", type=int, default=300, help="test digits")
    parser.add_argument("--samples", type=int, default=16, help="completions a digit, for the Bernoulli loss")
    arguments = parser.parse_args()
    model, mnist = inkfill.load(), data.load("mnist")
    images = mnist.test[: arguments.count]
    found = {"checkpoint": file_hash(SHIPPED), "count": len(images), "samples": arguments.samples}
    found["acflow"] = show(acflow(model, images))
    found["cvae"] = cvae(model, images, mnist.train.mean(0) / 255, arguments.samples)
    save(found, arguments.out)


if __name__ == "__main__":
    main()
