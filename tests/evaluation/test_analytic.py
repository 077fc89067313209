"""Analytic priors against automatic differentiation, grids, and each other."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers import mixture
from inkfill.core.denoiser import Observation
from inkfill.core.rng import stream
from inkfill.core.schedule import Schedule
from inkfill.errors import InputError
from inkfill.evaluation.analytic import AnalyticPrior, EmpiricalPrior, GaussianMixture

SCHEDULE = Schedule.named("cosine")


def grid(n=301, reach=3.0):
    axis = torch.linspace(-reach, reach, n, dtype=torch.float64)
    return torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2), (axis[1] - axis[0]) ** 2


def test_density_integrates_to_one_and_has_the_stated_moments():
    gm = mixture()
    points, cell = grid()
    p = gm.log_density(points).exp() * cell
    assert p.sum() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(p @ points, gm.mean(), atol=1e-6, rtol=0)
    centred = points - gm.mean()
    torch.testing.assert_close(centred.T @ (p[:, None] * centred), gm.covariance(), atol=1e-6, rtol=0)


def test_samples_have_the_moments_and_the_weights():
    """50,000 samples, within 5 standard errors."""
    gm, n = mixture(), 50_000
    x = gm.sample(n, stream(0))
    assert ((x.mean(0) - gm.mean()).abs() < 5 * (gm.covariance().diagonal() / n).sqrt()).all()
    nearest = torch.cdist(x, gm.means).argmin(1)
    share = torch.bincount(nearest, minlength=3) / n
    assert ((share - gm.weights).abs() < 5 * (gm.weights * (1 - gm.weights) / n).sqrt()).all()


@pytest.mark.parametrize("t", [1, 100, 500, 900, 1000])
def test_the_denoiser_gives_the_gradient_of_the_density(t):
    """Tweedie's formula: grad log p(x_t) = (sqrt(alpha_bar) x0_hat - x_t) / (1 - alpha_bar)."""
    gm, a = mixture(), SCHEDULE.alpha_bar[t]
    x = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(t)).requires_grad_()
    (gradient,) = torch.autograd.grad(gm.log_density(x, SCHEDULE, t).sum(), x)
    score = (a.sqrt() * gm.denoiser(SCHEDULE)(x.detach(), t) - x.detach()) / (1 - a)
    torch.testing.assert_close(score, gradient, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("t", [50, 300, 700])
def test_the_denoiser_is_the_posterior_mean(t):
    """E[x0 given x_t] by Bayes' rule on a grid over x0."""
    gm, (points, _) = mixture(), grid()
    a = SCHEDULE.alpha_bar[t]
    for x_t in torch.tensor([[0.3, -0.2], [-1.0, 0.9], [1.5, 1.5]], dtype=torch.float64):
        logs = gm.log_density(points) - (x_t - a.sqrt() * points).square().sum(1) / (2 * (1 - a))
        torch.testing.assert_close(
            gm.denoiser(SCHEDULE)(x_t[None], t)[0], logs.softmax(0) @ points, atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_the_posterior_of_a_linear_observation(noise):
    """Moments and evidence of p(x given y) on a grid; without noise, on the line matrix x = y."""
    gm = mixture()
    matrix, y = torch.tensor([[0.6, -0.8]], dtype=torch.float64), torch.tensor([0.2], dtype=torch.float64)
    posterior, evidence = gm.observe(matrix, y, noise)
    if noise:
        points, cell = grid()
        misfit = (points @ matrix.T - y)[:, 0]
        joint = gm.log_density(points) - misfit**2 / (2 * noise**2) - 0.5 * np.log(2 * np.pi * noise**2)
    else:
        along = torch.linspace(-4, 4, 20001, dtype=torch.float64)[:, None]
        points, cell = matrix[0] * y + along * torch.tensor([[0.8, 0.6]]), along[1, 0] - along[0, 0]
        joint = gm.log_density(points)  # rows of unit length, so p(y) is the integral along the line
    weight = joint.softmax(0)
    assert evidence == pytest.approx(float((joint.exp() * cell).sum().log()), abs=1e-4)
    torch.testing.assert_close(posterior.mean(), weight @ points, atol=1e-4, rtol=0)
    centred = points - posterior.mean()
    torch.testing.assert_close(posterior.covariance(), centred.T @ (weight[:, None] * centred), atol=1e-4, rtol=0)


def observation(known, pixels, b=1):
    known = torch.tensor(known).view(1, 1, 1, -1).expand(b, -1, -1, -1)
    return Observation(torch.where(known, torch.tensor(pixels).view(1, 1, 1, -1), 0.0).expand(b, -1, -1, -1), known)


def test_the_conditional_denoiser_keeps_observed_pixels():
    given = observation([True, False], [0.4, 9.0], 5)
    x0_hat = AnalyticPrior(mixture(), SCHEDULE).conditional(given)(torch.randn(5, 1, 1, 2), 400)
    torch.testing.assert_close(x0_hat[..., 0], torch.full((5, 1, 1), 0.4))


def test_bad_mixtures_are_refused():
    with pytest.raises(InputError, match="covariances"):
        GaussianMixture(torch.ones(2), torch.zeros(2, 3), torch.eye(2)[None])
    with pytest.raises(InputError, match="negative"):
        GaussianMixture(torch.ones(1), torch.zeros(1, 2), -torch.eye(2)[None])
    with pytest.raises(InputError, match="bandwidth"):
        EmpiricalPrior(torch.zeros(3, 1, 2, 2), 0.0)


# ---- an empirical prior is a mixture ---------------------------------------------------------------------------------


def both():
    images = torch.rand(7, 1, 2, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    h = 0.2
    return EmpiricalPrior(images, h), GaussianMixture(torch.ones(7), images.flatten(1), h**2 * torch.eye(6)[None])


@pytest.mark.parametrize("t", [1, 100, 600, 1000])
def test_the_empirical_denoiser_equals_that_of_the_mixture(t):
    prior, gm = both()
    x_t = torch.randn(9, 1, 2, 3, generator=torch.Generator().manual_seed(t))
    torch.testing.assert_close(prior.denoiser(SCHEDULE)(x_t, t), gm.denoiser(SCHEDULE)(x_t, t), atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("t", [10, 400, 900])
def test_the_empirical_conditional_denoiser_equals_that_of_the_mixture(t):
    prior, gm = both()
    known = torch.tensor([[True, False, False], [False, True, False]]).expand(5, 1, 2, 3)
    pixels = torch.where(known, torch.rand(5, 1, 2, 3, generator=torch.Generator().manual_seed(1)) - 0.5, 0.0)
    x_t = torch.randn(5, 1, 2, 3, generator=torch.Generator().manual_seed(t))
    found = prior.conditional(SCHEDULE, Observation(pixels, known))(x_t, t)
    for row in range(5):
        posterior = gm.posterior(Observation(pixels, known), row)
        expected = posterior.denoiser(SCHEDULE)(x_t[row : row + 1], t)[0]
        torch.testing.assert_close(found[row], expected, atol=2e-4, rtol=1e-3)


def test_posterior_samples_of_the_empirical_prior():
    """20,000 samples: their mean is that of the mixture's posterior, within 5 standard errors."""
    prior, gm = both()
    n = 20_000
    known = torch.tensor([[True, False, False], [False, False, False]]).expand(n, 1, 2, 3)
    pixels = torch.where(known, 0.1, 0.0)
    x = prior.sample_posterior(Observation(pixels, known), stream(0)).flatten(1).double()
    posterior = gm.posterior(Observation(pixels, known))
    error = (posterior.covariance().diagonal() / n).sqrt()
    assert (x[:, 0] == x[0, 0]).all()
    assert ((x.mean(0) - posterior.mean()).abs() < 5 * error + 1e-6).all()


@pytest.mark.check
def test_the_denoiser_of_55000_images_is_fast():
    import time

    prior = EmpiricalPrior(torch.rand(55_000, 1, 28, 28), 0.1)
    x_t = torch.randn(64, 1, 28, 28)
    denoise = prior.denoiser(SCHEDULE)
    denoise(x_t, 500)
    began = time.perf_counter()
    denoise(x_t, 300)
    assert time.perf_counter() - began < 3  # about 0.3 s; machines differ


def test_the_posterior_given_noisy_pixels():
    """Prior N(0, 1), y = 1, noise 1: N(.5, .5) (by hand)."""
    gm = GaussianMixture(torch.ones(1), torch.zeros(1, 2), torch.eye(2)[None])
    noisy = replace(observation([True, False], [1.0, 0.0], 3), noise=1.0)
    posterior = gm.posterior(noisy)
    torch.testing.assert_close(posterior.mean(), torch.tensor([0.5, 0.0], dtype=torch.float64))
    torch.testing.assert_close(posterior.covariance().diagonal(), torch.tensor([0.5, 1.0], dtype=torch.float64))
    x_t = torch.zeros(3, 1, 1, 2)
    wanted = posterior.denoiser(SCHEDULE)(x_t, 500)
    torch.testing.assert_close(AnalyticPrior(gm, SCHEDULE).conditional(noisy)(x_t, 500), wanted)
    prior = EmpiricalPrior(torch.zeros(3, 1, 1, 2), 0.1)
    with pytest.raises(InputError, match="exact"):
        prior.conditional(SCHEDULE, noisy)
    with pytest.raises(InputError, match="exact"):
        prior.sample_posterior(noisy, stream(0))


def test_every_row_is_conditioned_on_its_own_observation():
    """Three observations in a batch of six, of which one has no observed pixel: as each row alone."""
    pixels = torch.tensor([[0.5, 0.0], [-1.0, 0.0], [0.0, 0.0]]).view(3, 1, 1, 2).repeat(2, 1, 1, 1)
    known = torch.tensor([[True, False], [True, False], [False, False]]).view(3, 1, 1, 2).repeat(2, 1, 1, 1)
    x_t, prior = torch.randn(6, 1, 1, 2), AnalyticPrior(mixture(), SCHEDULE)
    found = prior.conditional(Observation(pixels, known))(x_t, 400)
    for i in range(6):
        row = slice(i, i + 1)
        alone = prior.conditional(Observation(pixels[row], known[row]))(x_t[row], 400)
        torch.testing.assert_close(found[row], alone)
    torch.testing.assert_close(found[2], prior.unconditional(x_t)(x_t, 400)[2])
    assert (found[0] - found[1]).abs().max() > 0.1
