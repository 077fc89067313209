"""Which methods sample the posterior? Measured with exact denoisers, where the posterior is known.

    .venv/bin/python reports/posteriors.py PART      two_pixels, sixteen, ranks, mcgdiff (an hour), empirical; page

Each part writes JSON into reports/posteriors/; ``page`` rewrites the tables of reports/posteriors.md.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common import (
    Row,
    distinct,
    run,
    save,
    saved,
    show,
    sliced_wasserstein,
    timed,
    with_error,
    write_tables,
)  # fmt: skip
from inkfill import data
from inkfill.core.denoiser import Observation
from inkfill.core.rng import SampleNoise, stream
from inkfill.core.samplers import spaced_timesteps
from inkfill.core.schedule import Schedule
from inkfill.data import masks
from inkfill.evaluation.analytic import AnalyticPrior, EmpiricalPrior, GaussianMixture
from inkfill.methods import Task, mean_methods
from inkfill.tables import markdown

REPORT, METHODS = "posteriors", mean_methods()
SCHEDULE = Schedule.named("cosine")
Settings = Mapping[str, float]
BASELINES = {"exact": "second set of exact samples", "conditional": "`conditional`, given the exact answer"}

# ---- samples of a method ---------------------------------------------------------------------------------------------


def settings(name: str, variance: float = 1.0, particles: int = 32, noise: float = 0.0) -> dict[str, float]:
    """The settings for an analytic prior of this variance per coordinate."""
    found: dict[str, float] = {}
    if name in ("mcgdiff", "tds"):
        found["particles"] = particles
    if name in ("pigdm", "tds") or (name == "daps" and noise):
        found["prior_variance"] = variance
    return found | ({"strength": 1.0} if name == "dps" else {})


def observed(y: Tensor, known: Tensor, noise: float = 0.0) -> Observation:
    """One observation of the coordinates of ``y`` that are ``known``, both ``[D]``."""
    shape = (1, 1, 1, len(known))
    return Observation(torch.where(known, y, 0.0).float().view(shape), known.view(shape), noise)


def task(prior: Any, once: Observation, rows: int, steps: int, seed: int) -> Task:
    """``rows`` samples for one observation."""
    noise = SampleNoise(seed, np.arange(rows), np.zeros(rows, int), tuple(once.pixels.shape[1:]))
    return Task(AnalyticPrior(prior, SCHEDULE), once.repeat(rows), noise, spaced_timesteps(1000, steps), "ancestral")


def steps_for(name: str, evaluations: int, given: Settings) -> int:
    """Steps that cost this NFE; a particle method takes as many steps, and costs that for every particle."""
    particles = METHODS[name].particles(given)
    return evaluations if particles > 1 else METHODS[name].steps_for(evaluations, given)


def draw(name: str, job: Task, given: Settings) -> Tensor:
    """Samples of a method, float64 ``[rows, D]``, with exact observations put in."""
    with torch.no_grad():
        x0 = METHODS[name].run(job, **given)
    if not job.observation.noise:
        x0 = torch.where(job.observation.known, job.observation.pixels, x0)
    return x0.flatten(1).double()


def drawn(prior: Any, once: Observation, rows: int, evaluations: int, name: str, seed: int) -> Tensor:
    """The same at a cost in NFE, with the settings for this prior."""
    variance = float(prior.covariance().diagonal().mean())
    given = settings(name, variance, noise=once.noise)
    return draw(name, task(prior, once, rows, steps_for(name, evaluations, given), seed), given)


def names(noise: float) -> list[str]:
    """The methods that model observation noise, or all of them."""
    return [name for name, method in METHODS.items() if method.noisy or not noise]


# ---- targets ---------------------------------------------------------------------------------------------------------


def two_pixels(rows: int = 4000, steps: int = 100) -> None:
    """A Gaussian and a mixture of three in two dimensions, one coordinate observed."""
    gaussian = torch.ones(1), torch.tensor([[0.2, -0.1]]), torch.tensor([[[1.0, 0.6], [0.6, 0.8]]])
    means = torch.tensor([[-1.0, -1.0], [1.0, 0.8], [-0.6, 1.2]])
    covariances = [[[0.05, 0.0], [0.0, 0.05]], [[0.10, 0.05], [0.05, 0.08]], [[0.04, -0.01], [-0.01, 0.02]]]
    three = torch.tensor([5.0, 3.0, 2.0]), means, torch.tensor(covariances)
    found = []
    for target, parts, y in (("correlated Gaussian", gaussian, 0.7), ("mixture of three", three, -0.3)):
        prior, once = GaussianMixture(*parts), observed(torch.tensor([y, 0.0]), torch.tensor([True, False]))
        posterior = prior.posterior(task(prior, once, rows, steps, 0).observation)
        exact = posterior.sample(rows, stream(1))
        for name in ("exact", *METHODS):
            again = posterior.sample(rows, stream(2))
            x = again if name == "exact" else draw(name, task(prior, once, rows, steps, 0), settings(name))
            row: Row = {"target": target, "method": name}
            row["mean_error"] = float(x[:, 1].mean() - posterior.mean()[1])
            row["std_ratio"] = float(x[:, 1].std() / posterior.covariance()[1, 1].sqrt())
            row["wasserstein"] = sliced_wasserstein(x[:, 1:], exact[:, 1:], stream(3), 1)[0]
            found.append(show(row))
    save(REPORT, "two-pixels", {"about": {"draws": rows, "steps": steps}, "rows": found})


def two_in_sixteen() -> GaussianMixture:
    """Two components in 16 dimensions: means -1/2 and +1/2, AR(1) .6 within, variance .25, weights .4 and .6."""
    place = torch.arange(16)
    within = 0.25 * 0.6 ** (place[:, None] - place).abs().double()
    return GaussianMixture(torch.tensor([0.4, 0.6]), torch.stack([-torch.ones(16), torch.ones(16)]) / 2, within[None])


def sixteen(rows: int = 1000, problems: int = 5) -> None:
    """The mixture of two with 8 of 16 coordinates observed at noise 0, .2 and .5; 100 NFE."""
    prior, known, found = two_in_sixteen(), torch.arange(16) < 8, []
    for noise in (0.0, 0.2, 0.5):
        for problem in range(problems):
            rng = stream(problem, "mixture")
            y = prior.sample(1, rng)[0] + noise * torch.from_numpy(rng.standard_normal(16))
            posterior, _ = prior.observe(torch.eye(16)[known], y[known], noise)
            exact, again = posterior.sample(rows, stream(problem, 1)), posterior.sample(rows, stream(problem, 2))
            std = posterior.covariance().diagonal().sqrt().clamp(min=1e-9)
            free = ~known if not noise else torch.ones(16, dtype=torch.bool)
            for name in ("exact", *names(noise)):
                x = again if name == "exact" else drawn(prior, observed(y, known, noise), rows, 100, name, problem)
                row: Row = {"noise": noise, "problem": problem, "method": name}
                row["sliced"] = sliced_wasserstein(x, exact, stream(3))[0]
                row["mean"] = float(((x.mean(0) - posterior.mean()) / std)[free].abs().mean())
                row["deviation"] = float((x.std(0) / std)[free].mean())
                found.append(show(row))
    save(REPORT, "sixteen", {"about": {"rows": rows, "problems": problems}, "rows": found})


def ranks(problems: int = 400, draws: int = 31) -> None:
    """Simulation-based calibration (Talts et al. 2018) on the same mixture: the rank of the truth, 50 NFE."""
    prior, known, found = two_in_sixteen(), torch.arange(16) < 8, []
    for noise in (0.0, 0.2):
        for name in ("exact", *names(noise)):
            rng, counts = stream(0, "ranks"), np.zeros(8, int)
            for problem in range(problems):
                x = prior.sample(1, rng)[0]
                y = x + noise * torch.from_numpy(rng.standard_normal(16))
                if name == "exact":
                    made = prior.observe(torch.eye(16)[known], y[known], noise)[0].sample(draws, stream(problem, 9))
                else:
                    made = drawn(prior, observed(y, known, noise), draws, 50, name, problem)
                rank = int((made[:, 8:].mean(1) < x[8:].mean()).sum())
                counts[rank * 8 // (draws + 1)] += 1
            chi = float(((counts - problems / 8) ** 2 / (problems / 8)).sum())
            inside = float(counts[2:6].sum() / problems)
            row = {"noise": noise, "method": name, "counts": counts.tolist(), "chi": chi, "inside": inside}
            found.append(show(row))
    save(REPORT, "ranks", {"about": {"problems": problems, "draws": draws}, "rows": found})


MCGDIFF_SIZES = {8: (500, 64), 80: (200, 64), 800: (100, 32)}  # dimensions: samples, particles
MCGDIFF_METHODS = tuple(name for name in METHODS if name != "ddnm")


def mcgdiff_rows(d_x: int, d_y: int, seed: int, wanted: list[str]) -> Iterator[Row]:
    """One problem of Cardoso et al. 2024: 25 components on a grid of width 8, y = A x without noise.

    A has singular values from U(0, 1). With A = U S V^T, the coordinates V^T x turn this into the first coordinates
    being observed, so a method for masks applies unchanged.
    """
    (draws, particles), rng = MCGDIFF_SIZES[d_x], stream(seed, "mcgdiff", d_x, d_y)
    grid = torch.tensor([[8.0 * i, 8.0 * j] for i in range(-2, 3) for j in range(-2, 3)], dtype=torch.float64)
    weights = torch.from_numpy(stream(seed, "weights").chisquare(1, 25))
    base = GaussianMixture(weights, grid.repeat(1, d_x // 2), torch.eye(d_x, dtype=torch.float64)[None])
    _, _, v = np.linalg.svd(rng.standard_normal((d_x, d_x)))
    prior = GaussianMixture(base.weights, base.means @ torch.from_numpy(v).T, base.covariances)
    known = torch.arange(d_x) < d_y
    once = observed(prior.sample(1, rng)[0], known)
    posterior = prior.posterior(task(prior, once, draws, 100, seed).observation)
    exact, again = posterior.sample(draws, stream(seed, 1)), posterior.sample(draws, stream(seed, 2))
    variance = float(base.covariance().diagonal().mean())
    for name in wanted:
        given = {"jump": 10, "repeats": 5} if name == "repaint" else settings(name, variance, particles)
        work = partial(draw, name, task(prior, once, draws, 100, seed), given)
        x, took = (again, 0.0) if name == "exact" else timed(work)
        row = {"d_x": d_x, "d_y": d_y, "seed": seed, "method": name, "seconds": took}
        row["sliced"], row["max_sliced"] = sliced_wasserstein(x, exact, stream(seed, 3), 1000)
        yield show(row)


def mcgdiff(seeds: int = 10) -> None:
    """The missing rows of the 25-component mixture in 8, 80 and 800 dimensions, 100 steps; written after every size."""
    rows: list[Row] = saved(REPORT, "mcgdiff")["rows"]
    for d_x, d_y in ((d_x, d_y) for d_x in MCGDIFF_SIZES for d_y in (1, 2, 4)):
        for seed in range(seeds):
            have = {r["method"] for r in rows if (r["d_x"], r["d_y"], r["seed"]) == (d_x, d_y, seed)}
            rows += mcgdiff_rows(d_x, d_y, seed, [name for name in ("exact", *MCGDIFF_METHODS) if name not in have])
        save(REPORT, "mcgdiff", {"about": {"seeds": seeds, "steps": 100}, "rows": rows})


def energy_distance(x: Tensor, y: Tensor) -> float:
    """Unbiased energy distance of two samples, [K, D] each: 2 E|X - Y| - E|X - X'| - E|Y - Y'|."""
    within = sum(torch.cdist(z, z).sum() / (len(z) * (len(z) - 1)) for z in (x, y))
    return float(2 * torch.cdist(x, y).mean() - within)


def empirical(digits: int = 16, steps: int = 50, k: int = 16) -> None:
    """The exact denoiser of 5,000 training digits with a Gaussian of 0.1 around each; validation digits."""
    mnist, found = data.load("mnist"), []
    prior, labels = EmpiricalPrior(data.to_x0(mnist.train[:5000]), 0.1), mnist.labels["train"][:5000]
    truth = mnist.validation[:digits]
    for spec in ("half:left", "box:10", "quadrants:3"):
        hole = torch.from_numpy(masks.fit(spec, truth))
        once = Observation.of(data.to_x0(truth), hole[:, None])
        each, missing = once.repeat(k), hole.flatten(1)
        exact, again = (prior.sample_posterior(each, stream(i)) for i in (1, 2))
        weights = prior.log_weights(once).double().exp().numpy()
        share = np.stack([weights[:, labels == c].sum(1) for c in range(10)], 1)
        for name in ("exact", *METHODS):
            noise = SampleNoise(0, np.repeat(np.arange(digits), k), np.tile(np.arange(k), digits), (1, 28, 28))
            job = Task(AnalyticPrior(prior, SCHEDULE), each, noise, spaced_timesteps(1000, steps), "ancestral")
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
            found.append(show(row))
    save(REPORT, "empirical", {"about": {"digits": digits, "steps": steps}, "rows": found})


# ---- the page --------------------------------------------------------------------------------------------------------


def ranked(rows: list[Row], score: str, columns: Mapping[str, Callable[[list[Row]], str]]) -> str:
    """Methods in lines: first the baselines, then the others, which all have the same information, best first."""
    of = {name: [row for row in rows if row["method"] == name] for name in distinct(rows, "method")}
    mean = {name: float(np.mean([row[score] for row in each if score in row])) for name, each in of.items()}
    order = [*BASELINES, *sorted((name for name in of if name not in BASELINES), key=mean.__getitem__)]
    lines = [[BASELINES.get(name, f"`{name}`"), *(cell(of[name]) for cell in columns.values())] for name in order]
    return markdown(["method", *columns], lines)


def column(key: str, form: str, **where: Any) -> Callable[[list[Row]], str]:
    """A cell of the rows that have these values: their mean, with its standard error where there are several."""

    def cell(rows: list[Row]) -> str:
        values = [row[key] for row in rows if all(row[k] == v for k, v in where.items())]
        return format(values[0], form) if len(values) == 1 else with_error(values, form)

    return cell


def with_se(spec: str) -> Callable[[list[Row]], str]:
    """The energy distance for a mask."""

    def cell(rows: list[Row]) -> str:
        row = next(row for row in rows if row["mask"] == spec)
        return f"{row['energy']:.2f} ± {row['energy_se']:.2f}"

    return cell


def nfe(rows: list[Row]) -> str:
    """Network evaluations per sample at the settings of ``sixteen``."""
    name = rows[0]["method"]
    if name == "exact":
        return ""
    given = settings(name)
    return f"{METHODS[name].evaluations(steps_for(name, 100, given), given):,}"


def rank_table(rows: list[Row]) -> str:
    """Counts of ranks in eighths."""
    lines = [
        [r["noise"], BASELINES.get(r["method"], f"`{r['method']}`"), " ".join(map(str, r["counts"])), f"{r['chi']:.0f}"]
        for r in sorted(
            rows, key=lambda r: (r["noise"], r["method"] != "exact", r["method"] not in BASELINES, r["chi"])
        )
    ]
    return markdown(["noise", "method", "ranks, in eighths", "chi square"], lines, left=3)


def page() -> None:
    """Rewrite the tables of the page from JSON."""
    two, mixture, sizes, digits = (
        saved(REPORT, name)["rows"] for name in ("two-pixels", "sixteen", "mcgdiff", "empirical")
    )
    targets = distinct(two, "target")
    tables = {
        "two-pixels": ranked(
            sorted(two, key=lambda row: targets.index(row["target"])),
            "wasserstein",
            {f"W1, {t}": column("wasserstein", ".3f", target=t) for t in targets}
            | {f"std ratio, {t}": column("std_ratio", ".2f", target=t) for t in targets},
        ),
        "sixteen": ranked(
            [row if row["noise"] else row | {"noise_0": row["sliced"]} for row in mixture],
            "noise_0",
            {"NFE": nfe}
            | {f"W1, noise {n:g}": column("sliced", ".3f", noise=n) for n in distinct(mixture, "noise")}
            | {"std ratio, noise 0": column("deviation", ".2f", noise=0.0)},
        ),
        "ranks": rank_table(saved(REPORT, "ranks")["rows"]),
        "mcgdiff": ranked(
            sizes,
            "sliced",
            {f"{x}, {y}": column("sliced", ".2f", d_x=x, d_y=y) for x in MCGDIFF_SIZES for y in (1, 2, 4)},
        ),
        "empirical": ranked(digits, "energy", {spec: with_se(spec) for spec in distinct(digits, "mask")}),
    }
    write_tables(REPORT, tables)


if __name__ == "__main__":
    run(two_pixels, sixteen, ranks, mcgdiff, empirical, page)
