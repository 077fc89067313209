"""Guided methods: a denoiser in, a denoiser out, so that every sampler works on them."""

from collections.abc import Callable

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
        x0_hat, _, gradient = task.likelihood_gradient(x_t, t, variance + task.observation.noise**2)
        a = float(task.schedule.alpha_bar[t])
        return task.clip(x0_hat + (1 - a) / a**0.5 * gradient)  # Tweedie: a step in score, in x0_hat

    return task.sample(denoise)


def mmps(task: Task, iterations: int = 2) -> Tensor:
    """Moment matching posterior sampling (Rozet et al. 2024, "Learning diffusion priors from observations by
    expectation maximization", section 4.2).

    p(x0 given x_t) is taken for the Gaussian with its first two moments: its mean is x0_hat, and its covariance is
    V = (1 - alpha_bar) / sqrt(alpha_bar) J with J the Jacobian of x0_hat (Tweedie's second formula). Given the known
    pixels y = A x0 with noise of variance n the mean becomes x0_hat + V A' (A V A' + n)^-1 (y - A x0_hat). The system
    is solved by ``iterations`` of conjugate gradients, a backward pass each, and one more. Exact for every Gaussian
    prior, of any covariance, with as many iterations as there are known values.
    """
    observation = task.observation

    def denoise(x_t: Tensor, t: int) -> Tensor:
        x0_hat, covariance = task.moments(x_t, t)

        def seen(w: Tensor) -> Tensor:
            return torch.where(observation.known, covariance(w) + observation.noise**2 * w, 0.0)

        u = conjugate_gradients(seen, observation.misfit(x0_hat), iterations)
        return task.clip(x0_hat + covariance(u))

    return task.sample(denoise)


def tmpd(task: Task, floor: float = 0.5) -> Tensor:
    """Tweedie moment projected diffusions (Boys et al. 2023, section 4): mmps with a diagonal in place of a matrix.

    A V A' is taken for the diagonal matrix with the sums of its rows, which one backward pass gives; a second one
    multiplies by V. Exact for Gaussian priors whose pixels are independent, where no variance is below ``floor`` of
    that of a pixel of variance .3. (Without a floor a trained network's completions are useless: CRPS .23.)
    """
    observation = task.observation

    def denoise(x_t: Tensor, t: int) -> Tensor:
        x0_hat, covariance = task.moments(x_t, t)
        # Their eq. 14. A network's sums are no variances everywhere: they are held above a share of the scalar one.
        least = floor * task.schedule.posterior_variance(t, 0.3)
        variance = covariance(observation.known.to(x_t.dtype)).clamp(min=least) + observation.noise**2
        return task.clip(x0_hat + covariance(observation.misfit(x0_hat) / variance))

    return task.sample(denoise)


def conjugate_gradients(matrix: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """Solve matrix u = b for each row of a batch by itself (Hestenes and Stiefel 1952).

    A row stops where it is solved, or where the matrix, which of a network is no exact covariance, is not positive.
    """

    def dot(x: Tensor, y: Tensor) -> Tensor:
        return (x * y).flatten(1).sum(1).view(-1, *[1] * (x.ndim - 1))

    u, residual, direction = torch.zeros_like(b), b, b
    size = start = dot(b, b)
    for _ in range(iterations):
        image = matrix(direction)
        curvature = dot(direction, image)
        goes = (curvature > 0) & (size > 1e-12 * start)
        step = torch.where(goes, size / curvature.where(goes, torch.ones_like(curvature)), 0.0)
        u, residual = u + step * direction, residual - step * image
        before, size = size, dot(residual, residual)
        direction = torch.where(goes, residual + size / before.clamp(min=1e-30) * direction, 0.0)
    return u
