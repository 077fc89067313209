"""The methods on the shipped network: settings on validation digits, cost, and figures.

    .venv/bin/python reports/posteriors_images.py PART      settings, cost, pictures; page

Writes JSON and figures into reports/posteriors/; ``page`` rewrites its tables of reports/posteriors.md.
"""

from functools import partial
from statistics import median

import numpy as np
import torch
from torch import Tensor

import inkfill
from common import Row, alternate, folder, repeated, run, save, saved, show, write_tables
from inkfill import data
from inkfill.app import figures
from inkfill.core.denoiser import Denoiser, Observation
from inkfill.core.rng import SampleNoise
from inkfill.core.samplers import spaced_timesteps
from inkfill.data import masks
from inkfill.files import file_hash
from inkfill.methods import Task, mean_methods
from inkfill.models.checkpoint import SHIPPED
from inkfill.tables import table

REPORT, METHODS = "posteriors", mean_methods()
CANDIDATES: dict[str, list[Row]] = {
    "repaint": [{"jump": j, "repeats": r} for j, r in ((1, 5), (1, 10), (5, 3), (10, 3))],
    "dps": [{"strength": s} for s in (1.0, 4.0, 8.0, 16.0)],
    "pigdm": [{"prior_variance": v} for v in (0.3, 1.0)],
    "ddrm": [{"eta": e} for e in (0.5, 0.7, 0.85, 1.0)],
    "diffpir": [{"zeta": z} for z in (0.3, 0.6, 1.0)],
    "daps": [{"inner": i, "prior_variance": v} for i, v in ((1, 0.05), (3, 0.05), (5, 0.05), (3, 0.01), (3, 0.3))],
    "copaint": [{"iterations": i, "rate": r} for i, r in ((1, 0.3), (2, 0.3), (2, 1.0), (4, 0.3))],
    "mgps": [{"iterations": i, "middle": m} for i, m in ((1, 0.5), (2, 0.5), (4, 0.5), (2, 0.25), (2, 0.75))],
    "mmps": [{"iterations": i} for i in (1, 2, 3, 5)],
    "mcgdiff": [{"particles": p} for p in (4, 8, 16)],
    "tds": [{"particles": p, "prior_variance": v} for p, v in ((2, 0.3), (4, 0.3), (4, 1.0), (8, 0.3))],
}


def settings(digits: int = 32) -> None:
    """CRPS of every setting on validation digits, about 50 NFE."""
    model, truth, rows = inkfill.load(), data.load("mnist").validation[:digits], []
    for name, given in ((name, each) for name, several in CANDIDATES.items() for each in several):
        steps = METHODS[name].steps_for(50, given)
        found = inkfill.evaluate(model, truth, ["half:left", "box:10"], name, steps, 4, 0, "ancestral", settings=given)
        crps, energy = (float(np.mean([row[key] for row in found])) for key in ("crps", "energy"))
        rows.append(show({"method": name, **given, "steps": steps, "crps": crps, "energy": energy}))
    save(REPORT, "settings", {"about": {"digits": digits, "checkpoint": file_hash(SHIPPED)}, "rows": rows})


def one_pass(denoise: Denoiser, x: Tensor, gradient: bool) -> None:
    """One forward pass, or forward and backward."""
    with torch.set_grad_enabled(gradient):
        x0_hat = denoise(x.requires_grad_(gradient), 500)
    if gradient:
        torch.autograd.grad(x0_hat.square().sum(), x)


def cost(steps: int = 50, n: int = 128) -> None:
    """Seconds of a method over seconds of as many passes through the network, measured before and after it."""
    model, rows = inkfill.load(), []
    digits = data.load("auto").validation[:n]
    observation = Observation.of(data.to_x0(digits), torch.from_numpy(masks.fit("half:left", digits)[:, None]))
    noise = SampleNoise(0, np.arange(n), np.zeros(n, int), (1, 28, 28))
    job = Task(model, observation, noise, spaced_timesteps(1000, steps))
    for name in ("conditional", "replacement", "ddnm", "dps", "pigdm"):
        gradient = METHODS[name].gradient
        passes = repeated(partial(one_pass, model.unconditional(noise()), noise(), gradient), 10)

        def work(name: str = name) -> None:
            with torch.no_grad():
                METHODS[name].run(job)

        times = alternate({"before": passes, "method": work, "after": passes}, 4)
        each = zip(times["method"], times["before"], times["after"], strict=True)
        ratio = median(took / (steps * (before + after) / 20) for took, before, after in each)
        rows.append(show({"method": name, "gradient": gradient, "ratio": ratio}))
    save(REPORT, "cost", {"about": {"steps": steps, "checkpoint": file_hash(SHIPPED)}, "rows": rows})


def pictures(evaluations: int = 100) -> None:
    """Masked digits by all methods at equal NFE, and x0_hat along the way."""
    model, digits = inkfill.load(), data.load("auto").validation[:8]
    mask = masks.fit_each(["half:left", "half:bottom", "box:14", "quadrants:3"] * 2, digits)
    columns, reverse = [figures.masked(digits, mask)], []
    for name, method in METHODS.items():
        means: list[figures.RGB] = []

        def watch(t: int, x_t: Tensor, x0_hat: Tensor, means: list[figures.RGB] = means) -> None:
            means.append(figures.grey(data.to_uint8(x0_hat[:1])[0]))

        fill = partial(inkfill.inpaint, model, digits, mask, 1, name, method.steps_for(evaluations))
        columns.append(figures.grey(fill(sampler="ancestral", rows=len(digits), watch=watch)[:, 0]))
        chosen = np.linspace(0, len(means) - 1, 9).round().astype(int)
        reverse.append([*(means[i] for i in chosen), columns[-1][0]])
    rows = list(zip(*columns, figures.grey(digits), strict=True))
    figures.save_picture(figures.sheet(rows, ["masked", *METHODS, "original"]), folder(REPORT) / "methods.png")
    figures.save_picture(figures.sheet(reverse, names=list(METHODS)), folder(REPORT) / "reverse.png")


def page() -> None:
    """Rewrite the tables of the page from JSON."""
    scored = ("method", "steps", "crps", "energy")
    rows = [
        row | {"settings": ", ".join(f"{k} {v}" for k, v in row.items() if k not in scored)}
        for row in saved(REPORT, "settings")["rows"]
    ]
    heads = {"method": ("method", "{}"), "settings": ("settings", "{}"), "steps": ("steps", "{:d}")}
    heads |= {"crps": ("CRPS", "{:.4f}"), "energy": ("energy score", "{:.4f}")}
    costs = {"method": ("method", "{}"), "gradient": ("backward pass", "{}"), "ratio": ("ratio", "{:.2f}")}
    taken = [row | {"gradient": "yes" if row["gradient"] else "no"} for row in saved(REPORT, "cost")["rows"]]
    write_tables(REPORT, {"settings": table(rows, heads), "cost": table(taken, costs)})


if __name__ == "__main__":
    run(settings, cost, pictures, page)
