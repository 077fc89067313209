"""Filling images of any data range: integers, floats, NaN, masked values."""

import logging

import numpy as np
import pytest

from helpers import images_of, model_of, observed_alike, tiny_model
from inkfill.core import masks as specs
from inkfill.core.rng import stream
from inkfill.data import masks
from inkfill.errors import InputError
from inkfill.filling.inpaint import inpaint


def test_one_image_in_several_dtypes_is_filled_alike():
    model, images = tiny_model(), images_of("uint8", (1, 12, 12))
    mask = masks.fit("box:6", images)
    eight = inpaint(model, images, mask, 2, steps=3).astype(float)
    floats = inpaint(model, (images / 255).astype(np.float32), mask, 2, steps=3)
    sixteen = inpaint(model, images.astype(np.uint16) * 257, mask, 2, steps=3)
    given = inpaint(model, images.astype(np.float64) * 10 - 500, mask, 2, steps=3, value_range=(-500, 2050))
    for other in (floats * 255, sixteen / 257, (given + 500) / 10):
        assert np.abs(other - eight).max() <= 0.51  # rounding to uint8


def test_an_unknown_data_range_is_refused():
    model = tiny_model()
    with pytest.raises(InputError, match="--range"):
        inpaint(model, images_of("float32", (1, 12, 12)) * 1000 - 500, "box:4", 1, steps=1)
    with pytest.raises(InputError, match="LOW must be below HIGH"):
        inpaint(model, images_of("float32", (1, 12, 12)), "box:4", 1, steps=1, value_range=(1, 0))


def test_integers_stay_within_their_dtype():
    model, mask = model_of(1), specs.parse("half:left").draw(1, 28, 28, stream(0))
    small = np.random.default_rng(0).integers(0, 64, (1, 28, 28)).astype(np.int8)
    with pytest.raises(InputError, match="int8 cannot hold values from 0 to 255"):
        inpaint(model, small, mask, 1, steps=1)
    assert inpaint(model, small, mask, 1, steps=1, value_range=(0, 127)).min() >= 0
    top = 2**31 - 1
    for dtype in (np.int32, np.uint32):
        filled = inpaint(model, np.full((1, 28, 28), top, dtype), mask, 8, steps=1, value_range=(0, top))
        assert (filled >= 0).all()
        assert (filled <= top).all()
        assert (filled[:, :, mask[0]] == top).any()
    assert inpaint(model, np.zeros((1, 28, 28), np.uint8), mask, 1, steps=1, value_range=np.array([0.0, 300.0])).any()


def test_float64_keeps_its_precision():
    images = 1e8 + 10 * np.random.default_rng(0).random((1, 28, 28))
    mask = specs.parse("half:left").draw(1, 28, 28, stream(0))
    filled = inpaint(model_of(1), images, mask, 1, steps=1, value_range=(1e8, 1e8 + 10))
    assert len(np.unique(filled[:, 0][mask])) > 100


def test_observed_values_out_of_range_are_kept_with_a_notice(caplog):
    images = images_of("float32", (1, 12, 12))
    images[0, 0, 0] = 7.5
    with caplog.at_level(logging.WARNING):
        filled = inpaint(tiny_model(), images, "box:4", 1, steps=2, value_range=(0, 1))
    assert filled[0, 0, 0, 0] == 7.5
    assert "leave the data range 0 to 1" in caplog.text
    assert filled[0, 0][masks.fit("box:4", images)[0]].max() <= 1


def test_nan_and_masked_values_are_missing():
    images = images_of("float32", (2, 12, 12))
    mask = np.zeros((2, 12, 12), bool)
    mask[:, 3:7, 2:8] = True
    broken = np.where(mask, np.nan, images).astype(np.float32)
    model = tiny_model()
    filled = inpaint(model, broken, "nan", 2, steps=2)
    assert np.isfinite(filled).all()
    assert observed_alike(filled, images, mask)
    masked = np.ma.MaskedArray(images, mask)
    for other in (inpaint(model, masked, None, 2, steps=2), inpaint(model, broken, None, 2, steps=2)):
        assert not isinstance(other, np.ma.MaskedArray)
        np.testing.assert_array_equal(other, filled)
    with pytest.raises(InputError, match="outside the mask"):
        inpaint(model, broken, "half:left", 1, steps=1)
    with pytest.raises(InputError, match="no missing values"):
        inpaint(model, images, None, 1, steps=1)
