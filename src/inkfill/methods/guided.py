"""Guided methods: a denoiser in, a denoiser out, so every sampler works with them."""

from collections.abc import Callable

import torch
from torch import Tensor

from inkfill.methods.registry import method
from inkfill.methods.task import Task


@method("this network, trained on masks", "steps grow", needs="conditional")
def conditional(task: Task) -> Tensor:
    """The conditional denoiser E[x0 given x_t and the observed pixels]: a network trained on masked images has it."""
    return task.sample(task.conditional)


@method("Wang et al. 2022, arXiv 2212.00490", "never")
def ddnm(task: Task) -> Tensor:
    """DDNM (Wang et al. 2022): put the observed pixels into the predicted clean image.

    The direction of a step (the noise it keeps) is recomputed from x_t and this rectified image, as in the posterior
    q(x_s given x_t, x0) of their eq. 14.
    """

    def denoise(x_t: Tensor, t: int) -> Tensor:
        x0_hat = task.unconditional(x_t, t)
        return torch.where(task.observation.known, task.observation.pixels, x0_hat)  # eq. 13, with A a mask

    return task.sample(denoise)


@method("Song et al. 2023, OpenReview 9_gsMA8MRKQ", "one isotropic Gaussian", gradient=True, noisy=True)
def pigdm(task: Task, prior_variance: float = 1.0) -> Tensor:
    """Pseudoinverse guidance (Song et al. 2023, "Pseudoinverse-guided diffusion models for inverse problems").

    Approximates p(x0 given x_t) by N(x0_hat, r_t^2 I); y given x_t is then Gaussian, and Bayes' rule adds its score.
    Exact for a prior N(m, prior_variance I). Near T the guided prediction can leave the range of images (a network's
    Jacobian is larger there than sqrt(alpha_bar)), so it is clipped like any prediction.
    """

    def denoise(x_t: Tensor, t: int) -> Tensor:
        variance = task.schedule.posterior_variance(t, prior_variance)  # r_t^2, their eq. 10
        x0_hat, _, gradient = task.likelihood_gradient(x_t, t, variance + task.observation.noise**2)
        a = float(task.schedule.alpha_bar[t])
        return task.clip(x0_hat + (1 - a) / a**0.5 * gradient)  # Tweedie: a step in score, in x0_hat

    return task.sample(denoise)


@method("Rozet et al. 2024, arXiv 2405.13712", "any Gaussian; iterations grow", gradient=True, noisy=True)
def mmps(task: Task, iterations: int = 2) -> Tensor:
    """Moment matching posterior sampling (Rozet et al. 2024, "Learning diffusion priors from observations by
    expectation maximization", section 4.2).

    Approximates p(x0 given x_t) by the Gaussian of its first two moments: the mean x0_hat and the covariance
    V = (1 - alpha_bar) / sqrt(alpha_bar) J with J the Jacobian of x0_hat (Tweedie's second-order formula). Given the
    observed pixels y = A x0 with noise of variance n, the mean is x0_hat + V A' (A V A' + n)^-1 (y - A x0_hat). The
    system is solved by ``iterations`` of conjugate gradients, one backward pass each, and one more. Exact for every
    Gaussian prior with as many iterations as observed values.
    """
    observation = task.observation

    def denoise(x_t: Tensor, t: int) -> Tensor:
        x0_hat, covariance = task.moments(x_t, t)

        def observed(w: Tensor) -> Tensor:
            return torch.where(observation.known, covariance(w) + observation.noise**2 * w, 0.0)

        u = conjugate_gradients(observed, observation.misfit(x0_hat), iterations)
        return task.clip(x0_hat + covariance(u))

    return task.sample(denoise)


@method("Boys et al. 2023, arXiv 2310.06721", "independent Gaussian pixels", gradient=True, noisy=True)
def tmpd(task: Task, floor: float = 0.5) -> Tensor:
    """Tweedie moment projected diffusions (Boys et al. 2023, section 4): mmps with a diagonal matrix.

    A V A' is replaced by the diagonal matrix of its row sums, which one backward pass gives; a second one multiplies by
    V. Exact for Gaussian priors with independent pixels, where no variance is below ``floor`` times that of a pixel of
    prior variance 0.3. (Without the floor a trained network's samples fail: CRPS 0.23.)
    """
    observation = task.observation

    def denoise(x_t: Tensor, t: int) -> Tensor:
        x0_hat, covariance = task.moments(x_t, t)
        # Their eq. 14. A network's row sums can be negative: they are clamped to a fraction of the scalar variance.
        least = floor * task.schedule.posterior_variance(t, 0.3)
        variance = covariance(observation.known.to(x_t.dtype)).clamp(min=least) + observation.noise**2
        return task.clip(x0_hat + covariance(observation.misfit(x0_hat) / variance))

    return task.sample(denoise)


def conjugate_gradients(matrix: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """Solve matrix u = b for each row of a batch separately (Hestenes and Stiefel 1952).

    A row stops once it is solved, or where the matrix, which for a network is no exact covariance, is not positive.
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
