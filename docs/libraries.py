"""For docs/posteriors.md: the same methods in azula, deepinv and diffusers, by their own code, on one exact denoiser.

    pip install azula deepinv diffusers
    .venv/bin/python docs/libraries.py && .venv/bin/python docs/posteriors.py --part page

The target is the mixture in 16 dimensions of docs/posteriors.py, with its first 8 numbers known. A library that is not
installed is left out. Writes docs/posteriors/libraries.json.
"""

import contextlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from posteriors import SCHEDULE, drawn, names, save, seen_of, sliced, task, two_in_sixteen
from torch import Tensor

from inkfill.core.denoiser import Observation
from inkfill.evaluation.analytic import GaussianMixture, AnalyticPrior
from inkfill.methods import MEAN_METHODS, Task
from inkfill.core.rng import SampleNoise, stream
from inkfill.core.schedule import Schedule

ROWS, PROBLEMS, STEPS, D, SEEN = 500, 3, 100, 16, 8
PRIOR = two_in_sixteen()
VARIANCE = float(PRIOR.covariance().diagonal().mean())


@dataclass(frozen=True)
class Problem:
    """An observation, and exact draws given it."""

    noise: float
    seed: int

    @cached_property
    def y(self) -> Tensor:
        """What is seen, float64 ``[16]``, of which the first 8 count."""
        rng = stream(self.seed, "mixture")
        return PRIOR.sample(1, rng)[0] + self.noise * torch.from_numpy(rng.standard_normal(D))

    @cached_property
    def seen(self) -> Observation:
        """The same as an observation of this library."""
        return seen_of(self.y, torch.arange(D) < SEEN, self.noise)

    def exact(self, again: int = 1) -> Tensor:
        """Draws from the posterior."""
        posterior: GaussianMixture = PRIOR.observe(torch.eye(D)[:SEEN], self.y[:SEEN], self.noise)[0]
        return posterior.sample(ROWS, stream(self.seed, again))

    @property
    def start(self) -> Tensor:
        """Noise to start from, float32 ``[500, 16]``."""
        torch.manual_seed(self.seed)
        return torch.randn(ROWS, D)


Way = Callable[[Problem], Tensor]


def ours(name: str) -> Way:
    """This library's, at as many evaluations."""
    return lambda problem: drawn(PRIOR, problem.seen, ROWS, STEPS, name, VARIANCE, problem.seed)


def half_dps(problem: Problem) -> Tensor:
    """Ours at the strength of their zeta = 1: the paper's step is of the square of the norm, its code's of the norm."""
    job = task(PRIOR, problem.seen, ROWS, STEPS, "dps", {}, problem.seed)
    with torch.no_grad():
        x0 = MEAN_METHODS["dps"].run(job, strength=0.5)
    return torch.where(job.observation.known, job.observation.pixels, x0).flatten(1).double()


# ---- azula -----------------------------------------------------------------------------------------------------------


def azula_ways(noise: float) -> dict[str, Way]:
    """Its samplers on our levels: a schedule may be any pair of functions, so that nothing differs but the method."""
    from azula import guidance, sample
    from azula.denoise import Denoiser, DiracPosterior
    from azula.linalg.covariance import IsotropicCovariance
    from azula.noise import Schedule as Levels

    class Ours(Levels):
        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            a = SCHEDULE.alpha_bar[(t * SCHEDULE.T).round().long()].float()
            return a.sqrt(), (1 - a).sqrt()

    class Exact(Denoiser):
        schedule = Ours()

        def forward(self, x_t: Tensor, t: Tensor, **_: Any) -> Any:
            level = int((t * SCHEDULE.T).round())
            return DiracPosterior(PRIOR.denoiser(SCHEDULE)(x_t.view(-1, 1, 1, D), level).view(x_t.shape).float())

    def observe(x: Tensor) -> Tensor:
        return x[..., :SEEN]

    def back(y: Tensor) -> Tensor:
        return torch.cat([y, torch.zeros_like(y)], -1)

    def twist(y: Tensor, x_hat: Tensor, sigma: Tensor) -> Tensor:
        variance = noise**2 + VARIANCE * sigma**2 / (VARIANCE + sigma**2)
        return -(observe(x_hat) - y).square() / (2 * variance)

    def by(make: Callable[[Any, Tensor], Any], alone: bool = False) -> Way:
        def draw(problem: Problem) -> Tensor:
            sampler, x = make(Exact(), problem.y[:SEEN].float()), problem.start
            parts = x.split(1) if alone else [x]
            return torch.cat([sampler(part) for part in parts]).double()

        return draw

    run, least = {"steps": STEPS, "silent": True}, max(noise, 1e-3) ** 2
    ddpm = partial(sample.DDPMSampler, **run)
    found = {
        "diffpir": by(lambda d, y: ddpm(guidance.diffpir.DiffPIRDenoiser(d, y, observe, least, lmbda=1.0))),
        "pigdm": by(lambda d, y: guidance.pgdm.PGDMSampler(d, y, observe, back, eta=1.0, **run)),
        "tmpd": by(lambda d, y: ddpm(guidance.tmpd.TMPDenoiser(d, y, observe, least))),
        "mmps": by(lambda d, y: ddpm(guidance.mmps.MMPSDenoiser(d, y, observe, IsotropicCovariance(least)))),
        "mmps, 5 iterations": by(
            lambda d, y: ddpm(guidance.mmps.MMPSDenoiser(d, y, observe, IsotropicCovariance(least), iterations=5))
        ),
        "tds, one filter": by(lambda d, y: guidance.tds.TDSSampler(d, partial(twist, y), **run)),
    }
    if not noise:
        found["dps"] = by(lambda d, y: guidance.dps.DPSSampler(d, y, observe, **run))
        found["dps, one at a time"] = by(lambda d, y: guidance.dps.DPSSampler(d, y, observe, **run), alone=True)
        known = torch.arange(D) < SEEN
        repaint = partial(guidance.repaint.RePaintSampler, mask=known, steps=20, silent=True, iterations=5)
        found["repaint"] = by(lambda d, y: repaint(d, back(y), eta=1.0))
        found["repaint, its default eta 0"] = by(lambda d, y: repaint(d, back(y)))
    return found


# ---- deepinv ---------------------------------------------------------------------------------------------------------


def deepinv_ways(noise: float) -> dict[str, Way]:
    """Its samplers. It clips to [-1, 1], so that the mixture is given to it in quarters."""
    operators = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import deepinv
    from deepinv import sampling

    unit = 4.0

    class Exact(deepinv.models.Denoiser):  # type: ignore[misc]
        """E[x | x + sigma noise]; ``offset`` and ``scale`` say what its images are of ours."""

        def __init__(self, scale: float, offset: float) -> None:
            super().__init__()
            self.scale, self.offset = scale, offset

        def forward(self, x: Tensor, sigma: Any, **_: Any) -> Tensor:
            sigma = float(torch.as_tensor(sigma).flatten()[0]) * self.scale
            a = 1 / (1 + sigma**2)
            level = Schedule(torch.tensor([1.0, a], dtype=torch.float64))
            x0 = self.scale * (x.reshape(-1, 1, 1, D) - self.offset)
            return (PRIOR.denoiser(level)(x0 * a**0.5, 1) / self.scale + self.offset).view(x.shape).to(x.dtype)

    def by(make: Callable[[Any], Any], scale: float, offset: float) -> Way:
        def draw(problem: Problem) -> Tensor:
            mask = (torch.arange(D) < SEEN).view(1, 4, 4).float()
            physics = deepinv.physics.Inpainting(img_size=(1, 4, 4), mask=mask)
            physics.noise_model = deepinv.physics.GaussianNoise(max(noise / scale, 1e-4))
            y = ((problem.y / scale + offset).float().view(1, 1, 4, 4) * mask).expand(ROWS, -1, -1, -1)
            torch.manual_seed(problem.seed)
            x = make(Exact(scale, offset))(y.contiguous(), physics)
            return scale * (x.detach().reshape(ROWS, D).double() - offset)

        return draw

    def posterior(fidelity: Any, denoiser: Any) -> Any:
        return sampling.PosteriorDiffusion(
            data_fidelity=fidelity(denoiser=denoiser),
            denoiser=denoiser,
            sde=sampling.VariancePreservingDiffusion(alpha=1.0),
            solver=sampling.DDPMSolver(timesteps=torch.linspace(1, 0, STEPS + 1, dtype=torch.float64)),
            minus_one_one=False,
        )

    fidelities = sampling.noisy_datafidelity
    sigmas = np.geomspace(8 * unit, 0.01, STEPS) / (2 * unit)
    kind = {"sigmas": sigmas, "eta": 0.85, "etab": 1.0, "verbose": False}
    pir = {"sigma": max(noise / 2, 0.01), "max_iter": STEPS, "zeta": 0.6, "lambda_": 1.0, "verbose": False}
    found = {
        "diffpir": by(lambda d: sampling.DiffPIR(d, data_fidelity=deepinv.optim.data_fidelity.L2(), **pir), 2.0, 0.5),
        "ddrm": by(lambda d: sampling.DDRM(d, **kind), 2 * unit, 0.5),
        "pigdm": by(partial(posterior, fidelities.PiGDMDataFidelity), unit, 0.0),
        "mmps": by(partial(posterior, fidelities.MomentMatchingDataFidelity), unit, 0.0),
    }
    if not noise:
        dps = partial(sampling.DPS, num_steps=STEPS + 1, minus_one_one=False)
        found["dps"] = by(dps, unit, 0.0)
    return found


# ---- diffusers -------------------------------------------------------------------------------------------------------


def diffusers_ways(noise: float) -> dict[str, Way]:
    """Its RePaint, jump 10 and 5 repeats at 100 steps (about 460 evaluations), which it has marked as deprecated."""
    if noise:
        return {}
    from diffusers import RePaintScheduler

    theirs = RePaintScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False)
    schedule = Schedule(torch.cat([torch.ones(1), theirs.alphas_cumprod]).double())

    def by(eta: float) -> Way:
        def draw(problem: Problem) -> Tensor:
            theirs.set_timesteps(STEPS, jump_length=10, jump_n_sample=5)
            theirs.eta = eta
            x, last, mask = problem.start, int(theirs.timesteps[0]) + 1, (torch.arange(D) < SEEN).float()
            denoise = PRIOR.denoiser(schedule)
            for t in map(int, theirs.timesteps):  # as in its pipeline
                if t < last:
                    x0 = denoise(x.view(-1, 1, 1, D), t + 1).view(x.shape).float()
                    eps = schedule.eps_from_x0(x, t + 1, x0).float()
                    x = theirs.step(eps, t, x, problem.y.float(), mask).prev_sample
                else:
                    x = theirs.undo_step(x, last)
                last = t
            return x.double()

        return draw

    def mine(problem: Problem) -> Tensor:
        seen = Observation(*(planes.expand(ROWS, -1, -1, -1) for planes in (problem.seen.pixels, problem.seen.known)))
        levels = [*range(schedule.T - STEPS // 10 + 1, 0, -10), 0]
        rows = SampleNoise(problem.seed, np.arange(ROWS), np.zeros(ROWS, int), (1, 1, D))
        job = Task(AnalyticPrior(PRIOR, schedule), seen, rows, levels, "ancestral")
        with torch.no_grad():
            return MEAN_METHODS["repaint"].run(job, jump=10, repeats=5).flatten(1).double()

    return {"repaint": by(1.0), "repaint, its default eta 0": by(0.0), "repaint, inkfill at these settings": mine}


LIBRARIES = {"azula": azula_ways, "deepinv": deepinv_ways, "diffusers": diffusers_ways}


def main() -> None:
    """Measure, and write."""
    there = {name: ways for name, ways in LIBRARIES.items() if importlib.util.find_spec(name) is not None}
    versions = {name: importlib.metadata.version(name) for name in there}
    found = []
    for noise in (0.0, 0.2, 0.5):
        ways = {("inkfill", name): ours(name) for name in names(noise)} | {("", "exact"): lambda p: p.exact(2)}
        ways |= {} if noise else {("inkfill", "dps, strength 1/2"): half_dps}
        ways |= {(library, name): way for library, make in there.items() for name, way in make(noise).items()}
        for (library, name), way in ways.items():
            for seed in range(PROBLEMS):
                problem = Problem(noise, seed)
                distance = sliced(way(problem), problem.exact(), stream(3))
                found.append({"noise": noise, "problem": seed, "library": library, "method": name, "sliced": distance})
            print(noise, library, name, *(f"{row['sliced']:.3f}" for row in found[-PROBLEMS:]), flush=True)
    save("libraries", found, rows=ROWS, problems=PROBLEMS, **versions)


if __name__ == "__main__":
    main()
