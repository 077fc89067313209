"""Bands with missing values of their own."""

import numpy as np
import pytest

from helpers import model_of
from inkfill.filling.inpaint import inpaint


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
