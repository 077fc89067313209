"""The one visible loop of core: the same samples as ``inkfill.inpaint``, and its contracts."""

import numpy as np
import pytest
import torch

import inkfill
from inkfill.core.denoiser import ConditionalPrior
from inkfill.core.fill import fill, most_central
from inkfill.core.masks import parse
from inkfill.core.rng import stream
from inkfill.core.schedule import Schedule
from inkfill.data import to_uint8, to_x0


def test_fill_is_inpaint_with_the_ancestral_sampler(digits, model):
    """Bit for bit, after the same conversion to bytes."""
    mask = parse("half:random").draw(3, 28, 28, stream(0))
    drawn = fill(model, to_x0(digits[:3]), torch.from_numpy(mask[:, None]), samples=2, steps=4, seed=7)
    assert drawn.shape == (3, 2, 1, 28, 28)
    assert drawn.dtype == torch.float32
    found = to_uint8(drawn.flatten(0, 1)).reshape(3, 2, 28, 28)
    expected = inkfill.inpaint(model, digits[:3], mask, 2, steps=4, seed=7, sampler="ancestral")
    np.testing.assert_array_equal(found, expected)
    assert (expected[:, 0] != expected[:, 1]).any()


def test_observed_pixels_come_back_and_missing_ones_are_not_read(digits, model):
    x0 = to_x0(digits[:2])
    mask = torch.from_numpy(parse("pixels:0.5").draw(2, 28, 28, stream(0))[:, None])
    garbage = torch.where(mask, torch.full_like(x0, float("nan")), x0)
    drawn = fill(model, garbage, mask, samples=2, steps=2)
    assert torch.equal(drawn, fill(model, x0, mask, samples=2, steps=2))
    observed = ~mask[:, None].expand_as(drawn)
    assert torch.equal(drawn[observed], x0[:, None].expand_as(drawn)[observed])


def test_a_sample_belongs_to_its_image(digits, model):
    """Another batch and another number of samples change float rounding only."""
    x0, mask = to_x0(digits[:3]), torch.ones(3, 1, 28, 28, dtype=torch.bool)
    many, few = fill(model, x0, mask, samples=3, steps=3), fill(model, x0[:1], mask[:1], samples=1, steps=3)
    torch.testing.assert_close(many[0, 0], few[0, 0], rtol=1e-4, atol=1e-4)


class Gaussian(ConditionalPrior):
    """Independent pixels N(0.2, 0.4^2): missing ones keep their prior."""

    schedule, channels = Schedule.named("cosine"), 1

    def conditional(self, observation):
        def denoise(x_t, t):
            a = float(self.schedule.alpha_bar[t])
            return 0.2 + a**0.5 * 0.4**2 / (a * 0.4**2 + 1 - a) * (x_t - a**0.5 * 0.2)

        return denoise


def test_fill_draws_from_a_known_posterior():
    """6,400 values at 100 steps: mean and deviation within 4 standard errors plus 3 % for the steps and the clipping
    of predictions at 1, two standard deviations from the mean."""
    mask = torch.ones(10, 1, 8, 8, dtype=torch.bool)
    drawn = fill(Gaussian(), torch.zeros(10, 1, 8, 8), mask, samples=10, steps=100)
    assert abs(float(drawn.mean()) - 0.2) < 0.4 * (4 / 6400**0.5 + 0.03)
    assert abs(float(drawn.std()) / 0.4 - 1) < 4 / 12800**0.5 + 0.03


def test_most_central_is_the_medoid():
    samples = np.zeros((2, 3, 4, 4))
    samples[0] += np.array([0.0, 1.0, 5.0])[:, None, None]
    samples[1] += np.array([9.0, 0.0, 8.0])[:, None, None]
    np.testing.assert_array_equal(most_central(samples), [1, 2])


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 1, 4, 4, 3)])
def test_most_central_of_one_sample(shape):
    np.testing.assert_array_equal(most_central(np.zeros(shape)), np.zeros(shape[0], int))
