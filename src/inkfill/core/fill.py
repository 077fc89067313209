"""Inpainting in one loop: tensors in, samples out, with a conditional denoiser.

``inkfill.inpaint`` does the same for images of any size and dtype, with every sampler and method.
"""

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inkfill.core.denoiser import ConditionalPrior, Observation
from inkfill.core.rng import SampleNoise
from inkfill.core.samplers import spaced_timesteps


def fill(prior: ConditionalPrior, x0: Tensor, mask: Tensor, samples: int = 8, steps: int = 8, seed: int = 0) -> Tensor:
    """Draw samples of the missing pixels: float32 ``[B, samples, C, H, W]`` by ancestral sampling.

    ``x0`` is float32 ``[B, C, H, W]`` in [-1, 1], ``mask`` bool ``[B, 1, H, W]``, True = missing; ``x0`` is not read
    there. The noise of image i, sample k depends on (seed, i, k) alone. Raises InputError.
    """
    observation = Observation.of(x0, mask).repeat(samples)
    image, sample = np.divmod(np.arange(len(x0) * samples), samples)
    noise = SampleNoise(seed, image, sample, tuple(x0.shape[1:]), x0.device)
    denoise = prior.conditional(observation)
    x = noise()  # x_T
    with torch.no_grad():
        for t, s in pairwise(spaced_timesteps(prior.schedule.T, steps)):
            x0_hat = denoise(x, t).clamp(-1, 1)  # E[x0 given x_t and the observed pixels]
            z = noise() if s > 0 else None
            x = prior.schedule.reverse_step(x, x0_hat, t, s, 1.0, z)  # a draw of x_s given x_t and x0_hat
    return torch.where(observation.known, observation.pixels, x).view(len(x0), samples, *x0.shape[1:])


def most_central(samples: NDArray) -> NDArray[np.int64]:
    """The index of the sample nearest to the others, for each image: ``[N, K, ...]`` to ``[N]``.

    By the sum of root mean square distances to the other samples: a medoid, and so a sample and not a blur.
    """
    flat = samples.reshape(*samples.shape[:2], -1).astype(np.float64)
    total = [[np.sqrt(((each - one) ** 2).mean(1)).sum() for one in each] for each in flat]
    return np.array(total).argmin(1)
