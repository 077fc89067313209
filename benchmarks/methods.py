"""Every method against posteriors known in closed form, and side by side on the trained network.

    .venv/bin/python benchmarks/methods.py mixture      a 2-D mixture and a correlated Gaussian       (a minute)
    .venv/bin/python benchmarks/methods.py mcgdiff      the 25-component mixture of the MCGdiff paper (half an hour)
    .venv/bin/python benchmarks/methods.py empirical    the empirical prior on training digits        (a quarter of one)
    .venv/bin/python benchmarks/methods.py tune         settings, on validation digits                (a quarter)
    .venv/bin/python benchmarks/methods.py cost         bookkeeping, as a share of the network's time (a minute)
    .venv/bin/python benchmarks/methods.py pictures     the trained network, a column a method        (a minute)
    .venv/bin/python benchmarks/methods.py page         docs/methods.md from what the others wrote

Each part writes JSON (or pictures) into docs/methods/.
"""

import argparse
import functools
import json
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import inkfill
from inkfill import data, figures
from inkfill.checkpoint import SHIPPED, file_hash, written_whole
from inkfill.denoiser import Observation
from inkfill.evaluate import Cell, evaluate
from inkfill.inpainting import METHODS, Task, dps, fit_mask, inpaint, pigdm, repaint, repaint_path
from inkfill.oracle import EmpiricalPrior, GaussianMixture, Oracle
from inkfill.rng import SampleNoise, stream
from inkfill.samplers import spaced_levels
from inkfill.schedule import Schedule
from inkfill.smc import mcgdiff, tds

DOCS = Path(__file__).parent.parent / "docs"
FOLDER = DOCS / "methods"
SCHEDULE = Schedule.named("cosine")
Run = Callable[[Task], Tensor]


def task(prior: GaussianMixture, known: Tensor, y: Tensor, n: int, steps: int, seed: int) -> Task:
    """n rows that share one observation of a closed-form prior."""
    shape = (1, 1, len(known))
    known = known.view(1, *shape).expand(n, *shape)
    pixels = torch.where(known, y.float().view(1, *shape), 0.0).expand(n, *shape)
    noise = SampleNoise(seed, np.arange(n), np.zeros(n, int), shape)
    return Task(Oracle(prior, SCHEDULE), Observation(pixels, known), noise, spaced_levels(1000, steps), "ancestral")


def draw(run: Run, job: Task) -> Tensor:
    with torch.no_grad():
        x0 = run(job)
    return torch.where(job.observation.known, job.observation.pixels, x0).flatten(1).double()


def sliced_wasserstein(
    x: Tensor, y: Tensor, rng: np.random.Generator, slices: int = 1000, largest: bool = False
) -> float:
    """Mean (or largest) over random directions of the one-dimensional W1 distance of equally many points."""
    directions = torch.from_numpy(rng.standard_normal((x.shape[1], slices)))
    directions /= directions.norm(dim=0)
    apart = ((x @ directions).sort(0).values - (y @ directions).sort(0).values).abs().mean(0)
    return float(apart.max() if largest else apart.mean())


def save(name: str, rows: list[dict], **about: object) -> None:
    """Write a table with what it was measured on."""
    with written_whole(FOLDER / f"{name}.json") as temporary:
        temporary.write_text(json.dumps({"about": about, "rows": rows}, indent=1))


def runs(particles: int = 32, prior_variance: float = 1.0) -> dict[str, Run]:
    """The methods with settings for closed-form targets."""
    made: dict[str, Run] = {name: method.run for name, method in METHODS.items()}
    made["mcgdiff"] = functools.partial(mcgdiff, particles=particles)
    made["tds"] = functools.partial(tds, particles=particles, prior_variance=prior_variance)
    made["dps"] = functools.partial(dps, strength=1.0)
    made["pigdm"] = functools.partial(pigdm, prior_variance=prior_variance)
    return made


# ---- the parts -------------------------------------------------------------------------------------------------------


def mixture() -> None:
    """Moments and modes in two dimensions, 100 steps, 4,000 draws."""
    n, steps = 4000, 100
    targets = {
        "correlated Gaussian": GaussianMixture(
            torch.ones(1), torch.tensor([[0.2, -0.1]]), torch.tensor([[[1.0, 0.6], [0.6, 0.8]]])
        ),
        "mixture of three": GaussianMixture(
            torch.tensor([5.0, 3.0, 2.0]),
            torch.tensor([[-1.0, -1.0], [1.0, 0.8], [-0.6, 1.2]]),
            torch.tensor([[[0.05, 0.0], [0.0, 0.05]], [[0.10, 0.05], [0.05, 0.08]], [[0.04, -0.01], [-0.01, 0.02]]]),
        ),
    }
    known, rows = torch.tensor([True, False]), []
    for target, prior in targets.items():
        y = torch.tensor([0.7 if "Gaussian" in target else -0.3, 0.0])
        job = functools.partial(task, prior, known, y, n, steps)
        posterior = prior.posterior(job(0).observation)
        exact = posterior.sample(n, stream(1))
        for name, run in {"exact": None, **runs()}.items():
            x = draw(run, job(0)) if run else posterior.sample(n, stream(2))
            missing = x[:, 1]
            rows.append(
                {
                    "target": target,
                    "method": name,
                    "mean_error": float(missing.mean() - posterior.mean()[1]),
                    "std_ratio": float(missing.std() / posterior.covariance()[1, 1].sqrt()),
                    "wasserstein": sliced_wasserstein(x[:, 1:], exact[:, 1:], stream(3), 1),
                }
            )
            print(target, rows[-1], flush=True)
    save("mixture", rows, draws=n, steps=steps)


def mcgdiff_prior(d: int, seed: int) -> GaussianMixture:
    """25 components of unit covariance, means on the grid {-16, -8, 0, 8, 16}^2 repeated along the dimensions."""
    grid = torch.tensor([[8.0 * i, 8.0 * j] for i in range(-2, 3) for j in range(-2, 3)], dtype=torch.float64)
    weights = torch.from_numpy(stream(seed, "weights").chisquare(1, 25))
    return GaussianMixture(weights, grid.repeat(1, d // 2), torch.eye(d, dtype=torch.float64)[None])


MCGDIFF_SIZES = {8: (500, 64), 80: (200, 64), 800: (100, 32)}  # dimensions: draws, particles


def mcgdiff_table(seeds: int) -> None:
    """Sliced Wasserstein distance to exact posterior draws, 100 steps.

    y = A x without noise, A with singular values from U(0, 1). With A = U S V^T, the coordinates V^T x turn this into the
    first coordinates being known, so that a method for masks does it unchanged.
    """
    rows = []
    names = ("mcgdiff", "tds", "dps", "pigdm", "replacement", "repaint", "conditional")
    for d_x, (draws, particles) in MCGDIFF_SIZES.items():
        for d_y in (1, 2, 4):
            for seed in range(seeds):
                rng = stream(seed, "mcgdiff", d_x, d_y)
                base = mcgdiff_prior(d_x, seed)
                _, _, v = np.linalg.svd(rng.standard_normal((d_x, d_x)))
                rotation = torch.from_numpy(v)
                prior = GaussianMixture(base.weights, base.means @ rotation.T, base.covariances)
                known = torch.arange(d_x) < d_y
                y = torch.where(known, prior.sample(1, rng)[0], 0.0)
                job = task(prior, known, y, draws, 100, seed)
                posterior = prior.posterior(job.observation)
                exact, again = posterior.sample(draws, stream(seed, 1)), posterior.sample(draws, stream(seed, 2))
                variance = float(base.covariance().diagonal().mean())
                chosen = {**runs(particles, variance), "repaint": functools.partial(repaint, jump=10, repeats=5)}
                for name in ("exact", *names):
                    began = time.perf_counter()
                    x = again if name == "exact" else draw(chosen[name], job)
                    row = {"d_x": d_x, "d_y": d_y, "seed": seed, "method": name}
                    row["seconds"] = time.perf_counter() - began
                    row["sliced"] = sliced_wasserstein(x, exact, stream(seed, 3))
                    row["max_sliced"] = sliced_wasserstein(x, exact, stream(seed, 3), largest=True)
                    rows.append(row)
            save("mcgdiff", rows, seeds=seeds, steps=100)
            for name in ("exact", *names):
                found = [r for r in rows if (r["d_x"], r["d_y"], r["method"]) == (d_x, d_y, name)]
                print(d_x, d_y, name, f"{np.mean([r['sliced'] for r in found]):.2f}", flush=True)


def energy_distance(x: Tensor, y: Tensor) -> float:
    """Unbiased energy distance of two samples, [K, D] each: 2 E|X - Y| - E|X - X'| - E|Y - Y'|."""

    def within(z: Tensor) -> Tensor:
        return torch.cdist(z, z).sum() / (len(z) * (len(z) - 1))

    return float(2 * torch.cdist(x, y).mean() - within(x) - within(y))


def empirical(digits: int, steps: int) -> None:
    """Methods with the exact denoiser of a prior on 5,000 training digits, against exact posterior draws."""
    mnist, k, bandwidth = data.load("mnist"), 16, 0.1
    prior = EmpiricalPrior(data.to_x0(mnist.train[:5000]), bandwidth)
    labels = mnist.labels["train"][:5000]
    model = Oracle(prior, SCHEDULE)
    truth = mnist.validation[:digits]
    rows = []
    for spec in ("half:left", "box:10", "quadrants:3"):
        mask = torch.from_numpy(fit_mask(spec, truth, 0)[:, None]).repeat_interleave(k, 0)
        seen = Observation.of(data.to_x0(truth).repeat_interleave(k, 0), mask)
        image, sample = np.repeat(np.arange(digits), k), np.tile(np.arange(k), digits)
        exact, again = (prior.sample_posterior(seen, stream(i)) for i in (1, 2))
        weights = prior.log_weights(Observation(seen.pixels[::k], seen.known[::k])).double().exp().numpy()
        share = np.stack([weights[:, labels == c].sum(1) for c in range(10)], 1)
        for name in ("exact", *METHODS):
            began = time.perf_counter()
            if name == "exact":
                x0 = again
            else:
                noise = SampleNoise(0, image, sample, (1, 28, 28))
                job = Task(model, seen, noise, spaced_levels(1000, steps), "ancestral")
                with torch.no_grad():
                    x0 = METHODS[name].run(job)
            seconds = time.perf_counter() - began
            hole = mask[::k, 0].flatten(1)
            a, b = (z.flatten(1).view(digits, k, -1) for z in (x0, exact))
            distance = [energy_distance(a[i][:, hole[i]], b[i][:, hole[i]]) for i in range(digits)]
            near = np.concatenate(
                [torch.cdist(part, prior.images.flatten(1)).argmin(1) for part in x0.flatten(1).split(64)]
            )
            votes = labels[near].reshape(digits, k)
            counted = np.stack([(votes == c).mean(1) for c in range(10)], 1)
            rows.append(
                {
                    "mask": spec,
                    "method": name,
                    "energy": float(np.mean(distance)),
                    "energy_se": float(np.std(distance, ddof=1) / digits**0.5),
                    "labels": float(np.abs(counted - share).sum(1).mean() / 2),
                    "seconds": seconds,
                }
            )
            print(rows[-1], flush=True)
    save("empirical", rows, digits=digits, steps=steps)


def tune(digits: int) -> None:
    """CRPS on validation digits for settings of the methods that have any, trained network, about 50 evaluations."""
    model, truth, rows = inkfill.load(), data.load("mnist").validation[:digits], []
    candidates: dict[str, list[dict]] = {
        "repaint": [{"jump": j, "repeats": r} for j, r in ((1, 5), (1, 10), (5, 3), (10, 3))],
        "dps": [{"strength": s} for s in (1.0, 4.0, 8.0, 16.0)],
        "pigdm": [{"prior_variance": v} for v in (0.3, 1.0)],
        "mcgdiff": [{"particles": p} for p in (4, 8, 16)],
        "tds": [{"particles": p, "prior_variance": v} for p, v in ((2, 0.3), (4, 0.3), (4, 1.0), (8, 0.3))],
    }
    for name, settings in candidates.items():
        for setting in settings:
            steps = 50 // setting.get("particles", 1)
            if name == "repaint":
                path = functools.partial(repaint_path, **setting)
                steps = max(n for n in range(1, 51) if sum(b < a for a, b in pairwise(path(n))) <= 50)
            run = functools.partial(METHODS[name].run, **setting)
            METHODS["candidate"] = replace(METHODS[name], run=run, particles=setting.get("particles", 1))
            try:
                cells = [Cell(mask, "candidate", steps, 4, 0, "ancestral") for mask in ("half:left", "box:10")]
                found = [evaluate(model, truth, cell) for cell in cells]
            finally:
                del METHODS["candidate"]
            crps, energy = (float(np.mean([row[key] for row in found])) for key in ("crps", "energy"))
            rows.append({"method": name, **setting, "steps": steps, "crps": crps, "energy": energy})
            print(rows[-1], flush=True)
    save("tune", rows, digits=digits, checkpoint=file_hash(SHIPPED))


def cost(steps: int = 50) -> None:
    """Seconds of a method over seconds of as many passes through the network, alternating."""
    model, digits = inkfill.load(), data.load("auto").validation[:128]
    mask = torch.from_numpy(fit_mask("half:left", digits, 0)[:, None])
    seen = Observation.of(data.to_x0(digits), mask)
    rows = []

    def passes(gradient: bool) -> float:
        denoise, x = model.unconditional(seen.pixels), SampleNoise(0, np.arange(128), np.zeros(128, int), (1, 28, 28))()
        began = time.perf_counter()
        for t in range(1, 11):
            if gradient:
                leaf = x.requires_grad_()
                torch.autograd.grad(denoise(leaf, 90 * t).square().sum(), leaf)
            else:
                with torch.no_grad():
                    denoise(x, 90 * t)
        return (time.perf_counter() - began) / 10

    for name in ("conditional", "replacement", "ddnm", "dps", "pigdm"):
        method, ratios = METHODS[name], []
        for turn in range(5):
            noise = SampleNoise(turn, np.arange(128), np.zeros(128, int), (1, 28, 28))
            each = passes(method.gradient)
            began = time.perf_counter()
            with torch.no_grad():
                method.run(Task(model, seen, noise, spaced_levels(1000, steps)))
            if turn > 0:  # the first warms up
                ratios.append((time.perf_counter() - began) / (steps * (each + passes(method.gradient)) / 2))
        rows.append({"method": name, "gradient": method.gradient, "ratio": float(np.median(ratios))})
        print(rows[-1], flush=True)
    save("cost", rows, steps=steps, checkpoint=file_hash(SHIPPED))


def pictures() -> None:
    """The trained network: masked digits by methods at equal cost, and the reverse process of each."""
    model, evaluations = inkfill.load(), 100
    digits = data.load("auto").validation[:8]
    specs = ["half:left", "half:bottom", "box:14", "quadrants:3"] * 2
    mask = np.concatenate([fit_mask(s, digits[i : i + 1], i) for i, s in enumerate(specs)])
    columns, tiles, reverse = list(METHODS), [], []
    for name, method in METHODS.items():
        steps = method.steps_for(evaluations)
        beliefs: list[figures.RGB] = []

        def watch(t: int, x_t: Tensor, x0_hat: Tensor, beliefs: list[figures.RGB] = beliefs) -> None:
            beliefs.append(figures.grey(data.to_uint8(x0_hat[:1])[0]))

        filled = inpaint(model, digits, mask, 1, name, steps, sampler="ancestral", rows=len(digits), watch=watch)[:, 0]
        tiles.append([figures.grey(image) for image in filled])
        shown = np.linspace(0, len(beliefs) - 1, 9).round().astype(int)
        reverse.append([*(beliefs[i] for i in shown), figures.grey(filled[0])])
    rows = [
        [figures.masked(digits[i], mask[i]), *(column[i] for column in tiles), figures.grey(digits[i])]
        for i in range(len(digits))
    ]
    figures.save_picture(figures.sheet(rows, ["masked", *columns, "original"]), FOLDER / "methods.png")
    figures.save_picture(figures.sheet(reverse, names=columns), FOLDER / "reverse.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["mixture", "mcgdiff", "empirical", "tune", "cost", "pictures", "page"])
    parser.add_argument("--seeds", type=int, default=10, help="of the mcgdiff table")
    parser.add_argument("--digits", type=int, help="of the empirical table (16) and of tune (32)")
    parser.add_argument("--steps", type=int, default=50, help="of the empirical table")
    arguments = parser.parse_args()
    digits = arguments.digits or {"tune": 32}.get(arguments.part, 16)
    if arguments.part == "mixture":
        mixture()
    elif arguments.part == "mcgdiff":
        mcgdiff_table(arguments.seeds)
    elif arguments.part == "empirical":
        empirical(digits, arguments.steps)
    elif arguments.part == "tune":
        tune(digits)
    elif arguments.part == "cost":
        cost()
    elif arguments.part == "pictures":
        pictures()
    else:
        page()


def page() -> None:
    """docs/methods.md: what each method is, and the tables."""
    lines = [PAGE_HEAD]
    found = {p.stem: json.loads(p.read_text()) for p in FOLDER.glob("*.json")}
    load, about = ({name: part[key] for name, part in found.items()} for key in ("rows", "about"))
    if "mixture" in load:
        lines.append(PAGE_MIXTURE)
        lines += [
            "| target | method | error of the mean | standard deviation, ratio | W1 |",
            "| --- | --- | --: | --: | --: |",
        ]
        for r in load["mixture"]:
            cells = f"{r['mean_error']:+.3f} | {r['std_ratio']:.3f} | {r['wasserstein']:.3f}"
            lines.append(f"| {r['target']} | {r['method']} | {cells} |")
    if "mcgdiff" in load:
        rows = load["mcgdiff"]
        names = list(dict.fromkeys(r["method"] for r in rows))
        seeds = len({r["seed"] for r in rows})
        lines.append(PAGE_MCGDIFF.format(seeds=seeds))
        lines += ["| d_x | d_y | " + " | ".join(names) + " |", "| --: | --: |" + " --: |" * len(names)]
        for d_x, d_y in dict.fromkeys((r["d_x"], r["d_y"]) for r in rows):
            cells = []
            for name in names:
                found = [r["sliced"] for r in rows if (r["d_x"], r["d_y"], r["method"]) == (d_x, d_y, name)]
                error = np.std(found, ddof=1) / len(found) ** 0.5 if len(found) > 1 else float("nan")
                cells.append(f"{np.mean(found):.2f} ± {error:.2f}")
            lines.append(f"| {d_x} | {d_y} | " + " | ".join(cells) + " |")
        lines.append(PAGE_PUBLISHED)
        lines += ["| d_x | d_y | method | here | published |", "| --: | --: | --- | --: | --: |"]
        for (d_y, name), figure in PUBLISHED.items():
            found = [r["max_sliced"] for r in rows if (r["d_x"], r["d_y"], r["method"]) == (8, d_y, name)]
            here = f"{np.mean(found):.1f} ± {np.std(found, ddof=1) / len(found) ** 0.5:.1f}" if found else ""
            lines.append(f"| 8 | {d_y} | {name} | {here} | {figure} |")
    if "empirical" in load:
        lines.append(PAGE_EMPIRICAL.format(**about["empirical"]))
        lines += ["| mask | method | energy distance | labels, total variation |", "| --- | --- | --: | --: |"]
        for r in load["empirical"]:
            lines.append(
                f"| {r['mask']} | {r['method']} | {r['energy']:.2f} ± {r['energy_se']:.2f} | {r['labels']:.3f} |"
            )
    if "tune" in load:
        lines.append(PAGE_TUNE.format(**about["tune"]))
        lines += ["| method | settings | steps | CRPS | energy score |", "| --- | --- | --: | --: | --: |"]
        for r in load["tune"]:
            said = ", ".join(f"{k} {v}" for k, v in r.items() if k not in ("method", "steps", "crps", "energy"))
            lines.append(f"| {r['method']} | {said} | {r['steps']} | {r['crps']:.4f} | {r['energy']:.4f} |")
    if "cost" in load:
        lines.append(PAGE_COST)
        lines += ["| method | backward pass | time over that of its passes |", "| --- | --- | --: |"]
        lines += [f"| {r['method']} | {'yes' if r['gradient'] else 'no'} | {r['ratio']:.2f} |" for r in load["cost"]]
    if (FOLDER / "methods.png").exists():
        lines.append(PAGE_PICTURES)
    mutations = DOCS / "mutations.md"
    if mutations.exists():
        lines += [PAGE_MUTATIONS, mutations.read_text()]
    with written_whole(DOCS / "methods.md") as temporary:
        temporary.write_text("\n".join(lines).rstrip() + "\n")


PAGE_HEAD = """# Methods, and how right they are

One network, one driver, eight ways to fill a hole. `inkfill methods` lists them with their papers and their cost; each is
a short function in [`inpainting.py`](../src/inkfill/inpainting.py) or [`smc.py`](../src/inkfill/smc.py), with its update
rule as comments tied to the paper's equations.

This page asks of each: with a *perfect* denoiser, does it draw from the posterior? Priors whose denoiser and posterior
are known in closed form ([`oracle.py`](../src/inkfill/oracle.py)) answer that without any learning error. The tests hold
the exact methods to it within Monte Carlo error; the tables record how far off the others are.

*Made by `benchmarks/methods.py`; see its help for the commands.*

What the tables below say:

* `conditional`, `mcgdiff` and `tds` draw from the posterior: on the Gaussian and the mixture they stand at the distance that
  two exact samples have from each other, give or take what 100 steps cost.
* `replacement`, `repaint`, `ddnm`, `dps` and `pigdm` are right where what is known says nothing about what is missing (a test),
  `pigdm` on one isotropic Gaussian too. On a correlated Gaussian `repaint` and `pigdm` are close and the others are off. On
  a mixture each of them misses the weights of the modes altogether, however good the denoiser.
* Particles pay for exactness with dimension. In 8 dimensions 64 of them stand near the floor, in 80 at two to three times
  it and nearer with more observations, and in 800 filters of 32 lose modes. `conditional`, which needs no particles, stays at
  the floor but for one observation in 800 dimensions: there the modes are 160 apart, and the first of 100 even steps
  already decides between them.
* With the exact denoiser of 5,000 digits, `conditional` comes within a few hundredths of exact draws, and no
  training-free method comes near. What separates them from the posterior is then not the network: it is the method.
"""
PAGE_MIXTURE = """
## Two pixels, one known

4,000 draws, 100 steps, ancestral sampling, 32 particles for the particle methods (and so 3,200 evaluations a draw), `dps` of
strength 1, `repaint` with jump 1 and 5 repeats, a prior variance of 1 for `pigdm` and `tds`. The error of the mean and the ratio of
standard deviations are those of the missing pixel; W1 is the Wasserstein distance to exact draws, and the row `exact` is
the floor that 4,000 draws allow.
"""
PAGE_MCGDIFF = """
## The 25-component mixture of the MCGdiff paper

Sliced Wasserstein distance (mean over 1,000 directions) to exact posterior draws, mean over {seeds} seeds with standard
error. 100 steps. In 8 dimensions 500 draws and 64 particles, in 80 200 and 64, in 800 100 and 32. `conditional` has the
exact conditional denoiser: its distance from `exact` is what the steps cost. A particle method takes as many evaluations a
draw as it has particles times steps, `repaint` (jump 10, 5 repeats) about 460, the others 100. `dps` has strength 1; `pigdm`
and `tds` know the prior's variance.
"""
PAGE_PUBLISHED = """
The largest distance over directions, beside what the authors of MCGdiff publish with their code. The protocols differ: here
the observation has no noise, the noise schedule is inkfill's cosine and not theirs, the steps are 100 evenly spaced levels,
directions are 1,000 random ones and not optimised, and every draw has a filter of its own (theirs are the particles of one
filter, 128 of them). So the order of the methods can be compared, and the size of the figures roughly. Both come out lower here for one
and two observations; for `mcgdiff` the likely reason is that a filter a draw keeps draws independent, where the particles of
one filter share ancestors. For four observations both versions of `mcgdiff` are within a few tenths of exact. DDRM, which they list with
29.7, 13.6 and 0.49, is not among the methods here.
"""
PUBLISHED = {  # (d_y, method): max-sliced distance at d_x = 8
    (1, "dps"): 27.2,
    (2, "dps"): 18.7,
    (4, "dps"): 12.4,
    (1, "mcgdiff"): 5.2,
    (2, "mcgdiff"): 4.3,
    (4, "mcgdiff"): 0.18,
}
PAGE_EMPIRICAL = """
## The empirical prior on digits

5,000 training digits, a Gaussian of 0.1 on each: denoiser and posterior are exact in 784 dimensions. {digits} masked
validation digits, 16 completions each, {steps} steps. That is {steps} evaluations for most methods; `repaint` takes about five
times, `tds` 8 times and `mcgdiff` 16 times as many. Energy distance between completions and exact posterior draws over
missing pixels; total variation between the labels of the nearest training digits and the exact label posterior, whose floor
with 16 completions is the row `exact`. The prior does not hold the validation digits, and so narrow a one makes most posteriors a single training digit: the question is
whether a method finds it.
"""
PAGE_TUNE = """
## Settings, on validation digits

The trained network, {digits} validation digits, K = 4, mean over `half:left` and `box:10`, about 50 network evaluations a
completion, which the particle methods share among their particles. The defaults of `repaint` and `dps` come from this table;
the two settings of `pigdm` differ by less than another choice of digits changes them, and its default is the one for which it
is exact on a Gaussian. More particles are nearer to exact and cost more, so theirs are a compromise.
"""
PAGE_COST = """
## Cost

Time of a method at 50 steps over that of 50 passes through the network (forward and backward where it needs a gradient),
128 digits at a time, alternating, median of four. 1.00 would be no bookkeeping at all.
"""
PAGE_PICTURES = """
## On the trained network

A row a masked validation digit, a column a method, at most 100 network evaluations each.

![Masked digits completed by each method](methods/methods.png)

What each believes on the way, for the first digit:

![The reverse process of each method](methods/reverse.png)
"""
PAGE_MUTATIONS = """
## Would the tests notice?

`benchmarks/mutations.py` breaks each method in a way known from the field and runs the tests.
"""

if __name__ == "__main__":
    main()
