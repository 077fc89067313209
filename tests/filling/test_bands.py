"""Bands with missing values of their own."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers import TINY, model_of, must_refuse
from inkfill.core.schedule import Schedule
from inkfill.core.unet import UNet
from inkfill.evaluation.analytic import AnalyticPrior, GaussianMixture
from inkfill.filling.inpaint import inpaint
from inkfill.models.model import Model, Recipe


@pytest.mark.parametrize("masked", [False, True])
def test_observed_values_of_other_bands_come_back(masked):
    rng = np.random.default_rng(0)
    images = rng.random((2, 16, 16, 3)).astype(np.float32)
    missing = np.zeros(images.shape, bool)
    missing[0, 3:9, 3:9, 1] = True
    missing[1, ..., 2] = True  # a band that is missing whole
    given = np.ma.masked_array(images, missing) if masked else np.where(missing, np.nan, images)
    filled = inpaint(model_of(3, (16, 16)), given, None if masked else "nan", 2, steps=2, value_range=(0, 1))
    for k in range(2):
        np.testing.assert_array_equal(filled[:, k][~missing], images[~missing])
    assert np.isfinite(filled).all()
    assert (filled[:, 0][missing] != images[missing]).mean() > 0.9


def test_a_mask_of_its_own_covers_all_bands():
    images = np.random.default_rng(0).random((1, 16, 16, 3)).astype(np.float32)
    mask = np.zeros((16, 16), bool)
    mask[2:8, 2:8] = True
    filled = inpaint(model_of(3, (16, 16)), images, mask, 1, steps=2, value_range=(0, 1))[:, 0]
    np.testing.assert_array_equal(filled[:, ~mask], images[:, ~mask])
    assert (filled[:, mask] != images[:, mask]).mean() > 0.9


def several_planes(channels: int):
    """A model with a mask plane a channel, random weights."""
    net = UNet(replace(TINY, channels=channels, planes=channels))
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.7 / parameter[0].numel() ** 0.5, generator=generator)
    return Model(net, Recipe(channels=channels, image_size=(16, 16), number_type="float32"), dtype=torch.float32)


@pytest.mark.parametrize("channels", [2, 3, 6, 32])
def test_a_band_is_filled_from_the_others_which_come_back(channels):
    images = np.random.default_rng(0).random((2, 16, 16, channels)).astype(np.float32)
    mask = np.zeros(images.shape, bool)
    mask[..., 1] = True
    model = several_planes(channels)

    def filled(given, mask=mask):
        return inpaint(model, given, mask, 2, steps=2, value_range=(0, 1))

    expected = filled(images)
    np.testing.assert_array_equal(expected[..., 0], np.repeat(images[:, None, ..., 0], 2, 1))
    garbage, other = images.copy(), images.copy()
    garbage[..., 1] = np.nan
    np.testing.assert_array_equal(filled(garbage), expected)  # what is missing is not read
    np.testing.assert_array_equal(filled(garbage, None), expected)  # nan says the same
    other[..., 0] = 1 - other[..., 0]
    assert (filled(other)[..., 1] != expected[..., 1]).mean() > 0.5  # what is observed is
    tensors = (torch.from_numpy(each).movedim(-1, 1) for each in (images, mask))
    np.testing.assert_array_equal(filled(*tensors).movedim(2, -1).numpy(), expected)


def test_weights_of_one_mask_plane_say_that_they_do_not_read_other_channels(caplog):
    images = np.random.default_rng(0).random((1, 16, 16, 3)).astype(np.float32)
    mask = np.zeros(images.shape, bool)
    mask[..., 2] = True
    filled = inpaint(model_of(3, (16, 16)), images, mask, 1, steps=2, value_range=(0, 1))[:, 0]
    np.testing.assert_array_equal(filled[..., :2], images[..., :2])
    assert "whole pixels" in caplog.text


def test_a_missing_band_is_drawn_from_its_exact_posterior():
    """A Gaussian field of two correlated bands, the second missing: kriging's mean and covariance, 2,000 samples.

    Tolerance: 5 standard errors of the mean and of the standard deviation, plus 4 % for 100 steps.
    """
    place = np.stack(np.meshgrid(range(8), range(8), indexing="ij"), -1).reshape(64, 2)
    field = np.exp(-(np.square(place[:, None] - place[None]).sum(-1)) / 8)
    covariance = 0.04 * (np.kron([[1.0, 0.8], [0.8, 1.0]], field) + 0.05 * np.eye(128))  # within the data range
    mixture = GaussianMixture(torch.ones(1), torch.zeros(1, 128), torch.from_numpy(covariance)[None])
    prior = AnalyticPrior(mixture, Schedule.named("cosine"), channels=2)
    truth = mixture.sample(1, np.random.default_rng(0)).reshape(2, 8, 8).numpy()
    images, mask = np.moveaxis(truth, 0, -1)[None].astype(np.float32), np.zeros((1, 8, 8, 2), bool)
    mask[..., 1] = True
    drawn = inpaint(prior, images, mask, 2000, "conditional", 100, sampler="ancestral", value_range=(-1, 1))[0, ..., 1]
    gain = covariance[64:, :64] @ np.linalg.inv(covariance[:64, :64])
    mean = gain @ images[0, ..., 0].ravel()
    std = np.sqrt(np.diag(covariance[64:, 64:] - gain @ covariance[:64, 64:]))
    found = drawn.reshape(2000, 64).astype(np.float64)
    assert (np.abs(found.mean(0) - mean) < std * (5 / 2000**0.5 + 0.04)).all()
    assert (np.abs(found.std(0) / std - 1) < 5 / 4000**0.5 + 0.04).all()


@pytest.mark.parametrize("shape", [(2, 16, 16, 2), (2, 16, 3), (3, 16, 16, 3)])
def test_masks_of_other_channels_or_counts_are_refused(shape):
    must_refuse(lambda: inpaint(several_planes(3), np.zeros((2, 16, 16, 3), np.uint8), np.ones(shape, bool), 1), "mask")
