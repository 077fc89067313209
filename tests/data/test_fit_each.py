"""A mask spec for each image of a set."""

import numpy as np
import pytest

from inkfill.data import masks


def test_a_spec_for_each_image():
    images = np.zeros((3, 28, 28), np.uint8)
    each = masks.fit_each(["half:left", "strokes", "pixels:0.5"], images, seed=5)
    for i, spec in enumerate(["half:left", "strokes", "pixels:0.5"]):
        np.testing.assert_array_equal(each[i], masks.fit(spec, images[i : i + 1], 5, first=i)[0])
    with pytest.raises(ValueError, match="longer"):
        masks.fit_each(["all"], images)
