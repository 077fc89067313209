"""Particle methods: propose, weight, resample, in one loop. Exact as steps and particles grow.

Each sample has its own filter of P particles; one of them, drawn by weight, is the sample.
"""

import math
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from inkfill.core.rng import SampleNoise
from inkfill.methods.registry import Settings, method
from inkfill.methods.task import Task


class Filtered(NamedTuple):
    """The sample of each row, and the filter's estimate of log p(y)."""

    x0: Tensor  # [B, C, H, W]
    log_evidence: Tensor  # [B]


def log_normal(x: Tensor, mean: Tensor, variance: float | Tensor) -> Tensor:
    """log N(x; mean, variance), elementwise."""
    v = torch.as_tensor(variance, dtype=x.dtype, device=x.device)
    return -0.5 * ((x - mean).square() / v + (2 * math.pi * v).log())


def resample(log_weights: Tensor, noise: SampleNoise) -> Tensor:
    """Systematic resampling: ancestors ``[B, P]`` from log-weights ``[B, P]``, one uniform draw a row."""
    p = log_weights.shape[1]
    cumulative = log_weights.softmax(1).cumsum(1)
    points = (noise.uniform().to(cumulative.dtype)[:, None] + torch.arange(p, device=log_weights.device)) / p
    return torch.searchsorted(cumulative, points).clamp(max=p - 1)


class Kernel(Protocol):
    """The weights and proposals of a particle method; particles are ``[B P, C, H, W]``, those of a row adjacent."""

    x0_hat: Tensor  # of the particles weighted last

    def start(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Particles at T from standard normal ``z``, and a constant of the log evidence, one a particle."""
        ...

    def weight(self, x: Tensor, t: int, s: int) -> Tensor:
        """The increments of the log-weights at t, one a particle."""
        ...

    def propose(self, x: Tensor, ancestors: Tensor, t: int, s: int, z: Tensor) -> Tensor:
        """The resampled particles, moved from t to s with the noise ``z``."""
        ...


def run_filter(task: Task, particles: int, threshold: float, kernel: Kernel) -> Filtered:
    """The loop of all particle methods.

    The particles of a row are resampled when their effective sample size is below ``threshold`` x particles.
    """
    noise, shape = task.noise, task.observation.pixels.shape
    b, p = shape[0], particles
    # [B P, C, H, W], a row's particles adjacent.
    x, log_start = kernel.start(noise(p).flatten(0, 1))
    exact = torch.float32 if x.device.type == "mps" else torch.float64  # mps has no float64
    log_w = torch.zeros(b, p, dtype=exact, device=x.device)
    log_evidence = log_start.view(b, p)[:, 0].to(exact)
    rows = torch.arange(b, device=x.device)[:, None] * p
    x0_hat = x
    for t, s in pairwise(task.timesteps):
        log_w = log_w + kernel.weight(x, t, s).view(b, p)
        task.watched(t, x.view(b, p, *shape[1:])[:, 0], kernel.x0_hat.view(b, p, *shape[1:])[:, 0])
        effective = log_w.softmax(1).square().sum(1).reciprocal()
        degenerate = effective < threshold * p
        stay = torch.arange(p, device=x.device).expand(b, p)
        chosen = torch.where(degenerate[:, None], resample(log_w, noise), stay)
        average = log_w.logsumexp(1) - math.log(p)
        log_evidence = log_evidence + torch.where(degenerate, average, 0.0)
        log_w = torch.where(degenerate[:, None], 0.0, log_w)
        ancestors = (rows + chosen).flatten()
        x0_hat = kernel.x0_hat[ancestors]
        x = kernel.propose(x, ancestors, t, s, noise(p).flatten(0, 1)) if s > 0 else x0_hat
    log_evidence = log_evidence + log_w.logsumexp(1) - math.log(p)
    cumulative = log_w.softmax(1).cumsum(1)
    one = torch.searchsorted(cumulative, noise.uniform().to(exact)[:, None]).clamp(max=p - 1)
    return Filtered(x0_hat[(rows + one).flatten()], log_evidence)


class Mcgdiff:
    """The weights and proposals of MCGdiff (Cardoso et al. 2023, section 3.1).

    The potential at t is N(sqrt(a_t) y; x_t, 1 - a_t + a_t n), with n the variance of the observation noise: at t = 0
    it is the likelihood itself. Without noise it is the paper's.
    """

    def __init__(self, task: Task, particles: int):
        self.task = task.repeat(particles)
        self.schedule, self.observation = self.task.schedule, self.task.observation
        self.x0_hat = self.observation.pixels

    def start(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Particles at T, and a constant of the evidence: N(0, I) times the potential, a Gaussian."""
        known, y = self.observation.known, self.observation.pixels
        a = float(self.schedule.alpha_bar[-1])
        variance = self._variance(self.schedule.T)
        gain = 1 / (1 + variance)
        fused = gain * a**0.5 * y + (variance * gain) ** 0.5 * z
        constant = log_normal(a**0.5 * y, torch.zeros_like(y), 1 + variance)
        return torch.where(known, fused, z), torch.where(known, constant, 0.0).flatten(1).sum(1)

    def weight(self, x: Tensor, t: int, s: int) -> Tensor:
        """N(sqrt(a_s) y; m_s(x_t), sigma^2 + 1 - a_s) / N(sqrt(a_t) y; x_t, 1 - a_t) (their eq. 12).

        Over observed pixels; the variances of the potentials include the observation noise.
        """
        known, y = self.observation.known, self.observation.pixels
        self.x0_hat = self.task.unconditional(x, t)
        a_t, a_s = float(self.schedule.alpha_bar[t]), float(self.schedule.alpha_bar[s])
        if s == 0 and not self.observation.noise:  # observed pixels are exact from here: no weight
            return x.new_zeros(len(x))
        # 1. The potential at t: the observed part of x_t against the noised observation.
        before = log_normal(x, a_t**0.5 * y, self._variance(t))
        # 2. The potential at s, integrated over the ancestral kernel.
        mean, variance = self.schedule.q_posterior(self.x0_hat, x, t, s)
        after = log_normal(a_s**0.5 * y, mean, float(variance) + self._variance(s))
        return torch.where(known, after - before, 0.0).flatten(1).sum(1)

    def propose(self, x: Tensor, ancestors: Tensor, t: int, s: int, z: Tensor) -> Tensor:
        """Observed part: kernel times potential, a Gaussian with gain K. Missing part: the kernel (their eq. 11)."""
        known, y = self.observation.known[ancestors], self.observation.pixels[ancestors]
        a_s = float(self.schedule.alpha_bar[s])
        mean, variance = self.schedule.q_posterior(self.x0_hat[ancestors], x[ancestors], t, s)
        v = float(variance)
        gain = v / (v + self._variance(s))
        fused = gain * a_s**0.5 * y + (1 - gain) * mean + (self._variance(s) * gain) ** 0.5 * z
        return torch.where(known, fused, mean + v**0.5 * z)

    def _variance(self, t: int) -> float:
        """The variance of the potential at t."""
        a = float(self.schedule.alpha_bar[t])
        return 1 - a + a * self.observation.noise**2


class Tds:
    """The weights and proposals of the twisted diffusion sampler (Wu et al. 2023, algorithm 1)."""

    def __init__(self, task: Task, particles: int, prior_variance: float):
        self.task = task.repeat(particles)
        self.schedule, self.observation = self.task.schedule, self.task.observation
        self.prior_variance = prior_variance
        self.x0_hat = self.observation.pixels
        self.correction = torch.zeros(len(self.observation.pixels), device=self.observation.pixels.device)

    def start(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Particles at T: the prior's."""
        return z, torch.zeros(len(z), device=z.device)

    def weight(self, x: Tensor, t: int, s: int) -> Tensor:
        """log of p(x_t given x_above) twist(x_t) / (q(x_t given x_above) twist(x_above)) (their eq. 11)."""
        variance = self.schedule.posterior_variance(t, self.prior_variance) + self.observation.noise**2
        # 1. The twist: y given x_t approximated by N(x0_hat, variance), and its gradient (eqs. 8, 9).
        self.x0_hat, self.twist, self.gradient = self.task.likelihood_gradient(x, t, variance)
        return self.correction + self.twist

    def propose(self, x: Tensor, ancestors: Tensor, t: int, s: int, z: Tensor) -> Tensor:
        """The ancestral step with the twisted score; its weight is corrected at the next timestep (eq. 10)."""
        x, x0_hat, gradient = x[ancestors], self.x0_hat[ancestors], self.gradient[ancestors]
        a = float(self.schedule.alpha_bar[t])
        mean, variance = self.schedule.q_posterior(x0_hat, x, t, s)
        # Clipped: the weights correct for any proposal.
        guided = self.task.clip(x0_hat + (1 - a) / a**0.5 * gradient)
        twisted, _ = self.schedule.q_posterior(guided, x, t, s)
        moved = twisted + float(variance) ** 0.5 * z
        ratio = log_normal(moved, mean, variance) - log_normal(moved, twisted, variance)
        self.correction = ratio.flatten(1).sum(1) - self.twist[ancestors]
        return moved


def _each_particle(steps: int, settings: Settings) -> int:
    return steps * int(settings["particles"])


GROW = "steps and particles grow"


@method("Cardoso et al. 2023, arXiv 2308.07983", GROW, noisy=True, cost=_each_particle)
def mcgdiff(task: Task, particles: int = 16, threshold: float = 1.0) -> Tensor:
    """MCGdiff (Cardoso et al. 2023, algorithm 1): one filter per sample, resampled at every timestep."""
    return run_filter(task, particles, threshold, Mcgdiff(task, particles)).x0


@method("Wu et al. 2023, arXiv 2306.17775", GROW, gradient=True, noisy=True, cost=_each_particle)
def tds(task: Task, particles: int = 8, threshold: float = 0.5, prior_variance: float = 0.3) -> Tensor:
    """Twisted diffusion sampler (Wu et al. 2023, algorithm 1): guidance as a proposal, corrected by weights.

    The last weight is the twist at the lowest timestep; the paper adds the likelihood itself.
    """
    return run_filter(task, particles, threshold, Tds(task, particles, prior_variance)).x0
