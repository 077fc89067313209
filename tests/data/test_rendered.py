"""The built-in digits."""

import numpy as np

from inkfill import data


def test_rendered_digits_are_deterministic_centred_and_labelled():
    first, again, other = data.rendered(200, 20, 20), data.rendered(200, 20, 20), data.rendered(200, 20, 20, seed=1)
    np.testing.assert_array_equal(first.train, again.train)
    assert (first.train != other.train).any()
    assert first.train.shape == (200, 28, 28)
    assert first.train.dtype == np.uint8
    assert set(first.labels["train"]) == set(range(10))
    mass = first.train.astype(float)
    centre = (mass.sum(1) * (np.arange(28) + 0.5)).sum(1) / mass.sum((1, 2))
    assert np.abs(centre - 14).max() < 1.5
    assert 0.05 < (first.train > 127).mean() < 0.25  # about as much ink as MNIST (0.13)
    assert first.train[:, [0, -1]].max() < 255  # no digit is cut by the edge
