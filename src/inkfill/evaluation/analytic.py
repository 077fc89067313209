"""Analytic priors: distributions whose denoiser and inpainting posterior are known exactly.

They test a method without learning error. ``AnalyticPrior(prior, schedule)`` takes the place of a trained model, and
``prior.posterior(...)`` or ``prior.sample_posterior(...)`` gives the distribution that its samples should have.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inkfill.core.denoiser import ConditionalPrior, Denoiser, Observation
from inkfill.core.schedule import Schedule
from inkfill.errors import InputError


class GaussianMixture:
    """A mixture of M Gaussians in D dimensions, float64. States may have any shape ``[B, ...]`` with D values a row.

    ``weights`` [M] are normalised; ``means`` are [M, D]; ``covariances`` are [M, D, D], or [1, D, D] if shared, and
    positive semi-definite. Raises InputError for anything else.
    """

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor):
        m, d = means.shape
        if weights.shape != (m,) or covariances.shape[1:] != (d, d) or covariances.shape[0] not in (1, m):
            raise InputError(f"weights [{m}] and covariances [{m} or 1, {d}, {d}] are required for means [{m}, {d}]")
        self.log_weights = weights.double().log().log_softmax(0)
        self.means, self.covariances = means.double(), covariances.double()
        variances, self._axes = torch.linalg.eigh(self.covariances)  # [G, D], and [G, D, D] with axes in columns
        if variances.min() < -1e-6 * variances.max().clamp(min=1):
            raise InputError("covariances: a negative eigenvalue: they must be positive semi-definite")
        self._variances = variances.clamp(min=0)[:, None]  # [G, 1, D], for G = 1 or M covariances
        self._means = self.means.view(len(variances), -1, d) @ self._axes  # [G, M / G, D], along the axes

    @property
    def weights(self) -> Tensor:
        """Normalised weights [M]."""
        return self.log_weights.exp()

    def mean(self) -> Tensor:
        """Mean of the mixture, [D]."""
        return self.weights @ self.means

    def covariance(self) -> Tensor:
        """Covariance of the mixture, [D, D]."""
        centred = self.means - self.mean()
        within = (self.weights[:, None, None] * self.covariances).sum(0)
        return within + centred.T @ (self.weights[:, None] * centred)

    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        """n samples, [n, D]."""
        component = torch.from_numpy(rng.choice(len(self.weights), size=n, p=self.weights.numpy()))
        z = torch.from_numpy(rng.standard_normal((n, self.means.shape[1])))
        shared, out = len(self.covariances) == 1, torch.empty_like(z)
        for i, (axes, variances) in enumerate(zip(self._axes, self._variances, strict=True)):
            rows = slice(None) if shared else component == i
            out[rows] = (z[rows] * variances.sqrt()) @ axes.T
        return self.means[component] + out

    def _log_components(self, x: Tensor, a: Tensor) -> Tensor:
        """log(weight_m N_m(x)) at alpha_bar ``a``, [B, M]. Squares are expanded into matrix products."""
        rotated, v = x @ self._axes, a * self._variances + 1 - a  # [G, B, D], [G, 1, D]
        square = (rotated.square() / v).sum(-1, keepdim=True) + a * (self._means.square() / v).sum(-1)[:, None]
        square = square - 2 * a.sqrt() * (rotated / v) @ self._means.mT + (2 * math.pi * v).log().sum(-1, keepdim=True)
        return self.log_weights - 0.5 * square.transpose(0, 1).flatten(1)

    def log_density(self, x: Tensor, schedule: Schedule | None = None, t: int = 0) -> Tensor:
        """log p(x_t) at timestep t of a schedule, or of the clean distribution without one, [B]."""
        a = schedule.alpha_bar[t] if schedule else torch.ones((), dtype=torch.float64)
        return self._log_components(x.double().flatten(1), a).logsumexp(1)

    def denoiser(self, schedule: Schedule) -> Denoiser:
        """E[x0 given x_t], exact: each component's mean, linear in x_t, weighted by its responsibility."""

        def denoise(x_t: Tensor, t: int) -> Tensor:
            a, x = schedule.alpha_bar[t], x_t.double().flatten(1)
            r = (
                self._log_components(x, a).softmax(1).view(len(x), len(self._means), -1).transpose(0, 1)
            )  # [G, B, M / G]
            gain = a.sqrt() * self._variances / (a * self._variances + 1 - a)
            rotated = r.sum(-1, keepdim=True) * gain * (x @ self._axes) + (r @ self._means) * (1 - a.sqrt() * gain)
            return (rotated @ self._axes.mT).sum(0).view(x_t.shape).to(x_t.dtype)

        return denoise

    def observe(self, matrix: Tensor, y: Tensor, noise: float = 0.0) -> tuple["GaussianMixture", Tensor]:
        """The posterior given y = matrix x + noise N(0, I), a mixture again, and the log evidence log p(y).

        ``matrix`` [K, D] has independent rows, ``y`` is [K]. Each component is conditioned, then weighted by its
        evidence.
        """
        matrix, y = matrix.double(), y.double()
        of_y = matrix @ self.covariances @ matrix.T + noise**2 * torch.eye(len(y), dtype=torch.float64)
        gain = torch.linalg.solve(of_y, matrix @ self.covariances).transpose(-1, -2)  # [M, D, K]
        residual = y - self.means @ matrix.T  # [M, K]
        means = self.means + (gain @ residual[..., None]).squeeze(-1)
        covariances = self.covariances - gain @ matrix @ self.covariances
        covariances = (covariances + covariances.transpose(-1, -2)) / 2
        solved = torch.linalg.solve(of_y.expand(len(means), -1, -1), residual[..., None]).squeeze(-1)
        logs = -0.5 * ((residual * solved).sum(-1) + torch.logdet(2 * math.pi * of_y))
        evidence = self.log_weights + logs
        return GaussianMixture(evidence.softmax(0), means, covariances), evidence.logsumexp(0)

    def posterior(self, observation: Observation, row: int = 0) -> "GaussianMixture":
        """The posterior given the observed pixels of one row of an observation, and their noise."""
        known = observation.known[row].flatten()
        matrix = torch.eye(len(known), dtype=torch.float64)[known]
        y = observation.pixels[row].flatten()[known]
        return self.observe(matrix, y, observation.noise)[0] if known.any() else self

    def conditional(self, schedule: Schedule, observation: Observation) -> Denoiser:
        """E[x0 given x_t and the observed pixels], exact; rows of equal observations share one posterior."""
        given = torch.cat([observation.pixels.flatten(1), observation.known.flatten(1)], 1)
        _, number = np.unique(given.cpu().numpy(), axis=0, return_inverse=True)
        groups = [np.flatnonzero(number == i) for i in range(number.max() + 1)]
        each = [(rows, self.posterior(observation, int(rows[0])).denoiser(schedule)) for rows in groups]

        def denoise(x_t: Tensor, t: int) -> Tensor:
            out = torch.zeros_like(x_t)
            for rows, of_rows in each:
                out[rows] = of_rows(x_t[rows], t)
            return out

        return denoise


@dataclass
class EmpiricalPrior:
    """A Gaussian of standard deviation ``bandwidth`` on each of N images, with equal weights.

    ``images`` are float32 ``[N, C, H, W]``. The denoiser is a softmax over all images. The posterior given exact
    observed pixels is the same images with other weights, and with the observed pixels put in.
    """

    images: Tensor
    bandwidth: float

    def __post_init__(self) -> None:
        if not self.bandwidth > 0 or self.images.ndim != 4:
            raise InputError("an empirical prior needs images [N, C, H, W] and a bandwidth above 0")
        self._flat = self.images.float().flatten(1)
        self._squared = self._flat.square()

    def log_weights(self, observation: Observation) -> Tensor:
        """Log posterior weight of every image given the observed pixels, ``[B, N]``, normalised.

        Raises InputError for noisy observed pixels: the posterior is then no reweighting of the images.
        """
        if observation.noise:
            raise InputError("an empirical prior needs exact observed pixels: set the observation noise to 0")
        known = observation.known.flatten(1).float()
        cross = (known * observation.pixels.flatten(1).float()) @ self._flat.T
        return ((cross - 0.5 * known @ self._squared.T) / self.bandwidth**2).log_softmax(1)

    def denoiser(self, schedule: Schedule) -> Denoiser:
        """E[x0 given x_t], exact."""
        return self.conditional(schedule, Observation.nothing(self.images[:1]))

    def conditional(self, schedule: Schedule, observation: Observation) -> Denoiser:
        """E[x0 given x_t and the observed pixels], exact, for the rows of an observation, or one for all rows."""
        missing = observation.mask.flatten(1).float()
        prior, size = self.log_weights(observation), missing @ self._squared.T  # squared norms over missing pixels
        h2 = self.bandwidth**2

        def denoise(x_t: Tensor, t: int) -> Tensor:
            a = float(schedule.alpha_bar[t])
            variance = a * h2 + 1 - a
            x = x_t.flatten(1).float()
            cross = (missing * x) @ self._flat.T
            mean = (prior + (a**0.5 * cross - 0.5 * a * size) / variance).softmax(1) @ self._flat
            mean = mean + a**0.5 * h2 / variance * (x - a**0.5 * mean)
            return torch.where(observation.known, observation.pixels, mean.view_as(x_t)).to(x_t.dtype)

        return denoise

    def sample_posterior(self, observation: Observation, rng: np.random.Generator) -> Tensor:
        """One posterior sample a row: an image by weight plus Gaussian noise, with the observed pixels put in."""
        cumulative = self.log_weights(observation).double().exp().cumsum(1)
        u = torch.from_numpy(rng.random((len(cumulative), 1))) * cumulative[:, -1:]
        images = self.images[torch.searchsorted(cumulative, u).clamp(max=len(self.images) - 1)[:, 0]]
        z = torch.from_numpy(rng.standard_normal(images.shape, dtype=np.float32))
        return torch.where(observation.known, observation.pixels, images + self.bandwidth * z)


class AnalyticPrior(ConditionalPrior):
    """An analytic distribution with a schedule: a prior for every method, with an exact conditional denoiser.

    ``bounded`` states that its images lie in [-1, 1], so that methods clip predictions.
    """

    def __init__(
        self, prior: GaussianMixture | EmpiricalPrior, schedule: Schedule, channels: int = 1, bounded: bool = False
    ):
        self.prior, self.schedule, self.channels, self.bounded = prior, schedule, channels, bounded

    def conditional(self, observation: Observation) -> Denoiser:
        """E[x0 given x_t and the observed pixels], exact."""
        return self.prior.conditional(self.schedule, observation)

    def unconditional(self, like: Tensor) -> Denoiser:
        """E[x0 given x_t], exact."""
        return self.prior.denoiser(self.schedule)
