"""The particle methods: propose, weigh, resample, in one loop. Exact as steps and particles grow.

Each completion has a filter of its own, P particles, of which one is returned, drawn by weight.
"""

import math
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from inkfill.methods.task import Task
from inkfill.rng import SampleNoise


class Filtered(NamedTuple):
    """The completion of each row, and the filter's estimate of log p(y) for it."""

    x0: Tensor  # [B, C, H, W]
    log_evidence: Tensor  # [B]


def log_normal(x: Tensor, mean: Tensor, variance: float | Tensor) -> Tensor:
    """log N(x; mean, variance), elementwise."""
    v = torch.as_tensor(variance, dtype=x.dtype, device=x.device)
    return -0.5 * ((x - mean).square() / v + (2 * math.pi * v).log())


def resample(log_weights: Tensor, noise: SampleNoise) -> Tensor:
    """Systematic resampling: ancestors ``[B, P]`` from log-weights ``[B, P]``, one uniform number a row."""
    p = log_weights.shape[1]
    cumulative = log_weights.double().softmax(1).cumsum(1)
    points = (noise.uniform().double()[:, None] + torch.arange(p, device=log_weights.device)) / p
    return torch.searchsorted(cumulative, points).clamp(max=p - 1)


class Kernel(Protocol):
    """What a particle method weighs and proposes; particles are ``[B P, C, H, W]``, a row's side by side."""

    x0_hat: Tensor  # of the particles that were weighed last

    def start(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Particles at level T from standard normal ``z``, and a constant of the log evidence, one a particle."""
        ...

    def weigh(self, x: Tensor, t: int, s: int) -> Tensor:
        """What the particles at level t add to their log-weights, one each."""
        ...

    def propose(self, x: Tensor, ancestors: Tensor, t: int, s: int, z: Tensor) -> Tensor:
        """The chosen particles, moved from level t to s with the noise ``z``."""
        ...


def run_filter(task: Task, particles: int, threshold: float, kernel: Kernel) -> Filtered:
    """The loop that all particle methods share.

    Particles of a row are resampled when their effective sample size falls under ``threshold`` x particles.
    """
    noise, shape = task.noise, task.observation.pixels.shape
    b, p = shape[0], particles
    # [B P, C, H, W], a row's particles side by side.
    x, log_start = kernel.start(noise(p).flatten(0, 1))
    log_w = torch.zeros(b, p, dtype=torch.float64, device=x.device)
    log_evidence = log_start.view(b, p)[:, 0].double()
    rows = torch.arange(b, device=x.device)[:, None] * p
    x0_hat = x
    for t, s in pairwise(task.levels):
        log_w = log_w + kernel.weigh(x, t, s).view(b, p)
        task.seen(t, x.view(b, p, *shape[1:])[:, 0], kernel.x0_hat.view(b, p, *shape[1:])[:, 0])
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
    one = torch.searchsorted(cumulative, noise.uniform().double()[:, None]).clamp(max=p - 1)
    return Filtered(x0_hat[(rows + one).flatten()], log_evidence)


class Mcgdiff:
    """What MCGdiff weighs and proposes (Cardoso et al. 2023, section 3.1).

    The potential at level t is N(sqrt(a_t) y; x_t, 1 - a_t + a_t n), n the variance of the observation's noise: at
    level 0 that is the likelihood itself. Without noise it is theirs.
    """

    def __init__(self, task: Task, particles: int):
        self.task = task.repeat(particles)
        self.schedule, self.observation = self.task.schedule, self.task.observation
        self.x0_hat = self.observation.pixels

    def start(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Particles at level T, and a constant of the evidence: N(0, I) times the potential, a Gaussian."""
        known, y = self.observation.known, self.observation.pixels
        a = float(self.schedule.alpha_bar[-1])
        variance = self._variance(self.schedule.T)
        gain = 1 / (1 + variance)
        fused = gain * a**0.5 * y + (variance * gain) ** 0.5 * z
        constant = log_normal(a**0.5 * y, torch.zeros_like(y), 1 + variance)
        return torch.where(known, fused, z), torch.where(known, constant, 0.0).flatten(1).sum(1)

    def weigh(self, x: Tensor, t: int, s: int) -> Tensor:
        """How much better the next level's potential will be met than this one's was (their eq. 12).

        Weight: N(sqrt(a_s) y; m_s(x_t), sigma^2 + 1 - a_s) / N(sqrt(a_t) y; x_t, 1 - a_t) on known pixels, the
        variances of the potentials with the observation's noise.
        """
        known, y = self.observation.known, self.observation.pixels
        self.x0_hat = self.task.unconditional(x, t)
        a_t, a_s = float(self.schedule.alpha_bar[t]), float(self.schedule.alpha_bar[s])
        if s == 0 and not self.observation.noise:  # the known pixels are put into the prediction: nothing to weigh
            return x.new_zeros(len(x))
        # 1. What the potential at level t was: the known part of x_t against the noised observation.
        before = log_normal(x, a_t**0.5 * y, self._variance(t))
        # 2. What it will be at level s: the ancestral kernel and the noised observation, together.
        mean, variance = self.schedule.q_posterior(self.x0_hat, x, t, s)
        after = log_normal(a_s**0.5 * y, mean, float(variance) + self._variance(s))
        return torch.where(known, after - before, 0.0).flatten(1).sum(1)

    def propose(self, x: Tensor, ancestors: Tensor, t: int, s: int, z: Tensor) -> Tensor:
        """Known part: kernel times potential, a Gaussian with gain K. Missing part: the kernel (their eq. 11)."""
        known, y = self.observation.known[ancestors], self.observation.pixels[ancestors]
        a_s = float(self.schedule.alpha_bar[s])
        mean, variance = self.schedule.q_posterior(self.x0_hat[ancestors], x[ancestors], t, s)
        v = float(variance)
        gain = v / (v + self._variance(s))
        fused = gain * a_s**0.5 * y + (1 - gain) * mean + (self._variance(s) * gain) ** 0.5 * z
        return torch.where(known, fused, mean + v**0.5 * z)

    def _variance(self, t: int) -> float:
        """Of the potential at level t."""
        a = float(self.schedule.alpha_bar[t])
        return 1 - a + a * self.observation.noise**2


class Tds:
    """What the twisted diffusion sampler weighs and proposes (Wu et al. 2023, algorithm 1)."""

    def __init__(self, task: Task, particles: int, prior_variance: float):
        self.task = task.repeat(particles)
        self.schedule, self.observation = self.task.schedule, self.task.observation
        self.prior_variance = prior_variance
        self.x0_hat = self.observation.pixels
        self.correction = torch.zeros(len(self.observation.pixels), device=self.observation.pixels.device)

    def start(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Particles at level T: the prior's."""
        return z, torch.zeros(len(z), device=z.device)

    def weigh(self, x: Tensor, t: int, s: int) -> Tensor:
        """log of p(x_t given x_above) twist(x_t) / (q(x_t given x_above) twist(x_above)) (their eq. 11)."""
        variance = self.schedule.posterior_variance(t, self.prior_variance) + self.observation.noise**2
        # 1. The twist: y given x_t taken for N(x0_hat, variance), with its normaliser, and where it pulls (eqs. 8, 9).
        self.x0_hat, self.twist, self.gradient = self.task.likelihood_gradient(x, t, variance)
        return self.correction + self.twist

    def propose(self, x: Tensor, ancestors: Tensor, t: int, s: int, z: Tensor) -> Tensor:
        """The ancestral step with the twisted score; its weight is corrected at the next level (eq. 10)."""
        x, x0_hat, gradient = x[ancestors], self.x0_hat[ancestors], self.gradient[ancestors]
        a = float(self.schedule.alpha_bar[t])
        mean, variance = self.schedule.q_posterior(x0_hat, x, t, s)
        # Clipped: any proposal will do, since the weights pay for it, and this one is no worse for it.
        guided = self.task.clip(x0_hat + (1 - a) / a**0.5 * gradient)
        twisted, _ = self.schedule.q_posterior(guided, x, t, s)
        moved = twisted + float(variance) ** 0.5 * z
        ratio = log_normal(moved, mean, variance) - log_normal(moved, twisted, variance)
        self.correction = ratio.flatten(1).sum(1) - self.twist[ancestors]
        return moved


def mcgdiff(task: Task, particles: int = 16, threshold: float = 1.0) -> Tensor:
    """MCGdiff (Cardoso et al. 2023, algorithm 1): one filter per completion, resampled at every level."""
    return run_filter(task, particles, threshold, Mcgdiff(task, particles)).x0


def tds(task: Task, particles: int = 8, threshold: float = 0.5, prior_variance: float = 0.3) -> Tensor:
    """Twisted diffusion sampler (Wu et al. 2023, algorithm 1): guidance as a proposal, made right by its weights.

    The last weight is the twist at the lowest level; the paper weighs once more, by the likelihood itself.
    """
    return run_filter(task, particles, threshold, Tds(task, particles, prior_variance)).x0
