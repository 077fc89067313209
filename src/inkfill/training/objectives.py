"""What a training step minimises: a batch, and functions ``objective(net, batch) -> errors``.

A new objective is one function and one line of ``OBJECTIVES``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inkfill.data import Images, masks
from inkfill.data.augment import augmented
from inkfill.data.images import BYTES, Mask, ValueRange
from inkfill.schedule import Schedule
from inkfill.training.config import TrainConfig
from inkfill.training.few import draw_few, few_errors


@dataclass(frozen=True)
class Batch:
    """What one step is computed from; ``x0``, ``eps`` ``[B, C, H, W]``, ``mask`` ``[B, 1, H, W]``, ``t`` ``[B]``."""

    x0: Tensor
    mask: Tensor  # True = missing
    t: Tensor
    eps: Tensor
    schedule: Schedule
    count: float  # scored values in the global batch: what the sum of the errors is divided by
    scored: Tensor  # what is missing here, and is there in the image: all that is missing, if the image is whole

    @property
    def x_t(self) -> Tensor:
        """The noised images."""
        return self.schedule.q_sample(self.x0, self.t, self.eps)

    @property
    def known(self) -> Tensor:
        """The known map, float32 ``[B, 1, H, W]``."""
        return (~self.mask).float()

    @property
    def weights(self) -> Tensor:
        """How much each image counts in a mean of errors: its missing values, ``[B]``."""
        return self.scored.expand_as(self.x0).sum((1, 2, 3)).float().cpu()

    @property
    def level(self) -> Tensor:
        """t / T, as the network takes it."""
        return (self.t / self.schedule.T).float().to(self.x0.device)


Objective = Callable[[nn.Module, Any], Tensor]


def draw_batch(
    config: TrainConfig,
    schedule: Schedule,
    images: Images,
    spec: masks.MaskSpec,
    rng: np.random.Generator,
    part: slice = slice(None),
    device: torch.device | str = "cpu",
    values: ValueRange = BYTES,
    holes: Mask | None = None,
    filled: bool = False,
) -> Batch:
    """Draw a global batch from ``rng`` and give the rows in ``part``.

    ``holes`` ``[N, H, W]`` are the pixels of ``images`` that nobody has seen: they are never scored. What stands there
    counts as known if it was ``filled`` by a network, and as missing if not. t is uniform over 1..T, one draw from each
    of B equal strata: the same marginal, with less variance.
    """
    size, (height, width) = config.batch_size, images.shape[1:3]
    index = rng.integers(len(images), size=size)
    unseen = np.zeros((size, height, width), bool) if holes is None else holes[index]
    chosen, unseen = augmented(config.augment, rng, images[index], unseen)
    mask = spec.draw(size, height, width, rng, chosen)
    scored = mask & ~unseen
    mask = mask if filled else mask | unseen
    strata = (rng.permutation(size) + rng.random(size)) / size
    t = 1 + np.floor(strata * schedule.T).astype(np.int64)
    x0 = values.to_x0(chosen[part])
    eps = rng.standard_normal((size, *x0.shape[1:]), dtype=np.float32)
    return Batch(
        x0=x0.to(device),
        mask=torch.from_numpy(mask[part, None]).to(device),
        t=torch.from_numpy(t[part]),
        eps=torch.from_numpy(eps[part]).to(device),
        schedule=schedule,
        count=max(1.0, float(scored.sum()) * x0.shape[1]),
        scored=torch.from_numpy(scored[part, None]).to(device),
    )


def v_errors(net: nn.Module, batch: Batch) -> Tensor:
    """(v - v_hat)^2 where pixels are scored, 0 elsewhere: float32 ``[B, C, H, W]`` (Salimans and Ho 2022).

    It is the error of the noise divided by alpha_bar: levels that are nearly all noise count as much as others, and it
    is there that a sampler decides which digit it draws.
    """
    v = net(batch.x_t, batch.x0 * batch.known, batch.known, batch.level)
    return (batch.schedule.v_from_eps(batch.x0, batch.t, batch.eps) - v).square() * batch.scored


def eps_errors(net: nn.Module, batch: Batch) -> Tensor:
    """(eps - eps_hat)^2 where pixels are scored, 0 elsewhere: float32 ``[B, C, H, W]`` (Ho et al. 2020, eq. 14).

    The network's output is read as v, which keeps its target at unit scale at every level; the error is that of the
    noise.
    """
    x_t = batch.x_t
    v = net(x_t, batch.x0 * batch.known, batch.known, batch.level)
    return (batch.eps - batch.schedule.eps_from_v(x_t, batch.t, v)).square() * batch.scored


def regression_errors(net: nn.Module, batch: Batch) -> Tensor:
    """(x0 - x0_hat)^2 where pixels are scored, from the known pixels alone: float32 ``[B, C, H, W]``.

    The reference that diffusion is measured against: the same network at level T, with nothing in the noisy plane.
    There v is -x0, so what ``Model.predictor`` makes of the output is the prediction.
    """
    level = torch.ones(1, device=batch.x0.device)
    v = net(torch.zeros_like(batch.x0), batch.x0 * batch.known, batch.known, level)
    return (batch.x0 + v).square() * batch.scored


OBJECTIVES: dict[str, Objective] = {
    "v": v_errors,
    "eps": eps_errors,
    "few": few_errors,
    "regression": regression_errors,
}
# Validation reports the error of the noise for all that denoise, whatever weights their levels.
REPORTED: dict[str, Objective] = {**OBJECTIVES, "v": eps_errors}
BATCHES: dict[str, Callable[..., Any]] = {**dict.fromkeys(OBJECTIVES, draw_batch), "few": draw_few}  # how one is drawn
