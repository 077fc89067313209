"""Two published MNIST protocols, beside the figures that were published for them.

    .venv/bin/python benchmarks/published.py [--count 300] [--out docs/published.json]

ACFlow (Li, Akbar and Oliva 2020, arXiv 1909.06319, after VAEAC, Ivanov et al. 2019): digits padded to 32x32, a mixture
of masks, PSNR over the whole canvas (known pixels too), one value a completion, infinite ones dropped, 10 completions.
CVAE (Pyro's tutorial, after Sohn et al. 2015): Bernoulli loss of the grey missing pixels under a predicted mean, in
nats a digit. The prediction here is the network's own mean at level T, eight evaluations, and the mean of K completions,
each with one part in K + 1 of the mean training digit mixed in: K completions cannot say that a pixel is never white.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from inkfill.masks import parse
from numpy.typing import NDArray

import inkfill
from inkfill import data
from inkfill.checkpoint import SHIPPED, file_hash, written_whole
from inkfill.denoiser import Observation
from inkfill.inpainting import inpaint
from inkfill.rng import SampleNoise, stream

SIDE, PAD = 32, 2
HALVES = ("left", "right", "top", "bottom")


def acflow_masks(n: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Each pixel missing with 0.5 (weight 2), four halves (1 each), a 16x16 square (2), a rectangle of 30 to 100 %
    (2)."""
    specs = ["pixels:0.5"] * 2 + [f"half:{side}" for side in HALVES] + ["box:16:random"] * 2 + [""] * 2
    chosen = rng.integers(len(specs), size=n)
    mask = np.zeros((n, SIDE, SIDE), bool)
    for i, which in enumerate(chosen):
        if specs[which]:
            mask[i] = parse(specs[which]).draw(1, SIDE, SIDE, rng)[0]
            continue
        while True:  # a rectangle, uniform among those of enough area
            y, x = np.sort(rng.integers(SIDE + 1, size=(2, 2)), axis=1)
            if (y[1] - y[0]) * (x[1] - x[0]) >= 0.3 * SIDE**2:
                mask[i, y[0] : y[1], x[0] : x[1]] = True
                break
    return mask


def canvas_psnr(truth: data.Images, guess: NDArray) -> NDArray[np.float64]:
    """PSNR of each image over the padded canvas; the padding is right. Infinite where nothing is wrong."""
    square = ((truth / 255.0 - guess / 255.0) ** 2).sum((-2, -1)) / SIDE**2
    with np.errstate(divide="ignore"):
        return -10 * np.log10(square)


def acflow(model: inkfill.denoiser.Model, images: data.Images) -> dict[str, float]:
    mask = acflow_masks(len(images), stream(0, "acflow"))[:, PAD:-PAD, PAD:-PAD]
    filled = inpaint(model, images, mask, 10)
    each = canvas_psnr(images[:, None], filled)
    mean = canvas_psnr(images, filled.mean(1))
    direct = canvas_psnr(images, (network_mean(model, images, mask) * 255).round())
    finite = [x[np.isfinite(x)] for x in (each, mean, direct)]
    names = ("sample", "mean", "direct")
    return {name: float(x.mean()) for name, x in zip(names, finite, strict=True)}


def network_mean(
    model: inkfill.denoiser.Model, images: data.Images, mask: NDArray[np.bool_], draws: int = 8
) -> NDArray:
    """E[x0 given the known pixels] as the network has it at level T, over a few draws of the noise there; in [0, 1]."""
    total = np.zeros(images.shape)
    with torch.no_grad():
        for start in range(0, len(images), 250):
            rows = slice(start, start + 250)
            seen = Observation.of(data.to_x0(images[rows]), torch.from_numpy(mask[rows, None].copy()))
            denoise = model.conditional(seen)
            noise = SampleNoise(0, np.arange(len(images))[rows], np.zeros(len(images[rows]), int), (1, 28, 28))
            for _ in range(draws):
                total[rows] += (denoise(noise(), model.schedule.T)[:, 0].double().numpy() + 1) / 2 / draws
    return np.where(mask, total, images / 255)


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


def cvae(
    model: inkfill.denoiser.Model, images: data.Images, prior: NDArray, samples: int
) -> list[dict[str, float | str]]:
    left, low = np.arange(28) < 14, np.arange(28)[:, None] >= 14
    masks = {
        "lower-left quadrant": ~(low & left),
        "left half": np.broadcast_to(~left, (28, 28)),
        "all but the lower right": low & ~left,
    }
    rows: list[dict[str, float | str]] = []
    for seen, one in masks.items():
        mask = np.broadcast_to(one, images.shape)
        filled = inpaint(model, images, mask, samples)
        direct = network_mean(model, images, mask)
        parts = (filled, filled[:, ::2], filled[:, 1::2])
        full, *halves = (bernoulli(images, x.mean(1) / 255, mask, prior, x.shape[1]) for x in parts)
        rows.append(
            {
                "seen": seen,
                "direct": bernoulli(images, direct, mask, prior, samples),
                "mean": full,
                "limit": 2 * full - sum(halves) / 2,  # what a mean of K draws costs over the mean falls as 1 / K
                "floor": entropy(images, mask),
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="test digits")
    parser.add_argument("--samples", type=int, default=16, help="completions a digit, for the Bernoulli loss")
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    arguments = parser.parse_args()
    model, mnist = inkfill.load(), data.load("mnist")
    images = mnist.test[: arguments.count]
    result = {"checkpoint": file_hash(SHIPPED), "count": len(images), "samples": arguments.samples}
    result["acflow"] = acflow(model, images)
    print(result["acflow"], flush=True)
    result["cvae"] = cvae(model, images, mnist.train.mean(0) / 255, arguments.samples)
    if arguments.out:
        with written_whole(arguments.out) as temporary:
            temporary.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
