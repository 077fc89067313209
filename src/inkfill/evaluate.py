"""Evaluation on held-out images: complete them, compare them with what was hidden, write down everything."""

import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from inkfill import metrics
from inkfill.data import Images
from inkfill.denoiser import Model
from inkfill.inpainting import fit_mask, inpaint
from inkfill.rng import stream

COLUMNS = {  # key in a row: heading, format
    "mask": ("mask", "{}"),
    "crps": ("CRPS", "{:.4f}"),
    "crps_se": ("+-", "{:.4f}"),
    "energy": ("energy", "{:.4f}"),
    "coverage90": ("90 % covers", "{:.3f}"),
    "psnr_mean": ("PSNR mean", "{:.2f}"),
    "psnr_sample": ("PSNR sample", "{:.2f}"),
    "evaluations": ("nfe", "{:g}"),
    "seconds": ("s/completion", "{:.4f}"),
}


def evaluate(
    model: Model,
    images: Images,
    spec: str,
    samples: int,
    method: str,
    steps: int,
    seed: int,
    sampler: str,
    progress: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """One row of the table: this mask, this method, these images."""
    mask = fit_mask(spec, images, seed)
    before, began = model.evaluations, time.perf_counter()
    filled = inpaint(model, images, mask, samples, method, steps, seed, sampler, progress=progress)
    seconds = time.perf_counter() - began
    completions = len(images) * samples
    score, energy = metrics.crps(images, filled, mask), metrics.energy_score(images, filled, mask)
    ranks = metrics.ranks(images, filled, mask, stream(seed, "ranks"))
    return {
        "mask": spec,
        "method": method,
        "sampler": sampler,
        "steps": steps,
        "samples": samples,
        "images": len(images),
        "seed": seed,
        "crps": float(np.nanmean(score)) if samples > 1 and mask.any() else float("nan"),
        "crps_se": metrics.standard_error(score),
        "energy": float(np.nanmean(energy)) if samples > 1 and mask.any() else float("nan"),
        "coverage90": metrics.coverage(ranks, 0.9) if mask.any() else float("nan"),
        "ranks": ranks.tolist(),
        "psnr_mean": metrics.psnr(metrics.mse_of_mean(images, filled, mask)) if mask.any() else float("inf"),
        "psnr_sample": metrics.psnr(metrics.mse_of_sample(images, filled, mask)) if mask.any() else float("inf"),
        "evaluations": (model.evaluations - before) / completions,
        "seconds": seconds / completions,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned text that is also a Markdown table."""
    cells = [[heading for heading, _ in COLUMNS.values()]]
    cells += [[form.format(row[key]) for key, (_, form) in COLUMNS.items()] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    lines = [
        "| "
        + " | ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(x, widths, strict=True)))
        + " |"
        for x in cells
    ]
    rule = "|" + "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def machine(model: Model) -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": platform.processor() or platform.machine(),
        "device": str(model.device) if model.device.type == "cpu" else torch.cuda.get_device_name(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }
