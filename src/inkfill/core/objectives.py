"""The training objectives: a batch, and functions ``errors(net, batch)`` whose mean a step minimises.

Every network of this library outputs v (Salimans and Ho 2022), whatever its objective: its target has unit scale at
every timestep, and ``Schedule.x0_from_v`` gives the clean image. The objectives differ in how they weight timesteps. A
new objective is one function with the decorator ``@objective(name, gives=...)``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inkfill.core.schedule import Schedule

MEAN, SAMPLE, ESTIMATE = "posterior mean", "sample", "estimate"  # what a trained network gives


@dataclass(frozen=True)
class Batch:
    """The input of one step: ``x0``, ``eps`` ``[B, C, H, W]``, ``mask`` bool ``[B, 1 or C, H, W]``, ``t`` ``[B]``."""

    x0: Tensor
    mask: Tensor  # True = missing
    t: Tensor
    eps: Tensor
    schedule: Schedule
    scored: Tensor  # bool, like mask: missing here and present in the training image
    count: float  # scored values of the global batch: the sum of the errors is divided by it

    @classmethod
    def draw(
        cls,
        schedule: Schedule,
        x0: Tensor,
        mask: Tensor,
        rng: np.random.Generator,
        scored: Tensor | None = None,
        rows: slice = slice(None),
        device: torch.device | str = "cpu",
    ) -> "Batch":
        """Draw t and eps for a global batch of clean images ``[B, C, H, W]`` and masks, and return its ``rows``.

        t is uniform over 1..T, one draw from each of B equal strata: the same marginal with less variance.
        """
        scored = mask if scored is None else scored
        size = len(x0)
        strata = (rng.permutation(size) + rng.random(size)) / size
        t = torch.from_numpy(1 + np.floor(strata * schedule.T).astype(np.int64))
        eps = torch.from_numpy(rng.standard_normal(tuple(x0.shape), dtype=np.float32))
        count = max(1.0, float(scored.expand_as(x0).sum()))
        x0, mask, eps, scored = (part[rows].to(device) for part in (x0, mask, eps, scored))
        return cls(x0, mask, t[rows], eps, schedule, scored, count)

    @property
    def x_t(self) -> Tensor:
        """The noised images."""
        return self.schedule.q_sample(self.x0, self.t, self.eps)

    @property
    def known(self) -> Tensor:
        """1 where pixels are observed, 0 where missing: float32 ``[B, 1 or C, H, W]``."""
        return (~self.mask).float()

    @property
    def weights(self) -> Tensor:
        """The number of scored values of each image: its weight in a mean of errors, ``[B]``."""
        return self.scored.expand_as(self.x0).sum((1, 2, 3)).float().cpu()

    @property
    def time(self) -> Tensor:
        """t / T, the network's time input, float32 ``[B]``."""
        return (self.t / self.schedule.T).float().to(self.x0.device)


@dataclass(frozen=True)
class Objective:
    """A registered objective.

    ``errors(net, batch)`` gives errors of any shape, 0 where nothing is scored; ``gives`` says what the trained network
    predicts; ``reported`` is the error that validation reports. ``draw`` replaces ``Batch.draw`` for an objective with
    batches of its own.
    """

    errors: Callable[[nn.Module, Any], Tensor]
    gives: str
    reported: Callable[[nn.Module, Any], Tensor]
    draw: Callable[..., Any] | None = None


OBJECTIVES: dict[str, Objective] = {}
Errors = Callable[[nn.Module, Any], Tensor]


def objective(
    name: str, gives: str, reported: Errors | None = None, draw: Callable[..., Any] | None = None
) -> Callable[[Errors], Errors]:
    """Register an objective under a name."""

    def register(errors: Errors) -> Errors:
        OBJECTIVES[name] = Objective(errors, gives, reported or errors, draw)
        return errors

    return register


def predicted_v(net: nn.Module, batch: Batch) -> Tensor:
    """The network's v for x_t, the observed pixels, their map and t / T."""
    v: Tensor = net(batch.x_t, batch.x0 * batch.known, batch.known, batch.time)
    return v


@objective("eps", gives=MEAN)
def eps_errors(net: nn.Module, batch: Batch) -> Tensor:
    """(eps - eps_hat)^2 over scored pixels (Ho et al. 2020, eq. 14), with eps_hat computed from v."""
    eps_hat = batch.schedule.eps_from_v(batch.x_t, batch.t, predicted_v(net, batch))
    return (batch.eps - eps_hat).square() * batch.scored


@objective("v", gives=MEAN, reported=eps_errors)
def v_errors(net: nn.Module, batch: Batch) -> Tensor:
    """(v - v_hat)^2 over scored pixels (Salimans and Ho 2022).

    It is the error of eps divided by alpha_bar: the noisiest timesteps, where a sampler decides between digits, count
    as much as the others.
    """
    v = batch.schedule.v_from_eps(batch.x0, batch.t, batch.eps)
    return (v - predicted_v(net, batch)).square() * batch.scored


@objective("regression", gives=ESTIMATE)
def regression_errors(net: nn.Module, batch: Batch) -> Tensor:
    """(x0 - x0_hat)^2 over scored pixels, from the observed pixels alone: a baseline without diffusion.

    The same network at timestep T with x_t = 0, where v = -x0.
    """
    time = torch.ones(1, device=batch.x0.device)
    v = net(torch.zeros_like(batch.x0), batch.x0 * batch.known, batch.known, time)
    return (batch.x0 + v).square() * batch.scored
