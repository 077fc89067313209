"""Observations and priors, and the gradient of the likelihood against autograd."""

import numpy as np
import pytest
import torch

from inkfill.core.denoiser import Observation, Prior, jacobian, likelihood_gradient
from inkfill.errors import InputError


def observed(noise=0.0):
    """Two images in two channels, about half of the pixels observed."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(2, 2, 3, 4, generator=generator, dtype=torch.float64)
    mask = torch.rand(2, 1, 3, 4, generator=generator) < 0.5
    return x0, mask, Observation.of(x0, mask, noise)


def test_an_observation_holds_no_missing_pixel():
    x0, mask, observation = observed()
    missing = mask.expand_as(x0)
    assert (observation.pixels[missing] == 0).all()
    assert torch.equal(observation.pixels[~missing], x0[~missing])
    assert torch.equal(observation.mask, missing)
    garbage = Observation.of(torch.where(mask, torch.full_like(x0, float("nan")), x0), mask)
    assert torch.equal(garbage.pixels, observation.pixels)


def test_an_observation_of_nothing_knows_no_pixel():
    nothing = Observation.nothing(torch.ones(2, 3, 4, 4))
    assert not nothing.known.any()
    assert nothing.pixels.abs().max() == 0
    assert nothing.pixels.shape == nothing.known.shape == (2, 3, 4, 4)


def test_repeated_rows_are_adjacent():
    _, _, observation = observed(0.3)
    repeated = observation.repeat(3)
    assert repeated.noise == 0.3
    for row in range(6):
        assert torch.equal(repeated.pixels[row], observation.pixels[row // 3])
        assert torch.equal(repeated.known[row], observation.known[row // 3])


def test_the_misfit_is_0_where_pixels_are_missing():
    x0, mask, observation = observed()
    misfit = observation.misfit(x0 + 1)
    torch.testing.assert_close(misfit, torch.where(mask, 0.0, -1.0).expand_as(x0).double())


def mixing(x_t, t):
    """A denoiser whose output at a pixel depends on its neighbours."""
    return (x_t + 0.5 * x_t.roll(1, -1)).tanh()


def test_jacobian_is_the_transposed_derivative():
    x0, _, _ = observed()
    x0_hat, transposed = jacobian(mixing, x0, 5)
    torch.testing.assert_close(x0_hat, mixing(x0, 5))
    w = torch.randn(x0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    full = torch.autograd.functional.jacobian(lambda x: mixing(x, 5), x0).reshape(x0.numel(), x0.numel())
    torch.testing.assert_close(transposed(w).flatten(), full.T @ w.flatten())


def test_likelihood_gradient_is_the_gradient_of_the_log_likelihood():
    x0, mask, observation = observed()
    x = (0.3 * x0).requires_grad_()
    x0_hat, log_p, gradient = likelihood_gradient(mixing, x.detach(), 5, observation, 0.7)
    normal = torch.distributions.Normal(mixing(x, 5), 0.7**0.5)
    expected = torch.where(mask, 0.0, normal.log_prob(observation.pixels)).flatten(1).sum(1)
    torch.testing.assert_close(log_p, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), x)[0])
    torch.testing.assert_close(x0_hat, mixing(x.detach(), 5))


def test_clipping_is_outside_the_gradient():
    """A prediction out of range still has a gradient towards the observation."""
    x0, _, observation = observed()
    x0_hat, log_p, gradient = likelihood_gradient(
        lambda x_t, t: 5 + x_t, x0, 5, observation, 1.0, lambda x: x.clamp(-1, 1)
    )
    assert (x0_hat[observation.known] <= 1).all()
    torch.testing.assert_close(gradient, observation.misfit(x0_hat))
    assert torch.isfinite(log_p).all()


def test_the_likelihood_counts_values_and_not_pixels():
    """Three channels, one pixel observed: three values."""
    observation = Observation.of(torch.zeros(1, 3, 2, 2), torch.tensor([[[[False, True], [True, True]]]]))
    assert observation.known.sum() == 3
    _, log_p, _ = likelihood_gradient(lambda x_t, t: x_t, torch.zeros(1, 3, 2, 2), 5, observation, 1.0)
    assert float(log_p) == pytest.approx(-3 / 2 * np.log(2 * np.pi))


def test_a_denoiser_without_a_gradient_is_refused():
    x0, _, observation = observed()
    with pytest.raises(InputError, match="no gradient"):
        likelihood_gradient(torch.no_grad()(mixing), x0, 5, observation, 1.0)
    with torch.no_grad():  # the caller's mode does not matter
        likelihood_gradient(mixing, x0, 5, observation, 1.0)


def test_the_defaults_of_a_prior():
    prior = Prior()
    assert (prior.bounded, prior.generative, prior.image_size, prior.method) == (False, False, None, None)
    with pytest.raises(NotImplementedError):
        prior.unconditional(torch.zeros(1, 1, 8, 8))


def test_masks_by_channel_need_a_network_that_reads_them():
    x0, mask = torch.randn(2, 3, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.bool)
    assert Observation.of(x0, mask[:, :1]).planes(1).shape == (2, 1, 8, 8)
    mask[:, 1] = True
    observation = Observation.of(x0, mask)
    assert torch.equal(observation.planes(3), ~mask)
    assert torch.equal(observation.pixels[:, 0], x0[:, 0])
    with pytest.raises(InputError, match="one mask for all channels"):
        observation.planes(1)
