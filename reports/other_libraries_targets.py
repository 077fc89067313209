"""The same methods in azula, deepinv and diffusers, by their own code, with one exact denoiser.

    pip install azula deepinv diffusers
    .venv/bin/python reports/other_libraries_targets.py && .venv/bin/python reports/other_libraries.py page

The target is the mixture in 16 dimensions of posteriors.py, with its first 8 coordinates observed. A library that is
not installed is skipped. Writes reports/other-libraries/targets.json.
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
from torch import Tensor

from common import run, save, show, sliced_wasserstein
from inkfill.core.denoiser import Observation
from inkfill.core.rng import SampleNoise, stream
from inkfill.core.schedule import Schedule
from inkfill.evaluation.analytic import AnalyticPrior, GaussianMixture
from inkfill.methods import Task
from posteriors import METHODS, SCHEDULE, drawn, names, observed, task, two_in_sixteen

STEPS, D, OBSERVED = 100, 16, 8
PRIOR = two_in_sixteen()
VARIANCE = float(PRIOR.covariance().diagonal().mean())


@dataclass(frozen=True)
class Problem:
    """An observation, and exact samples given it."""

    noise: float
    seed: int
    rows: int  # samples of each method

    @cached_property
    def y(self) -> Tensor:
        """The noisy coordinates, float64 ``[16]``; the first 8 are observed."""
        rng = stream(self.seed, "mixture")
        return PRIOR.sample(1, rng)[0] + self.noise * torch.from_numpy(rng.standard_normal(D))

    @cached_property
    def observation(self) -> Observation:
        """The observation."""
        return observed(self.y, torch.arange(D) < OBSERVED, self.noise)

    def exact(self, again: int = 1) -> Tensor:
        """Samples of the posterior."""
        posterior: GaussianMixture = PRIOR.observe(torch.eye(D)[:OBSERVED], self.y[:OBSERVED], self.noise)[0]
        return posterior.sample(self.rows, stream(self.seed, again))

    @property
    def start(self) -> Tensor:
        """Initial noise, float32 ``[rows, 16]``."""
        torch.manual_seed(self.seed)
        return torch.randn(self.rows, D)


Way = Callable[[Problem], Tensor]


def ours(name: str) -> Way:
    """A method of inkfill."""
    return lambda problem: drawn(PRIOR, problem.observation, problem.rows, STEPS, name, problem.seed)


def half_dps(problem: Problem) -> Tensor:
    """inkfill at the strength of zeta = 1 in the others: the gradient of the norm, not of its square."""
    job = task(PRIOR, problem.observation, problem.rows, STEPS, problem.seed)
    with torch.no_grad():
        x0 = METHODS["dps"].run(job, strength=0.5)
    return torch.where(job.observation.known, job.observation.pixels, x0).flatten(1).double()


# ---- azula -----------------------------------------------------------------------------------------------------------


def azula_ways(noise: float) -> dict[str, Way]:
    """Its samplers on inkfill's schedule and timesteps: only the method differs."""
    from azula import guidance, sample
    from azula.denoise import Denoiser, DiracPosterior
    from azula.linalg.covariance import IsotropicCovariance
    from azula.noise import Schedule as AzulaSchedule

    class Ours(AzulaSchedule):
        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            a = SCHEDULE.alpha_bar[(t * SCHEDULE.T).round().long()].float()
            return a.sqrt(), (1 - a).sqrt()

    class Exact(Denoiser):
        schedule = Ours()

        def forward(self, x_t: Tensor, t: Tensor, **_: Any) -> Any:
            t_here = int((t * SCHEDULE.T).round())
            return DiracPosterior(PRIOR.denoiser(SCHEDULE)(x_t.view(-1, 1, 1, D), t_here).view(x_t.shape).float())

    def observe(x: Tensor) -> Tensor:
        return x[..., :OBSERVED]

    def back(y: Tensor) -> Tensor:
        return torch.cat([y, torch.zeros_like(y)], -1)

    def twist(y: Tensor, x_hat: Tensor, sigma: Tensor) -> Tensor:
        variance = noise**2 + VARIANCE * sigma**2 / (VARIANCE + sigma**2)
        return -(observe(x_hat) - y).square() / (2 * variance)

    def by(make: Callable[[Any, Tensor], Any], alone: bool = False) -> Way:
        def draw(problem: Problem) -> Tensor:
            sampler, x = make(Exact(), problem.y[:OBSERVED].float()), problem.start
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
        known = torch.arange(D) < OBSERVED
        repaint = partial(guidance.repaint.RePaintSampler, mask=known, steps=20, silent=True, iterations=5)
        found["repaint"] = by(lambda d, y: repaint(d, back(y), eta=1.0))
        found["repaint, its default eta 0"] = by(lambda d, y: repaint(d, back(y)))
    return found


# ---- deepinv ---------------------------------------------------------------------------------------------------------


def deepinv_ways(noise: float) -> dict[str, Way]:
    """Its samplers. It clips to [-1, 1], so the mixture is scaled by a quarter."""
    operators = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import deepinv
    from deepinv import sampling

    unit = 4.0

    class Exact(deepinv.models.Denoiser):  # type: ignore[misc]
        """E[x | x + sigma noise]; the prior's x is ``scale`` times (its image less ``offset``)."""

        def __init__(self, scale: float, offset: float) -> None:
            super().__init__()
            self.scale, self.offset = scale, offset

        def forward(self, x: Tensor, sigma: Any, **_: Any) -> Tensor:
            sigma = float(torch.as_tensor(sigma).flatten()[0]) * self.scale
            a = 1 / (1 + sigma**2)
            schedule = Schedule(torch.tensor([1.0, a], dtype=torch.float64))
            x0 = self.scale * (x.reshape(-1, 1, 1, D) - self.offset)
            return (PRIOR.denoiser(schedule)(x0 * a**0.5, 1) / self.scale + self.offset).view(x.shape).to(x.dtype)

    def by(make: Callable[[Any], Any], scale: float, offset: float) -> Way:
        def draw(problem: Problem) -> Tensor:
            mask = (torch.arange(D) < OBSERVED).view(1, 4, 4).float()
            physics = deepinv.physics.Inpainting(img_size=(1, 4, 4), mask=mask)
            physics.noise_model = deepinv.physics.GaussianNoise(max(noise / scale, 1e-4))
            y = ((problem.y / scale + offset).float().view(1, 1, 4, 4) * mask).expand(problem.rows, -1, -1, -1)
            torch.manual_seed(problem.seed)
            x = make(Exact(scale, offset))(y.contiguous(), physics)
            return scale * (x.detach().reshape(problem.rows, D).double() - offset)

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
    """Its RePaint, jump 10 and 5 repeats at 100 steps (about 460 NFE)."""
    if noise:
        return {}
    from diffusers import RePaintScheduler

    theirs = RePaintScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False)
    schedule = Schedule(torch.cat([torch.ones(1), theirs.alphas_cumprod]).double())

    def by(eta: float) -> Way:
        def draw(problem: Problem) -> Tensor:
            theirs.set_timesteps(STEPS, jump_length=10, jump_n_sample=5)
            theirs.eta = eta
            x, last, mask = problem.start, int(theirs.timesteps[0]) + 1, (torch.arange(D) < OBSERVED).float()
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
        timesteps = [*range(schedule.T - STEPS // 10 + 1, 0, -10), 0]
        noise = SampleNoise(problem.seed, np.arange(problem.rows), np.zeros(problem.rows, int), (1, 1, D))
        job = Task(
            AnalyticPrior(PRIOR, schedule), problem.observation.repeat(problem.rows), noise, timesteps, "ancestral"
        )
        with torch.no_grad():
            return METHODS["repaint"].run(job, jump=10, repeats=5).flatten(1).double()

    return {"repaint": by(1.0), "repaint, its default eta 0": by(0.0), "repaint, inkfill at these settings": mine}


LIBRARIES = {"azula": azula_ways, "deepinv": deepinv_ways, "diffusers": diffusers_ways}


def main(rows: int = 500, problems: int = 3) -> None:
    """Measure every method of every installed library."""
    there = {name: ways for name, ways in LIBRARIES.items() if importlib.util.find_spec(name) is not None}
    versions = {name: importlib.metadata.version(name) for name in there}
    found = []
    for noise in (0.0, 0.2, 0.5):
        ways = {("inkfill", name): ours(name) for name in names(noise)} | {("", "exact"): lambda p: p.exact(2)}
        ways |= {} if noise else {("inkfill", "dps, strength 1/2"): half_dps}
        ways |= {(library, name): way for library, make in there.items() for name, way in make(noise).items()}
        for (library, name), way in ways.items():
            for seed in range(problems):
                problem = Problem(noise, seed, rows)
                distance, _ = sliced_wasserstein(way(problem), problem.exact(), stream(3))
                row = {"noise": noise, "problem": seed, "library": library, "method": name, "sliced": distance}
                found.append(show(row))
    save("other-libraries", "targets", {"about": {"rows": rows, "problems": problems, **versions}, "rows": found})


if __name__ == "__main__":
    run(main)
