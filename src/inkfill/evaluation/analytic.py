"""Priors whose denoiser and whose inpainting posterior are known in closed form, usable wherever a network is.

They test a method without learning error: ``AnalyticPrior(prior, schedule)`` is a model like the trained one, and
``prior.posterior(...)`` is what its completions should be drawn from.
"""

import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from inkfill.core.denoiser import ConditionalPrior, Denoiser, Observation
from inkfill.core.schedule import Schedule
from inkfill.errors import InputError


class GaussianMixture:
    """A mixture of M Gaussians in D dimensions, float64. States of any shape ``[B, ...]`` with D numbers a row.

    ``weights`` [M] (they are normalised), ``means`` [M, D], ``covariances`` [M, D, D], or [1, D, D] for one that is
    shared; semi-definite is enough. Raises InputError for shapes that do not fit or a covariance that is no covariance.
    """

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor):
        m, d = means.shape
        if weights.shape != (m,) or covariances.shape[1:] != (d, d) or covariances.shape[0] not in (1, m):
            raise InputError(f"weights [{m}] and covariances [{m} or 1, {d}, {d}] are needed for means [{m}, {d}]")
        self.log_weights = weights.double().log().log_softmax(0)
        self.means = means.double()
        self.covariances = covariances.double()
        self.axes: Tensor | None  # [1 or M, D, D], in columns; None where all covariances are diagonal
        self.variances, self.axes = torch.linalg.eigh(self.covariances)  # variances [1 or M, D]
        if self.variances.min() < -1e-6 * self.variances.max().clamp(min=1):
            raise InputError("a covariance has a negative eigenvalue")
        self.variances = self.variances.clamp(min=0)
        diagonal = self.covariances.diagonal(dim1=1, dim2=2)
        if torch.equal(self.covariances, torch.diag_embed(diagonal)):  # no turning in and out of the axes, then
            self.variances, self.axes = diagonal.clamp(min=0), None
        # Components by covariance: all of them share the one, or each has its own. Means are kept along the axes too.
        of = [slice(0, m)] if len(self.covariances) == 1 else [slice(i, i + 1) for i in range(m)]
        self._groups = [(c, i, self.variances[i], self._along(self.means[c], i)) for i, c in enumerate(of)]

    def _along(self, x: Tensor, i: int) -> Tensor:
        """Coordinates of the rows of x along the axes of covariance i."""
        return x if self.axes is None else x @ self.axes[i]

    def _back(self, along: Tensor, i: int) -> Tensor:
        """And back."""
        return along if self.axes is None else along @ self.axes[i].T

    @property
    def weights(self) -> Tensor:
        """Normalised weights [M]."""
        return self.log_weights.exp()

    def mean(self) -> Tensor:
        """Mean of the mixture, [D]."""
        return self.weights @ self.means

    def covariance(self) -> Tensor:
        """Covariance of the mixture, [D, D]."""
        apart = self.means - self.mean()
        within = (self.weights[:, None, None] * self.covariances).sum(0)
        return within + apart.T @ (self.weights[:, None] * apart)

    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        """n exact draws, [n, D]."""
        component = torch.from_numpy(rng.choice(len(self.weights), size=n, p=self.weights.numpy()))
        z = torch.from_numpy(rng.standard_normal((n, self.means.shape[1])))
        shared = torch.zeros_like(component) if len(self.covariances) == 1 else component
        out = torch.empty_like(z)
        for i in range(len(self.covariances)):
            rows = shared == i
            out[rows] = self._back(z[rows] * self.variances[i].sqrt(), i)
        return self.means[component] + out

    def _log_components(self, x: Tensor, a: Tensor) -> Tensor:
        """log(weight_m N_m(x)) at signal a, [B, M]. The square is multiplied out, so that it is matrix products."""
        logs = []
        for components, i, variance, means in self._groups:
            along, v = self._along(x, i), a * variance + 1 - a
            square = (along.square() / v).sum(-1, keepdim=True) + a * (means.square() / v).sum(-1)
            square = square - 2 * a.sqrt() * (along / v) @ means.T
            logs.append(self.log_weights[components] - 0.5 * (square + (2 * math.pi * v).log().sum()))
        return torch.cat(logs, 1)

    def log_density(self, x: Tensor, schedule: Schedule | None = None, t: int = 0) -> Tensor:
        """log p(x) at level t of a schedule (without one: of the clean prior), [B]."""
        a = schedule.alpha_bar[t] if schedule else torch.ones((), dtype=torch.float64)
        return self._log_components(x.double().flatten(1), a).logsumexp(1)

    def denoiser(self, schedule: Schedule) -> Denoiser:
        """E[x0 given x_t], exact: each component's mean (linear in x_t), weighted by its responsibility."""

        def denoise(x_t: Tensor, t: int) -> Tensor:
            a, x = schedule.alpha_bar[t], x_t.double().flatten(1)
            responsibility = self._log_components(x, a).softmax(1)
            mean = torch.zeros_like(x)
            for components, i, variance, means in self._groups:
                shrink = a.sqrt() * variance / (a * variance + 1 - a)
                r = responsibility[:, components]
                along = r.sum(1, keepdim=True) * shrink * self._along(x, i) + (r @ means) * (1 - a.sqrt() * shrink)
                mean = mean + self._back(along, i)
            return mean.view(x_t.shape).to(x_t.dtype)

        return denoise

    def score(self, x_t: Tensor, schedule: Schedule, t: int) -> Tensor:
        """The gradient of log p_t(x_t), by Tweedie's formula from the denoiser."""
        a = schedule.alpha_bar[t]
        return (a.sqrt() * self.denoiser(schedule)(x_t, t) - x_t) / (1 - a)

    def observe(self, matrix: Tensor, y: Tensor, noise: float = 0.0) -> tuple["GaussianMixture", Tensor]:
        """The posterior given y = matrix x + noise * normal, again a mixture, and the evidence log p(y).

        ``matrix`` [K, D] with independent rows, ``y`` [K]. Standard conditioning of each component; components are then
        weighed by how well they explain y.
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
        """The posterior given the known pixels of one row of an observation, with their noise: rows of the identity as
        the matrix."""
        known = observation.known[row].flatten()
        matrix = torch.eye(len(known), dtype=torch.float64)[known]
        y = observation.pixels[row].flatten()[known]
        return self.observe(matrix, y, observation.noise)[0] if known.any() else self

    def conditional(self, schedule: Schedule, observation: Observation) -> Denoiser:
        """The exact conditional denoiser for a batch that shares one observation."""
        first = Observation(observation.pixels[:1], observation.known[:1], observation.noise)
        same = (observation.pixels == first.pixels).all() and (observation.known == first.known).all()
        if not same:
            raise InputError("a mixture's conditional denoiser takes one observation for the whole batch")
        return self.posterior(first).denoiser(schedule)


@dataclass
class EmpiricalPrior:
    """A Gaussian of standard deviation ``bandwidth`` on each of N images: float32 ``[N, 1, H, W]``, equal weights.

    The denoiser is a softmax over all images of how well each explains x_t. The posterior given known pixels is the
    same images, weighed by how well they match, with the known pixels put in.
    """

    images: Tensor
    bandwidth: float
    chunk: int = 256  # rows at a time: bounds the table of rows by images

    def __post_init__(self) -> None:
        if not self.bandwidth > 0 or self.images.ndim != 4:
            raise InputError("an empirical prior needs images [N, C, H, W] and a bandwidth above 0")
        self._flat = self.images.float().flatten(1)
        self._squared = self._flat.square()

    def log_weights(self, observation: Observation) -> Tensor:
        """log of the posterior weight of every image, normalised, ``[B, N]``: how well it matches the known pixels.

        Raises InputError for known pixels with noise, with which the known and the missing would not be apart.
        """
        if observation.noise:
            raise InputError("an empirical prior takes what is known as exact")
        known = observation.known.flatten(1).float()
        cross = (known * observation.pixels.flatten(1).float()) @ self._flat.T
        return ((cross - 0.5 * known @ self._squared.T) / self.bandwidth**2).log_softmax(1)

    def denoiser(self, schedule: Schedule) -> Denoiser:
        """E[x0 given x_t], exact for this prior."""
        nothing = torch.zeros_like(self.images[:1], dtype=torch.bool)
        return self._denoiser(schedule, Observation(torch.zeros_like(self.images[:1]), nothing), shared=True)

    def conditional(self, schedule: Schedule, observation: Observation) -> Denoiser:
        """E[x0 given x_t and the known pixels], exact for this prior; a row an observation."""
        return self._denoiser(schedule, observation, shared=False)

    def _denoiser(self, schedule: Schedule, observation: Observation, shared: bool) -> Denoiser:
        missing = observation.mask.flatten(1).float()
        prior = torch.zeros(1, 1) if shared else self.log_weights(observation)
        size = missing @ self._squared.T  # of every image over missing pixels: the same at every level
        h2 = self.bandwidth**2

        def denoise(x_t: Tensor, t: int) -> Tensor:
            a = float(schedule.alpha_bar[t])
            variance = a * h2 + 1 - a
            out = torch.empty_like(x_t)
            for start in range(0, len(x_t), self.chunk):
                rows = slice(start, start + self.chunk)
                own = slice(None) if shared else rows
                x = x_t[rows].flatten(1).float()
                cross = (missing[own] * x) @ self._flat.T
                logs = prior[own] + (a**0.5 * cross - 0.5 * a * size[own]) / variance
                mean = logs.softmax(1) @ self._flat
                mean = mean + a**0.5 * h2 / variance * (x - a**0.5 * mean)
                out[rows] = mean.view_as(x_t[rows]).to(x_t.dtype)
            return torch.where(observation.known, observation.pixels.to(x_t.dtype), out)

        return denoise

    def sample_posterior(self, observation: Observation, rng: np.random.Generator) -> Tensor:
        """One exact posterior draw a row: an image by weight, plus the Gaussian, with the known pixels put in."""
        drawn = []
        for row in range(0, len(observation.pixels), self.chunk):
            rows = slice(row, row + self.chunk)
            part = replace(observation, pixels=observation.pixels[rows], known=observation.known[rows])
            cumulative = self.log_weights(part).double().exp().cumsum(1)
            u = torch.from_numpy(rng.random((len(cumulative), 1))) * cumulative[:, -1:]
            drawn.append(torch.searchsorted(cumulative, u).clamp(max=len(self.images) - 1)[:, 0])
        images = self.images[torch.cat(drawn)]
        z = torch.from_numpy(rng.standard_normal(images.shape, dtype=np.float32))
        return torch.where(observation.known, observation.pixels, images + self.bandwidth * z)


class Analytic(Protocol):
    """What ``AnalyticPrior`` needs of a distribution."""

    def denoiser(self, schedule: Schedule) -> Denoiser: ...

    def conditional(self, schedule: Schedule, observation: Observation) -> Denoiser: ...


class AnalyticPrior(ConditionalPrior):
    """A distribution in closed form with a schedule: a prior for every method, with an exact conditional denoiser.

    ``bounded`` says that its images lie in [-1, 1] (or nearly), so that methods clip what they predict.
    """

    def __init__(self, prior: Analytic, schedule: Schedule, channels: int = 1, bounded: bool = False):
        self.prior = prior
        self.schedule = schedule
        self.channels = channels
        self.bounded = bounded

    def conditional(self, observation: Observation) -> Denoiser:
        """The exact conditional denoiser."""
        return self.prior.conditional(self.schedule, observation)

    def unconditional(self, like: Tensor) -> Denoiser:
        """The exact denoiser of the prior."""
        return self.prior.denoiser(self.schedule)
