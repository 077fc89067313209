"""Guided methods: a denoiser in, a denoiser out, so that every sampler works on them."""

import torch
from torch import Tensor

from inkfill.methods.task import Task


def conditional(task: Task) -> Tensor:
    """The network was trained with the known pixels as input: its denoiser is E[x0 given x_t and the known pixels]."""
    return task.sample(task.conditional)


def ddnm(task: Task) -> Tensor:
    """DDNM (Wang et al. 2022): put the known pixels into the predicted clean image, and go on from there.

    After this rectification the direction (the noise that a step keeps) is recomputed from x_t and the rectified image,
    as in the posterior q(x_s given x_t, x0) of their eq. 14. With the direction of the unrectified image a step would
    lead to a point that no noising of the rectified image gives.
    """

    def denoise(x_t: Tensor, t: int) -> Tensor:
        x0_hat = task.unconditional(x_t, t)
        return torch.where(task.observation.known, task.observation.pixels, x0_hat)  # eq. 13, with A a mask

    return task.sample(denoise)


def pigdm(task: Task, prior_variance: float = 1.0) -> Tensor:
    """Pseudoinverse guidance (Song et al. 2023, "Pseudoinverse-guided diffusion models for inverse problems").

    p(x0 given x_t) is taken for N(x0_hat, r_t^2 I), so y given x_t is Gaussian too, and Bayes' rule adds its score.
    Exact for a prior N(m, prior_variance I). At high levels the guided prediction can leave the range of images by far
    (a network's Jacobian is not quite as small there as sqrt(alpha_bar) asks), so it is clipped like any prediction.
    """

    def denoise(x_t: Tensor, t: int) -> Tensor:
        variance = task.schedule.posterior_variance(t, prior_variance)  # r_t^2, their eq. 10
        x0_hat, _, gradient = task.likelihood_gradient(x_t, t, variance)
        a = float(task.schedule.alpha_bar[t])
        return task.clip(x0_hat + (1 - a) / a**0.5 * gradient)  # Tweedie: a step in score, in x0_hat

    return task.sample(denoise)
