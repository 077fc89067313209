"""Every method against posteriors known in closed form, and side by side on the trained network.

    .venv/bin/python benchmarks/methods.py PART       mixture, mcgdiff (an hour), empirical, tune, cost, pictures, page

Each part writes JSON (or pictures) into docs/methods/; page makes docs/methods.md. mcgdiff makes the rows that it lacks.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

import inkfill
from common import DOCS, Row, alternate, distinct, from_files, repeated, run, show, timed, with_error, write_page
from inkfill import data
from inkfill.app import figures
from inkfill.models.checkpoint import SHIPPED
from inkfill.files import file_hash, write_json
from inkfill.data import masks
from inkfill.core.denoiser import Denoiser, Observation
from inkfill.evaluation import scores
from inkfill import tables
from inkfill.evaluation.cells import Cell
from inkfill.evaluation.analytic import EmpiricalPrior, GaussianMixture, AnalyticPrior
from inkfill.methods import MEAN_METHODS as METHODS
from inkfill.methods import Task
from inkfill.core.rng import SampleNoise, stream
from inkfill.core.samplers import spaced_timesteps
from inkfill.core.schedule import Schedule

FOLDER = DOCS / "methods"
SCHEDULE = Schedule.named("cosine")
Settings = Mapping[str, Mapping[str, float]]  # of methods, by name; what is not named keeps its default


def closed_form(particles: int = 32, prior_variance: float = 1.0) -> Settings:
    """Settings for closed-form targets."""
    filters, spread = {"particles": particles}, {"prior_variance": prior_variance}
    return {"dps": {"strength": 1.0}, "pigdm": spread, "mcgdiff": filters, "tds": filters | spread}


def task(prior: GaussianMixture, known: Tensor, y: Tensor, n: int, steps: int, seed: int) -> Task:
    """n rows that share one observation of a closed-form prior."""
    shape = (1, 1, len(known))
    known = known.view(1, *shape).expand(n, *shape)
    pixels = torch.where(known, y.float().view(1, *shape), 0.0).expand(n, *shape)
    noise = SampleNoise(seed, np.arange(n), np.zeros(n, int), shape)
    return Task(AnalyticPrior(prior, SCHEDULE), Observation(pixels, known), noise, spaced_timesteps(1000, steps), "ancestral")


def draw(name: str, job: Task, settings: Settings) -> Tensor:
    """What a method returns, with the known pixels put in: float64 ``[n, D]``."""
    with torch.no_grad():
        x0 = METHODS[name].run(job, **settings.get(name, {}))
    return torch.where(job.observation.known, job.observation.pixels, x0).flatten(1).double()


def sliced_wasserstein(x: Tensor, y: Tensor, rng: np.random.Generator, slices: int = 1000) -> tuple[float, float]:
    """Mean and largest over random directions of the one-dimensional W1 distance of equally many points."""
    directions = torch.from_numpy(rng.standard_normal((x.shape[1], slices)))
    directions /= directions.norm(dim=0)
    apart = ((x @ directions).sort(0).values - (y @ directions).sort(0).values).abs().mean(0)
    return float(apart.mean()), float(apart.max())


def energy_distance(x: Tensor, y: Tensor) -> float:
    """Unbiased energy distance of two samples, [K, D] each: 2 E|X - Y| - E|X - X'| - E|Y - Y'|."""
    within = sum(torch.cdist(z, z).sum() / (len(z) * (len(z) - 1)) for z in (x, y))
    return float(2 * torch.cdist(x, y).mean() - within)


def save(name: str, rows: list[Row], **about: object) -> None:
    """Write a table with what it was measured on."""
    write_json(FOLDER / f"{name}.json", {"about": about, "rows": rows})


# ---- closed forms ----------------------------------------------------------------------------------------------------


def mixture() -> None:
    """Moments and modes in two dimensions, 100 steps, 4,000 draws."""
    n, steps, rows = 4000, 100, []
    gaussian = torch.ones(1), torch.tensor([[0.2, -0.1]]), torch.tensor([[[1.0, 0.6], [0.6, 0.8]]])
    means = torch.tensor([[-1.0, -1.0], [1.0, 0.8], [-0.6, 1.2]])
    covariances = [[[0.05, 0.0], [0.0, 0.05]], [[0.10, 0.05], [0.05, 0.08]], [[0.04, -0.01], [-0.01, 0.02]]]
    three = torch.tensor([5.0, 3.0, 2.0]), means, torch.tensor(covariances)
    for target, parts, y in (("correlated Gaussian", gaussian, 0.7), ("mixture of three", three, -0.3)):
        prior = GaussianMixture(*parts)
        job = partial(task, prior, torch.tensor([True, False]), torch.tensor([y, 0.0]), n, steps)
        posterior = prior.posterior(job(0).observation)
        exact = posterior.sample(n, stream(1))
        for name in ("exact", *METHODS):
            x = posterior.sample(n, stream(2)) if name == "exact" else draw(name, job(0), closed_form())
            row = {"target": target, "method": name, "mean_error": float(x[:, 1].mean() - posterior.mean()[1])}
            row["std_ratio"] = float(x[:, 1].std() / posterior.covariance()[1, 1].sqrt())
            row["wasserstein"] = sliced_wasserstein(x[:, 1:], exact[:, 1:], stream(3), 1)[0]
            rows.append(show(row))
    save("mixture", rows, draws=n, steps=steps)


MCGDIFF_SIZES = {8: (500, 64), 80: (200, 64), 800: (100, 32)}  # dimensions: draws, particles
MCGDIFF_METHODS = tuple(name for name in METHODS if name != "ddnm")


def mcgdiff_prior(d: int, seed: int) -> GaussianMixture:
    """25 components of unit covariance, means on the grid {-16, -8, 0, 8, 16}^2 repeated along the dimensions."""
    grid = torch.tensor([[8.0 * i, 8.0 * j] for i in range(-2, 3) for j in range(-2, 3)], dtype=torch.float64)
    weights = torch.from_numpy(stream(seed, "weights").chisquare(1, 25))
    return GaussianMixture(weights, grid.repeat(1, d // 2), torch.eye(d, dtype=torch.float64)[None])


def mcgdiff_rows(d_x: int, d_y: int, seed: int, wanted: Sequence[str]) -> Iterator[Row]:
    """Distances of methods to exact posterior draws, of one problem.

    y = A x without noise, A with singular values from U(0, 1). With A = U S V^T, the coordinates V^T x turn this into the
    first coordinates being known, so that a method for masks does it unchanged.
    """
    (draws, particles), rng, base = MCGDIFF_SIZES[d_x], stream(seed, "mcgdiff", d_x, d_y), mcgdiff_prior(d_x, seed)
    _, _, v = np.linalg.svd(rng.standard_normal((d_x, d_x)))
    prior = GaussianMixture(base.weights, base.means @ torch.from_numpy(v).T, base.covariances)
    known = torch.arange(d_x) < d_y
    job = partial(task, prior, known, torch.where(known, prior.sample(1, rng)[0], 0.0), draws, 100, seed)
    posterior = prior.posterior(job().observation)
    exact, again = posterior.sample(draws, stream(seed, 1)), posterior.sample(draws, stream(seed, 2))
    variance = float(base.covariance().diagonal().mean())
    settings = {**closed_form(particles, variance), "repaint": {"jump": 10, "repeats": 5}}
    for name in wanted:
        x, took = (again, 0.0) if name == "exact" else timed(partial(draw, name, job(), settings))
        row = {"d_x": d_x, "d_y": d_y, "seed": seed, "method": name, "seconds": took}
        row["sliced"], row["max_sliced"] = sliced_wasserstein(x, exact, stream(seed, 3))
        yield show(row)


def mcgdiff(seeds: int = 10) -> None:
    """Sliced Wasserstein distance to exact posterior draws, 100 steps; written after every size."""
    rows: list[Row] = (
        from_files(FOLDER, {"mcgdiff": lambda found: {"rows": found["rows"]}}).get("mcgdiff", {}).get("rows", [])
    )
    for d_x, d_y in ((d_x, d_y) for d_x in MCGDIFF_SIZES for d_y in (1, 2, 4)):
        for seed in range(seeds):
            have = {r["method"] for r in rows if (r["d_x"], r["d_y"], r["seed"]) == (d_x, d_y, seed)}
            rows += mcgdiff_rows(d_x, d_y, seed, [name for name in ("exact", *MCGDIFF_METHODS) if name not in have])
        save("mcgdiff", rows, seeds=seeds, steps=100)


def empirical(digits: int = 16, steps: int = 50) -> None:
    """Methods with the exact denoiser of a prior on 5,000 training digits, against exact posterior draws."""
    mnist, k = data.load("mnist"), 16
    prior, labels = EmpiricalPrior(data.to_x0(mnist.train[:5000]), 0.1), mnist.labels["train"][:5000]
    truth, rows = mnist.validation[:digits], []
    for spec in ("half:left", "box:10", "quadrants:3"):
        hole = torch.from_numpy(masks.fit(spec, truth))
        once = Observation.of(data.to_x0(truth), hole[:, None])
        seen, missing = once.repeat(k), hole.flatten(1)
        exact, again = (prior.sample_posterior(seen, stream(i)) for i in (1, 2))
        weights = prior.log_weights(once).double().exp().numpy()
        share = np.stack([weights[:, labels == c].sum(1) for c in range(10)], 1)
        for name in ("exact", *METHODS):
            noise = SampleNoise(0, np.repeat(np.arange(digits), k), np.tile(np.arange(k), digits), (1, 28, 28))
            job = Task(AnalyticPrior(prior, SCHEDULE), seen, noise, spaced_timesteps(1000, steps), "ancestral")
            x0, took = (again, 0.0) if name == "exact" else timed(partial(draw, name, job, {}))
            x0 = x0.flatten(1).float()
            pairs = zip(x0.view(digits, k, -1), exact.view(digits, k, -1), missing, strict=True)
            distance = [energy_distance(a[:, where], b[:, where]) for a, b, where in pairs]
            near = [torch.cdist(part, prior.images.flatten(1)).argmin(1).numpy() for part in x0.split(64)]
            votes = labels[np.concatenate(near)].reshape(digits, k)
            counted = np.stack([(votes == c).mean(1) for c in range(10)], 1)
            row = {"mask": spec, "method": name, "energy": float(np.mean(distance))}
            row["energy_se"] = float(np.std(distance, ddof=1) / digits**0.5)
            row |= {"labels": float(np.abs(counted - share).sum(1).mean() / 2), "seconds": took}
            rows.append(show(row))
    save("empirical", rows, digits=digits, steps=steps)


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


def tune(digits: int = 32) -> None:
    """CRPS on validation digits for settings of the methods that have any, trained network, about 50 evaluations."""
    model, truth, rows = inkfill.load(), data.load("mnist").validation[:digits], []
    for name, settings in ((name, each) for name, several in CANDIDATES.items() for each in several):
        steps = METHODS[name].steps_for(50, settings)
        cells = [Cell(mask, name, steps, 4, 0, "ancestral", settings) for mask in ("half:left", "box:10")]
        found = [scores.evaluate(model, truth, cell) for cell in cells]
        crps, energy = (float(np.mean([row[key] for row in found])) for key in ("crps", "energy"))
        rows.append(show({"method": name, **settings, "steps": steps, "crps": crps, "energy": energy}))
    save("tune", rows, digits=digits, checkpoint=file_hash(SHIPPED))


def one_pass(denoise: Denoiser, x: Tensor, gradient: bool) -> None:
    """One pass through the network, forward, or forward and backward."""
    with torch.set_grad_enabled(gradient):
        x0_hat = denoise(x.requires_grad_(gradient), 500)
    if gradient:
        torch.autograd.grad(x0_hat.square().sum(), x)


def cost(steps: int = 50) -> None:
    """Seconds of a method over seconds of as many passes through the network, alternating: before it and after it."""
    model, n, rows = inkfill.load(), 128, []
    digits = data.load("auto").validation[:n]
    seen = Observation.of(data.to_x0(digits), torch.from_numpy(masks.fit("half:left", digits)[:, None]))
    noise = SampleNoise(0, np.arange(n), np.zeros(n, int), (1, 28, 28))
    job = Task(model, seen, noise, spaced_timesteps(1000, steps))
    for name in ("conditional", "replacement", "ddnm", "dps", "pigdm"):
        gradient = METHODS[name].gradient
        passes = repeated(partial(one_pass, model.unconditional(noise()), noise(), gradient), 10)
        times = alternate({"before": passes, "method": partial(draw, name, job, {}), "after": passes}, 4)
        each = zip(times["method"], times["before"], times["after"], strict=True)
        ratio = median(took / (steps * (before + after) / 20) for took, before, after in each)
        rows.append(show({"method": name, "gradient": gradient, "ratio": ratio}))
    save("cost", rows, steps=steps, checkpoint=file_hash(SHIPPED))


def pictures() -> None:
    """The trained network: masked digits by methods at equal cost, and the reverse process of each."""
    model, digits = inkfill.load(), data.load("auto").validation[:8]
    mask = masks.fit_each(["half:left", "half:bottom", "box:14", "quadrants:3"] * 2, digits)
    columns, reverse = [figures.masked(digits, mask)], []
    for name, method in METHODS.items():
        beliefs: list[figures.RGB] = []

        def watch(t: int, x_t: Tensor, x0_hat: Tensor, beliefs: list[figures.RGB] = beliefs) -> None:
            beliefs.append(figures.grey(data.to_uint8(x0_hat[:1])[0]))

        complete = partial(inkfill.inpaint, model, digits, mask, 1, name, method.steps_for(100), sampler="ancestral")
        columns.append(figures.grey(complete(rows=len(digits), watch=watch)[:, 0]))
        shown = np.linspace(0, len(beliefs) - 1, 9).round().astype(int)
        reverse.append([*(beliefs[i] for i in shown), columns[-1][0]])
    rows = list(zip(*columns, figures.grey(digits), strict=True))
    figures.save_picture(figures.sheet(rows, ["masked", *METHODS, "original"]), FOLDER / "methods.png")
    figures.save_picture(figures.sheet(reverse, names=list(METHODS)), FOLDER / "reverse.png")


SCORES = ("method", "steps", "crps", "energy")  # what a row of ``tune`` holds besides the settings
PUBLISHED = {"dps": (27.2, 18.7, 12.4), "ddrm": (29.7, 13.6, 0.49), "mcgdiff": (5.2, 4.3, 0.18)}  # d_x 8, d_y 1, 2, 4


def mcgdiff_tables(found: Any) -> Row:
    """The 25-component mixture, and beside it the figures that were published for it."""
    rows, published = found["rows"], []
    names, sizes = distinct(rows, "method"), list(dict.fromkeys((r["d_x"], r["d_y"]) for r in rows))

    def cell(d_x: int, d_y: int, name: str, key: str, form: str) -> str:
        return with_error([r[key] for r in rows if (r["d_x"], r["d_y"], r["method"]) == (d_x, d_y, name)], form)

    for name, figures_of in PUBLISHED.items():
        for d_y, figure in zip((1, 2, 4), figures_of, strict=True):
            here = cell(8, d_y, name, "max_sliced", ".1f")
            published.append({"method": name, "d_x": 8, "d_y": d_y, "here": here, "figure": figure})
    lines = [[*size, *(cell(*size, name, "sliced", ".2f") for name in names)] for size in sizes]
    shown = tables.markdown(["d_x", "d_y", *names], lines, left=0)
    return {"seeds": len(distinct(rows, "seed")), "table": shown, "published": published}


def rows_with(written: Callable[[Row], Row]) -> Callable[[Any], Row]:
    """What fills in a table of rows, each with what ``written`` makes of its figures."""
    return lambda found: {**found["about"], "row": [row | written(row) for row in found["rows"]]}


def page() -> None:
    """docs/methods.md, from what the parts wrote; a part whose file is not there is left out."""
    builders = {
        "mixture": rows_with(lambda row: {}),
        "mcgdiff": mcgdiff_tables,
        "empirical": rows_with(lambda row: {"distance": f"{row['energy']:.2f} ± {row['energy_se']:.2f}"}),
        "tune": rows_with(lambda row: {"settings": ", ".join(f"{k} {v}" for k, v in row.items() if k not in SCORES)}),
        "cost": rows_with(lambda row: {"backward": "yes" if row["gradient"] else "no"}),
    }
    values = from_files(FOLDER, builders)
    if (FOLDER / "methods.png").exists():
        values["pictures"] = {}
    if (DOCS / "mutations.md").exists():
        values["mutations"] = {"table": (DOCS / "mutations.md").read_text(encoding="utf-8")}
    write_page(DOCS / "methods.md", values)


if __name__ == "__main__":
    run(mixture, mcgdiff, empirical, tune, cost, pictures, page)
