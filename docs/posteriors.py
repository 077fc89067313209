"""docs/posteriors.md: are the draws of each method draws from the posterior? On priors where the posterior is known.

    .venv/bin/python docs/posteriors.py [--part NAME ...]      mixture, published, cardoso, ranks, ...

All methods have the exact denoiser, so what is off is the method. Each part writes JSON into docs/posteriors/; the same
methods in other libraries are measured by docs/libraries.py.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inkfill import data
from inkfill.files import read_json, write_json, written_whole
from inkfill.data import masks
from inkfill.core.denoiser import Observation
from inkfill.evaluation.classifier import WHOLE, judge, load_classifier
from inkfill.evaluation.metrics import crps
from inkfill.evaluation.analytic import EmpiricalPrior, GaussianMixture, AnalyticPrior
from inkfill.tables import markdown
from inkfill.filling.inpaint import inpaint
from inkfill.methods import MEAN_METHODS, Task
from inkfill.models.model import load as load_model
from inkfill.core.rng import SampleNoise, stream
from inkfill.core.samplers import spaced_timesteps
from inkfill.core.schedule import Schedule

DOCS = Path(__file__).parent
FOLDER = DOCS / "posteriors"
SCHEDULE = Schedule.named("cosine")
Row = dict[str, Any]
PARTICLES = 32


def settings(name: str, prior_variance: float) -> dict[str, float]:
    """What a method is told of a closed-form prior."""
    told: dict[str, float] = {}
    if name in ("mcgdiff", "tds"):
        told["particles"] = PARTICLES
    if name in ("pigdm", "tds"):
        told["prior_variance"] = prior_variance
    return told | ({"strength": 1.0} if name == "dps" else {})


def seen_of(y: Tensor, known: Tensor, noise: float) -> Observation:
    """An observation of the numbers of ``y`` that are ``known``, both ``[D]``: one row."""
    shape = (1, 1, 1, len(known))
    return Observation(torch.where(known, y, 0.0).float().view(shape), known.view(shape), noise)


def task(
    prior: Any,
    seen: Observation,
    rows: int,
    evaluations: int,
    name: str,
    told: dict[str, float],
    seed: int,
    schedule: Schedule = SCHEDULE,
) -> Task:
    """Rows that share an observation, at a number of steps that costs so many evaluations (a particle counts as one)."""
    seen = Observation(seen.pixels.expand(rows, -1, -1, -1), seen.known.expand(rows, -1, -1, -1), seen.noise)
    noise = SampleNoise(seed, np.arange(rows), np.zeros(rows, int), tuple(seen.pixels.shape[1:]))
    method = MEAN_METHODS[name]
    steps = evaluations if method.particles(told) > 1 else method.steps_for(evaluations, told)
    return Task(AnalyticPrior(prior, schedule), seen, noise, spaced_timesteps(schedule.T, steps), "ancestral")


def drawn(
    prior: Any,
    seen: Observation,
    rows: int,
    evaluations: int,
    name: str,
    variance: float,
    seed: int,
    schedule: Schedule = SCHEDULE,
) -> Tensor:
    """Draws of a method, float64 ``[rows, D]``, exact observations put in."""
    told = settings(name, variance)
    if name == "daps" and seen.noise:  # its default is for exact observations, beside which any spread will do
        told["prior_variance"] = variance
    job = task(prior, seen, rows, evaluations, name, told, seed, schedule)
    with torch.no_grad():
        x0 = MEAN_METHODS[name].run(job, **told)
    if not seen.noise:
        x0 = torch.where(job.observation.known, job.observation.pixels, x0)
    return x0.flatten(1).double()


def names(noise: float) -> list[str]:
    """The methods that know what noise is, or all."""
    return [name for name, method in MEAN_METHODS.items() if method.noisy or not noise]


# ---- a mixture of two in 16 dimensions ---------------------------------------------------------------------------------


def two_in_sixteen() -> GaussianMixture:
    """Two components in 16 dimensions: means -1 and +1 times (1, ..., 1) / 2, correlated within (AR(1), .6), .4 to .6."""
    place = torch.arange(16)
    within = 0.25 * 0.6 ** (place[:, None] - place).abs().double()
    return GaussianMixture(torch.tensor([0.4, 0.6]), torch.stack([-torch.ones(16), torch.ones(16)]) / 2, within[None])


def sliced(x: Tensor, y: Tensor, rng: np.random.Generator, slices: int = 500) -> float:
    """Mean W1 distance along random directions."""
    directions = torch.from_numpy(rng.standard_normal((x.shape[1], slices)))
    directions /= directions.norm(dim=0)
    return float(((x @ directions).sort(0).values - (y @ directions).sort(0).values).abs().mean())


def largest_sliced(x: Tensor, y: Tensor, steps: int = 100) -> float:
    """W1 distance along the direction where it is largest, found by gradient ascent from 8 random ones."""
    directions = torch.from_numpy(stream(0, "slices").standard_normal((x.shape[1], 8))).requires_grad_()
    optimiser, best = torch.optim.Adam([directions], 0.05), 0.0
    for _ in range(steps):
        unit = directions / directions.norm(dim=0)
        apart = ((x @ unit).sort(0).values - (y @ unit).sort(0).values).abs().mean(0)
        best = max(best, float(apart.detach().max()))
        optimiser.zero_grad()
        (-apart.sum()).backward()
        optimiser.step()
    return best


def mixture(rows: int = 1000, problems: int = 5) -> None:
    """Distances, moments and mode weights at noise 0, .2 and .5: the first 8 of 16 numbers known, 100 evaluations."""
    prior, known, found = two_in_sixteen(), torch.arange(16) < 8, []
    variance = float(prior.covariance().diagonal().mean())
    for noise in (0.0, 0.2, 0.5):
        for problem in range(problems):
            rng = stream(problem, "mixture")
            y = prior.sample(1, rng)[0] + noise * torch.from_numpy(rng.standard_normal(16))
            seen = seen_of(y, known, noise)
            posterior, _ = prior.observe(torch.eye(16)[known], y[known], noise)
            exact, again = posterior.sample(rows, stream(problem, 1)), posterior.sample(rows, stream(problem, 2))
            for name in ("exact", *names(noise)):
                x = again if name == "exact" else drawn(prior, seen, rows, 100, name, variance, problem)
                spread = posterior.covariance().diagonal().sqrt().clamp(min=1e-9)
                free = ~known if not noise else torch.ones(16, dtype=torch.bool)
                row: Row = {"noise": noise, "problem": problem, "method": name, "sliced": sliced(x, exact, stream(3))}
                row["largest"] = largest_sliced(x, exact)
                row["mean"] = float(((x.mean(0) - posterior.mean()) / spread)[free].abs().mean())
                row["deviation"] = float((x.std(0) / spread)[free].mean())
                found.append(row)
        print(f"noise {noise}", flush=True)
    save("mixture", found, rows=rows, problems=problems)


# ---- a published setting -------------------------------------------------------------------------------------------------

TRUE = (3.0, 2.0, 0.5, -0.5, 1.0, 0.8, -0.6, 1.1, -0.9, 0.4, 0.0, -1.2, 0.7, -0.3, 0.5, -0.8)
SCALE = 3.0  # y = 3 x + noise, of the first four numbers
PUBLISHED = {  # their table 4: RMSE and score-KSD with the analytical score, at noise .2 and .5
    "exact": (1.17, 1.31, 1.20, 0.64),
    "daps": (1.10, 0.60, 1.11, 0.48),
    "ddnm": (0.89, 1.46, 0.82, 0.89),
    "ddrm": (1.05, 0.73, 1.06, 0.44),
    "diffpir": (1.24, 0.67, 1.25, 0.44),
    "dps": (1.17, 0.50, 1.17, 0.44),
    "mcgdiff": (1.10, 1.19, 1.13, 0.44),
}


def of_qiu() -> GaussianMixture:
    """The prior of Qiu et al. 2026, supplement B: a mixture in the first two numbers, unit normal in 14 more."""
    means = torch.zeros(2, 16)
    means[1, :2] = 3.0
    variances = torch.ones(2, 16)
    variances[1, :2] = 2.0
    return GaussianMixture(torch.tensor([0.8, 0.2]), means, torch.diag_embed(variances))


def score_ksd(x: Tensor, posterior: GaussianMixture) -> float:
    """Their score-KSD: the kernel Stein discrepancy with k = (c^2 + |x - y|^2)^(-1/2), c = 1 / (1 + scale)."""
    x = x.detach().clone().requires_grad_()
    score = torch.autograd.grad(posterior.log_density(x).sum(), x)[0]
    x, d = x.detach(), x.shape[1]
    apart = x[:, None] - x
    square = apart.square().sum(-1)
    base = 1 / (1 + SCALE) ** 2 + square
    slope = -(base**-1.5)  # the gradient of k with respect to x is slope times (x - y)
    u = (score @ score.T) * base**-0.5 + d * base**-1.5 - 3 * square * base**-2.5
    u = u + slope * ((score[None] - score[:, None]) * apart).sum(-1)
    return float((u.sum() / d).clamp(min=0).sqrt()) / len(x)


def published(rows: int = 500, problems: int = 5) -> None:
    """Their setting A2: four of 16 numbers seen three times as large, with noise .2 or .5, at 100 evaluations."""
    prior, known, truth, found = of_qiu(), torch.arange(16) < 4, torch.tensor(TRUE, dtype=torch.float64), []
    variance = float(prior.covariance().diagonal().mean())
    for noise in (0.2, 0.5):
        for problem in range(problems):
            y = truth + noise / SCALE * torch.from_numpy(stream(problem, "published").standard_normal(16))
            posterior, _ = prior.observe(torch.eye(16)[known], y[known], noise / SCALE)
            exact, again = (posterior.sample(rows, stream(problem, i)) for i in (1, 2))
            for name in ("exact", *MEAN_METHODS):
                told = noise / SCALE if name in names(noise) else 0.0  # the others take what is seen as exact
                seen = seen_of(y, known, told)
                x = exact if name == "exact" else drawn(prior, seen, rows, 100, name, variance, problem)
                row: Row = {"noise": noise, "problem": problem, "method": name, "ksd": score_ksd(x, posterior)}
                row["rmse"] = float((x - truth).square().mean().sqrt())
                row["sliced"] = sliced(x, again, stream(3))
                found.append(row)
        print(f"noise {noise}", flush=True)
    save("published", found, rows=rows, problems=problems)


def of_cardoso(d: int, rng: np.random.Generator) -> GaussianMixture:
    """The mixture of Cardoso et al. 2024 (MCGdiff): 25 unit normals on a grid of width 8, with random weights, turned so
    that what their random matrix sees is the first number."""
    grid = torch.tensor([[8.0 * i, 8.0 * j] * (d // 2) for i in range(-2, 3) for j in range(-2, 3)])
    turn = torch.linalg.qr(torch.from_numpy(rng.standard_normal((d, d))))[0]
    weights = torch.from_numpy(rng.standard_normal(25) ** 2)
    return GaussianMixture(weights / weights.sum(), grid.double() @ turn, torch.eye(d)[None])


def cardoso(rows: int = 200, problems: int = 10) -> None:
    """Their setting with one observation: noise of any share of its size, their betas, 100 steps, the largest distance."""
    schedule, found = Schedule.named("linear"), []
    for d in (8, 80):
        for problem in range(problems):
            rng = stream(problem, "cardoso", str(d))
            prior, noise = of_cardoso(d, rng), float(rng.uniform(0.01, 1))
            y = prior.sample(1, rng)[0, :1] + noise * torch.from_numpy(rng.standard_normal(1))
            seen = seen_of(y, torch.arange(d) < 1, noise)
            posterior, _ = prior.observe(torch.eye(d)[:1], y, noise)
            exact, again = (posterior.sample(rows, stream(problem, i)) for i in (1, 2))
            variance = float(prior.covariance().diagonal().mean())
            for name in ("exact", *names(noise)):
                x = again if name == "exact" else drawn(prior, seen, rows, 100, name, variance, problem, schedule)
                row: Row = {"d": d, "problem": problem, "method": name, "noise": noise}
                row |= {"largest": largest_sliced(x, exact), "sliced": sliced(x, exact, stream(3))}
                found.append(row)
        print(f"d {d}", flush=True)
    save("cardoso", found, rows=rows, problems=problems)


# ---- ranks -------------------------------------------------------------------------------------------------------------


def ranks(problems: int = 400, draws: int = 31) -> None:
    """Simulation-based calibration (Talts et al. 2018): the true value's rank among the draws, over many observations.

    Truth and observation are drawn from the prior, so the ranks of an exact sampler are uniform, whatever the posterior.
    """
    prior, known, found = two_in_sixteen(), torch.arange(16) < 8, []
    variance = float(prior.covariance().diagonal().mean())
    for noise in (0.0, 0.2):
        for name in ("exact", *names(noise)):
            rng, counts = stream(0, "ranks"), np.zeros(8, int)
            for problem in range(problems):
                x = prior.sample(1, rng)[0]
                y = x + noise * torch.from_numpy(rng.standard_normal(16))
                seen = seen_of(y, known, noise)
                if name == "exact":
                    made = prior.observe(torch.eye(16)[known], y[known], noise)[0].sample(draws, stream(problem, 9))
                else:
                    made = drawn(prior, seen, draws, 50, name, variance, problem)
                rank = int((made[:, 8:].mean(1) < x[8:].mean()).sum())
                counts[rank * 8 // (draws + 1)] += 1
            expected = problems / 8
            chi = float(((counts - expected) ** 2 / expected).sum())
            inside = float(counts[2:6].sum() / problems)
            found.append({"noise": noise, "method": name, "counts": counts.tolist(), "chi": chi, "inside": inside})
            print(name, counts.tolist(), f"chi {chi:.0f}", flush=True)
    save("ranks", found, problems=problems, draws=draws)


# ---- digits ------------------------------------------------------------------------------------------------------------


def digits(count: int = 12, k: int = 32, bandwidth: float = 0.35) -> None:
    """The empirical prior with a bandwidth at which several digits compete: the labels' posterior is known exactly."""
    mnist = data.load("mnist")
    prior = EmpiricalPrior(data.to_x0(mnist.train[:2000]), bandwidth)
    labels, truth, found = mnist.labels["train"][:2000], mnist.validation[:count], []
    for spec in ("half:left", "quadrants:3"):
        hole = torch.from_numpy(masks.fit(spec, truth))
        once = Observation.of(data.to_x0(truth), hole[:, None])
        weights = prior.log_weights(once).double().exp().numpy()
        share = np.stack([weights[:, labels == c].sum(1) for c in range(10)], 1)
        seen = once.repeat(k)
        for name in ("exact", *MEAN_METHODS):
            if name == "exact":
                x0 = prior.sample_posterior(seen, stream(1))
            else:
                told = settings(name, 0.3)
                noise = SampleNoise(0, np.repeat(np.arange(count), k), np.tile(np.arange(k), count), (1, 28, 28))
                method = MEAN_METHODS[name]
                if method.particles(told) > 1:
                    told["particles"] = 8
                steps = 50 if method.particles(told) > 1 else method.steps_for(50, told)
                job = Task(AnalyticPrior(prior, SCHEDULE), seen, noise, spaced_timesteps(1000, steps), "ancestral")
                with torch.no_grad():
                    x0 = MEAN_METHODS[name].run(job, **told)
                x0 = torch.where(job.observation.known, job.observation.pixels, x0)
            likely = prior.log_weights(
                Observation(x0.flatten(1).float().view(-1, 1, 28, 28), torch.ones_like(x0, dtype=torch.bool))
            )
            odds = likely.double().exp().numpy()
            votes = np.stack([odds[:, labels == c].sum(1) for c in range(10)], 1).reshape(count, k, 10).mean(1)
            off = np.abs(votes - share).sum(1) / 2
            found.append(
                {"mask": spec, "method": name, "labels": float(off.mean()), "se": float(off.std(ddof=1) / count**0.5)}
            )
            print(spec, name, f"{off.mean():.3f}", flush=True)
        entropy = float(-(share * np.log(share.clip(1e-12))).sum(1).mean())
        found.append({"mask": spec, "method": "entropy", "labels": entropy, "se": 0.0})
    save("digits", found, count=count, k=k, bandwidth=bandwidth)


# ---- the conditional network, sharpened by evidence ---------------------------------------------------------------------


def sharpened(job: Task, particles: int = 4, threshold: float = 0.5) -> Tensor:
    """A particle filter whose proposal is the conditional network, and whose weights are the prior's over the proposal's.

    Were both networks exact, the weights would be even; where they are not, the prior decides between the particles.
    """
    many, (b, p) = job.repeat(particles), (len(job.observation.pixels), particles)
    x = job.noise(p).flatten(0, 1)
    weights, rows = torch.zeros(b, p, dtype=torch.float64), torch.arange(b)[:, None] * p
    for t, s in zip(job.levels, job.levels[1:], strict=False):
        told, free = many.conditional(x, t), many.unconditional(x, t)
        if s == 0:
            x = told
            break
        proposed, variance = job.schedule.q_posterior(told, x, t, s)
        prior, _ = job.schedule.q_posterior(free, x, t, s)
        moved = proposed + float(variance) ** 0.5 * job.noise(p).flatten(0, 1)
        ratio = (moved - proposed).square() - (moved - prior).square()
        weights += (ratio.flatten(1).sum(1).double() / (2 * float(variance))).view(b, p)
        share = weights.softmax(1)
        bad = share.square().sum(1).reciprocal() < threshold * p
        position = (torch.arange(p) + job.noise.uniform().double()[:, None]) / p
        chosen = torch.searchsorted(share.cumsum(1), position).clamp(max=p - 1)
        chosen = torch.where(bad[:, None], chosen, torch.arange(p))
        weights = torch.where(bad[:, None], 0.0, weights)
        x = moved[(rows + chosen).flatten()]
    one = torch.searchsorted(weights.softmax(1).cumsum(1), job.noise.uniform().double()[:, None]).clamp(max=p - 1)
    return x[(rows + one).flatten()]


def evidence(count: int = 100, k: int = 8) -> None:
    """The shipped network: conditional at 48 evaluations, and sharpened by 2 and 4 particles at as many."""
    mnist, model = data.load("mnist"), load_model("mnist")
    truth, labels, net = mnist.validation[:count], mnist.labels["validation"][:count], load_classifier(WHOLE)
    found: list[Row] = []
    for spec in ("half:left", "box:10", "quadrants:3"):
        hole, first = masks.fit(spec, truth), np.zeros(count)
        for name, method, steps in (
            ("conditional", "conditional", 48),
            ("sharpened, 2 particles", partial(sharpened, particles=2), 12),
            ("sharpened, 4 particles", partial(sharpened, particles=4), 6),
            ("conditional, 12 steps", "conditional", 12),
            ("conditional, 6 steps", "conditional", 6),
        ):
            filled = inpaint(model, truth, hole, k, method, steps, sampler="ancestral")
            odds = judge(net, filled.reshape(-1, 28, 28))[0].reshape(count, k, 10).mean(1)
            likelihood = -np.log(odds[np.arange(count), labels].clip(1e-3))
            first = likelihood if name == "conditional" else first
            gap = likelihood - first
            found.append(
                {
                    "mask": spec,
                    "method": name,
                    "crps": float(np.nanmean(crps(truth, filled, hole))),
                    "nll": float(likelihood.mean()),
                    "gaps": gap.tolist(),
                }
            )
            print(spec, name, found[-1]["crps"], found[-1]["nll"], flush=True)
    save("evidence", found, count=count, k=k)


def evidence_table(rows: list[Row]) -> str:
    """Means over the masks; the difference in likelihood digit by digit, with its standard error."""
    lines = []
    for name in dict.fromkeys(row["method"] for row in rows):
        those = [row for row in rows if row["method"] == name]
        gaps = np.array([row["gaps"] for row in those]).mean(0)
        gap = f"{gaps.mean():+.3f} ± {gaps.std(ddof=1) / len(gaps) ** 0.5:.3f}" if gaps.any() else ""
        lines.append([name, *(f"{np.mean([row[key] for row in those]):.4f}" for key in ("crps", "nll")), gap])
    return markdown(["method", "CRPS", "label, negative log-likelihood", "less that of conditional"], lines)


# ---- the page ----------------------------------------------------------------------------------------------------------


def save(name: str, found: list[Row], **about: Any) -> None:
    """Write a part."""
    write_json(FOLDER / f"{name}.json", {"about": about, "rows": found})


def mean_of(rows: list[Row], key: str, form: str = ".3f", **where: Any) -> str:
    """The mean of a column over the rows that are meant, with its standard error."""
    values = [row[key] for row in rows if all(row[k] == v for k, v in where.items()) and row[key] is not None]
    if not values:
        return ""
    error = f" ± {np.std(values, ddof=1) / len(values) ** 0.5:{form}}" if len(values) > 1 else ""
    return f"{np.mean(values):{form}}{error}"


def mixture_table(rows: list[Row]) -> str:
    """Methods in rows, noises in columns."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    noises = sorted({row["noise"] for row in rows})
    lines = []
    for name in methods:
        cells = [mean_of(rows, "sliced", method=name, noise=noise) for noise in noises]
        cells += [mean_of(rows, "largest", ".2f", method=name, noise=noise) for noise in noises]
        lines.append([name, *cells, mean_of(rows, "deviation", ".2f", method=name, noise=noises[0])])
    heads = [*(f"sliced W1, noise {n:g}" for n in noises), *(f"largest, {n:g}" for n in noises), "deviation, 0"]
    return markdown(["method", *heads], lines)


def published_table(rows: list[Row]) -> str:
    """Ours and theirs, at both noises."""
    lines = []
    for name in dict.fromkeys(row["method"] for row in rows):
        cells, theirs = [], PUBLISHED.get(name, ("",) * 4)
        for i, noise in enumerate((0.2, 0.5)):
            for j, key in enumerate(("rmse", "ksd")):
                ours = float(np.mean([r[key] for r in rows if (r["method"], r["noise"]) == (name, noise)]))
                cells += [f"{ours:.2f}", theirs[2 * i + j]]
            cells.append(mean_of(rows, "sliced", ".2f", method=name, noise=noise))
        lines.append([name, *cells])
    of_one = [w.format(n) for n in ("0.2", "0.5") for w in ("RMSE, {}", "theirs", "KSD, {}", "theirs", "sliced W1, {}")]
    return markdown(["method", *of_one], lines)


def cardoso_table(rows: list[Row]) -> str:
    """Methods in rows, dimensions in columns."""
    lines = [
        [name, *(mean_of(rows, key, ".1f", method=name, d=d) for d in (8, 80) for key in ("largest", "sliced"))]
        for name in dict.fromkeys(row["method"] for row in rows)
    ]
    return markdown(["method", *(f"{key}, d = {d}" for d in (8, 80) for key in ("largest", "sliced W1"))], lines)


def rank_table(rows: list[Row]) -> str:
    """Counts of ranks in eighths."""
    lines = [
        [r["noise"], r["method"], " ".join(map(str, r["counts"])), f"{r['chi']:.0f}", f"{r['inside']:.2f}"]
        for r in rows
    ]
    return markdown(["noise", "method", "ranks, in eighths", "chi square, 7", "in the middle half"], lines, left=3)


def digit_table(rows: list[Row]) -> str:
    """Methods in rows, masks in columns."""
    specs, methods = (list(dict.fromkeys(row[key] for row in rows)) for key in ("mask", "method"))
    at = {(row["mask"], row["method"]): row for row in rows}
    lines = [
        [name, *(f"{at[spec, name]['labels']:.3f} ± {at[spec, name]['se']:.3f}" for spec in specs)]
        for name in methods
        if name != "entropy"
    ]
    return markdown(["method", *specs], lines)


def library_table(rows: list[Row]) -> str:
    """Methods in rows, by library; noises in columns."""
    noises = sorted({row["noise"] for row in rows})
    keys = sorted(dict.fromkeys((row["method"], row["library"]) for row in rows), key=lambda key: key[0].split(",")[0])
    lines = [[*k, *(mean_of(rows, "sliced", method=k[0], library=k[1], noise=n) for n in noises)] for k in keys]
    shared = {name.split(",")[0] for name, library in keys if library not in ("inkfill", "")}
    lines = [line for line in lines if line[0].split(",")[0] in (*shared, "exact")]
    return markdown(["method", "library", *(f"noise {noise:g}" for noise in noises)], lines, left=2)


TABLES = {
    "mixture": mixture_table,
    "published": published_table,
    "cardoso": cardoso_table,
    "ranks": rank_table,
    "digits": digit_table,
    "libraries": library_table,
    "evidence": evidence_table,
}
PARTS = {
    "mixture": mixture,
    "published": published,
    "cardoso": cardoso,
    "ranks": ranks,
    "digits": digits,
    "evidence": evidence,
}


def page() -> None:
    """docs/posteriors.md, from what the parts wrote."""
    text = (DOCS / "posteriors.template.md").read_text()
    for name, table in TABLES.items():
        path = FOLDER / f"{name}.json"
        found = read_json(path)["rows"] if path.exists() else []
        text = text.replace(f"{{{name}}}", table(found) if found else "*Not measured here.*")
    with written_whole(DOCS / "posteriors.md") as temporary:
        temporary.write_text(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=[*PARTS, "page"], action="append", help="default: all")
    for part in parser.parse_args().part or PARTS:
        if part != "page":
            PARTS[part]()
    page()
