"""The input of a method: what it refuses, clips and counts."""

import pytest
import torch

from helpers import analytic_task, mixture
from inkfill.core.denoiser import Observation, Prior
from inkfill.core.rng import SampleNoise
from inkfill.core.schedule import Schedule
from inkfill.errors import InputError
from inkfill.methods import Task


class Loud(Prior):
    """Predictions far out of range."""

    schedule, channels, bounded = Schedule.named("linear", 50), 1, True

    def unconditional(self, like):
        return lambda x_t, t: 5 + x_t


def task_of(prior, **other):
    observation = Observation.of(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.bool))
    return Task(prior, observation, SampleNoise(0, [0], [0], (1, 4, 4)), [50, 0], **other)


def test_an_unknown_sampler_is_refused():
    with pytest.raises(InputError, match="unknown sampler"):
        task_of(Loud(), sampler="euler")


def test_a_prior_without_a_denoiser_is_named():
    task = task_of(Loud())
    with pytest.raises(InputError, match="no conditional denoiser"):
        _ = task.conditional
    with pytest.raises(InputError, match="no few-step model"):
        _ = task.draw


def test_predictions_are_clipped_for_bounded_priors_and_counted():
    spent = []
    task = task_of(Loud(), count=spent.append)
    assert (task.unconditional(torch.zeros(3, 1, 4, 4), 25) == 1).all()
    assert spent == [3]
    free = Loud()
    free.bounded = False
    assert (task_of(free).unconditional(torch.zeros(1, 1, 4, 4), 25) == 5).all()


def test_clipping_silences_no_observed_pixel():
    """A prediction out of range still has a gradient: clipping is outside of it."""
    x0_hat, log_p, gradient = task_of(Loud()).likelihood_gradient(torch.zeros(1, 1, 4, 4), 25, 1.0)
    assert (x0_hat == 1).all()
    torch.testing.assert_close(gradient, torch.full_like(gradient, -1.0))
    assert torch.isfinite(log_p).all()


def test_moments_are_those_of_the_posterior():
    """Covariance times a vector, for a mixture in two dimensions, against central differences of the mean."""
    task = analytic_task(mixture(), [True, False], [0.7, 0], 3, 10)
    x = torch.randn(3, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    w = torch.randn(3, 1, 1, 2, generator=torch.Generator().manual_seed(1))
    x0_hat, covariance = task.moments(x, 600)
    denoise, a = task.prior.unconditional(x), float(task.schedule.alpha_bar[600])
    torch.testing.assert_close(x0_hat, denoise(x, 600))
    slope = (denoise(x + 1e-3 * w, 600) - denoise(x - 1e-3 * w, 600)) / 2e-3
    torch.testing.assert_close(covariance(w), (1 - a) / a**0.5 * slope, rtol=1e-2, atol=1e-3)


def test_a_task_for_particles_repeats_its_rows():
    task = analytic_task(mixture(), [True, False], [0.7, 0], 3, 10)
    assert task.repeat(4).observation.pixels.shape == (12, 1, 1, 2)
    assert task.repeat(4).noise is task.noise
