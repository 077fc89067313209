"""Images as users hold them, and their conversion to x0 and back."""

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import images_of, must_refuse
from inkfill import data
from inkfill.data.images import ValueRange, range_of

GREY = np.arange(28 * 28, dtype=np.uint32).reshape(28, 28).astype(np.uint8)


def test_uint8_to_x0_and_back_is_exact():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    x0 = data.to_x0(images)
    assert x0.shape == (1, 1, 16, 16)
    assert x0.min() == -1
    assert x0.max() == 1
    np.testing.assert_array_equal(data.to_uint8(x0), images)
    np.testing.assert_array_equal(data.to_uint8(x0 * 300), np.where(images < 128, 0, 255))  # clipped


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64", "bool"])
def test_values_to_x0_and_back(dtype):
    images = images_of(dtype, (1, 8, 8))
    values = ValueRange(*range_of(images)) if np.dtype(dtype).kind != "f" else ValueRange(0, 1)
    back = values.to_images(values.to_x0(images), images)
    assert back.dtype == images.dtype
    tolerance = 1 / 250 if dtype == "float16" else 1e-6 if "f" in dtype else 0
    np.testing.assert_allclose(back.astype(float), images.astype(float), atol=tolerance)


def test_values_are_clipped_to_the_dtype():
    assert ValueRange(0, 300).to_images(torch.ones(1, 1, 2, 2)).max() == 255  # without wrapping round
    assert ValueRange(-2, 255, 4).to_images(-torch.ones(1, 1, 2, 2)).max() == 0
    long = ValueRange(0, 2.0**63).to_images(torch.ones(1, 1, 2, 2), np.zeros((1, 2, 2), np.int64))
    assert long.min() > 2**62


def test_large_values_keep_their_precision():
    images = 1e8 + 10 * np.random.default_rng(0).random((1, 28, 28))
    values = ValueRange(1e8, 1e8 + 10)
    np.testing.assert_allclose(values.to_images(values.to_x0(images), images), images, atol=1e-5, rtol=0)


def test_images_from_arrays_tensors_pillow_images_and_lists():
    images = np.stack([GREY, 255 - GREY])
    for given in (
        torch.from_numpy(images),
        torch.from_numpy(images)[:, None],
        list(images),
        [images[:1], images[1:]],
        [Image.fromarray(image) for image in images],
        [Image.fromarray(images[0]), torch.from_numpy(images[1])],
        images.tolist(),
    ):
        np.testing.assert_array_equal(data.as_images(given), images)
    np.testing.assert_array_equal(data.as_images(Image.fromarray(GREY)), GREY[None])
    must_refuse(lambda: data.as_images([]), "empty")
    must_refuse(lambda: data.as_images([GREY, GREY[:, :20]]), "use one size")
    must_refuse(lambda: data.as_images(Image.fromarray(GREY).convert("HSV")), "HSV")
    must_refuse(lambda: data.as_images("words"), "not supported")
    must_refuse(lambda: data.as_images([[1, 2], [3]]), "not an array of images")


def test_arrays_that_are_no_images_are_refused():
    for shape, word in (((2, 3, 28, 28), "moveaxis"), ((2, 28, 28, 33), "at most 32"), ((2, 2, 2, 28, 28), "at most")):
        must_refuse(lambda shape=shape: data.as_images(np.zeros(shape, np.uint8)), word)
