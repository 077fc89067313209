"""Dtypes and data ranges: trained on one, filled in another."""

import numpy as np
import pytest

from helpers import model_of, run
from inkfill.data.images import ValueRange, as_images, has_units, without_hidden_colour
from inkfill.errors import InputError
from inkfill.filling.inpaint import inpaint
from inkfill.models.model import Model, Recipe, load


@pytest.mark.parametrize("dtype", ["int8", "int16", ">i2", "uint32", ">u4", "uint64", "float16"])
def test_weights_of_every_dtype_are_loaded(dtype, tmp_path):
    images = np.random.default_rng(0).integers(0, 100, (20, 12, 12)).astype(dtype)
    np.save(tmp_path / "images.npy", images)
    out = tmp_path / "run"
    assert run("train", "--data", tmp_path / "images.npy", "--steps", 1, "--batch-size", 2, "--out", out) == 0
    filled = inpaint(load(out), images[:1], "box:4", 1, steps=1)
    assert filled.dtype == images.dtype
    assert filled.min() >= images.min()
    assert filled.max() <= images.max()


def test_other_dtypes_are_refused_with_those_that_are_not():
    for dtype in ("complex64", "U3", np.longdouble):
        with pytest.raises(InputError, match=r"dtype.*not supported.*uint8.*float64"):
            as_images(np.zeros((1, 12, 12), dtype))


def metres() -> Model:
    """A model of floats from -22 to 964."""
    model = model_of(1)
    return Model(model.net, Recipe(number_type="float32", value_range=(-22.0, 964.0)), dtype=model.dtype)


@pytest.mark.parametrize("dtype", ["uint16", "uint8", "int32", "float64"])
def test_a_range_with_units_holds_for_every_dtype(dtype):
    """The same values give the same samples, whatever they are stored in."""
    constant = np.full((1, 28, 28), 200)
    expected = inpaint(metres(), constant.astype(np.float32), "box:10", 1, steps=1).astype(float)
    found = inpaint(metres(), constant.astype(dtype), "box:10", 1, steps=1).astype(float)
    info = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else None
    expected = expected if info is None else expected.clip(info.min, info.max)
    np.testing.assert_allclose(found, expected, atol=0.51)


def test_values_outside_a_range_with_units_are_refused():
    with pytest.raises(InputError, match=r"uint16 values from 2000 to 2000.*--range"):
        inpaint(metres(), np.full((1, 28, 28), 2000, np.uint16), "box:10", 1, steps=1)


def test_a_range_has_units_if_its_dtype_does_not_imply_it():
    assert has_units(ValueRange(0, 4400), "uint16")
    assert has_units(ValueRange(-22, 964), "float32")
    assert has_units(ValueRange(0, 100), "int32")
    assert not has_units(ValueRange(0, 65535), "uint16")
    assert not has_units(ValueRange(0, 1), "float32")


def test_hidden_colour_is_black_and_bands_are_no_alpha():
    sprite = np.full((1, 10, 10, 4), 77, np.uint8)
    sprite[..., 3] = 255
    sprite[0, :5, :, 3] = 0
    black = without_hidden_colour(sprite)
    assert (black[0, :5] == 0).all()
    np.testing.assert_array_equal(black[0, 5:], sprite[0, 5:])
    bands = np.random.default_rng(0).integers(0, 255, (1, 10, 10, 4)).astype(np.uint16)
    bands[0, :3, :, 3] = 0
    np.testing.assert_array_equal(without_hidden_colour(bands), bands)


@pytest.mark.parametrize("channels", [3, 4])
def test_colour_under_transparent_observed_pixels_is_returned_and_not_read(channels):
    rng = np.random.default_rng(0)
    sprite = rng.integers(0, 255, (1, 16, 16, 4)).astype(np.uint8)
    sprite[..., 3] = np.where(rng.random((1, 16, 16)) < 0.3, 0, 255)
    other = sprite.copy()
    other[sprite[..., 3] == 0, :3] = 200
    model, mask = model_of(channels, (16, 16)), np.zeros((16, 16), bool)
    mask[4:12, 4:12] = True
    first, second = (inpaint(model, x, mask, 2, steps=2) for x in (sprite, other))
    np.testing.assert_array_equal(first[:, :, mask], second[:, :, mask])
    for filled, images in ((first, sprite), (second, other)):
        np.testing.assert_array_equal(filled[:, 0][:, ~mask], images[:, ~mask])
