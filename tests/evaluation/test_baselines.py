"""Baselines: observed pixels, independence from masked pixels, and their values."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers import TINY
from inkfill.core.masks import parse
from inkfill.core.rng import stream
from inkfill.errors import InputError
from inkfill.evaluation.baselines import BASELINES, empirical, mean_image, nearest, regress
from inkfill.evaluation.cells import Cell, complete
from inkfill.filling.inpaint import inpaint
from inkfill.models.model import Model, load
from inkfill.training.config import TrainConfig
from inkfill.training.run import train


def test_every_baseline_returns_observed_pixels_and_never_reads_masked_ones(digits):
    images, train_images = digits[:3], digits[3:40]
    mask = parse("half:random").draw(3, 28, 28, stream(0))
    garbage = np.where(mask, 255 - images, images)
    for baseline in BASELINES.values():
        filled = baseline(train_images, images, mask, 4, stream(1))
        assert filled.shape == (3, 4, 28, 28)
        known = np.broadcast_to(~mask[:, None], filled.shape)
        np.testing.assert_array_equal(filled[known], np.repeat(images[:, None], 4, 1)[known])
        np.testing.assert_array_equal(filled, baseline(train_images, garbage, mask, 4, stream(1)))


def test_smooth_fills_continue_the_observed_pixels(monkeypatch):
    """A ramp with a hole, grey and colour: biharmonic continues it, OpenCV fills with nearby values."""
    ramp = np.broadcast_to(np.arange(10, 210, 10, dtype=np.uint8)[None, :], (20, 20))
    for images in (ramp[None], np.stack([ramp, ramp.T, 255 - ramp], -1)[None]):
        mask = np.zeros((1, 20, 20), bool)
        mask[:, 8:12, 8:12] = True
        for name, tolerance in (("biharmonic", 2), ("telea", 40), ("navier-stokes", 40)):
            filled = BASELINES[name](images, images, mask, 2, stream(0))
            assert filled.shape == (1, 2, *images.shape[1:])
            assert np.abs(filled.astype(int) - images[:, None]).max() <= tolerance, name
    floats = (ramp / 255).astype(np.float32)[None]
    filled = BASELINES["biharmonic"](floats, floats, mask, 1, stream(0))
    assert filled.dtype == np.float32
    assert np.abs(filled - floats[:, None]).max() < 0.01
    assert BASELINES["telea"](floats, floats, mask, 1, stream(0)).dtype == np.float32
    with pytest.raises(InputError, match="float64 images of 1 channels"):
        BASELINES["telea"](floats.astype(float), floats.astype(float), mask, 1, stream(0))
    whole = np.ones((1, 20, 20), bool)
    assert BASELINES["biharmonic"](ramp[None], ramp[None], whole, 1, stream(0)).max() == 0
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match="pip install opencv-python-headless"):
        BASELINES["telea"](ramp[None], ramp[None], mask, 1, stream(0))


def test_the_mean_and_the_nearest_training_images(digits):
    train_images = digits[:30]
    mask = parse("half:left").draw(2, 28, 28, stream(0))
    assert (
        mean_image(train_images, digits[30:32], mask, 2, stream(0))[:, 0][mask]
        == np.repeat(train_images.mean(0).round().astype(np.uint8)[None], 2, 0)[mask]
    ).all()
    # A masked training image is its own nearest neighbour, and its own posterior.
    for baseline in (nearest, empirical):
        np.testing.assert_array_equal(
            baseline(train_images, train_images[:2], mask, 1, stream(0))[:, 0], train_images[:2]
        )


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "bool"])
@pytest.mark.parametrize("channels", [(), (3,), (4,)])
def test_baselines_support_every_dtype_and_channel(dtype, channels):
    """Observed pixels bit for bit; a training image is its own nearest neighbour."""
    values = stream(0, "types").random((20, 9, 12, *channels))
    scale = np.iinfo(dtype).max if dtype.startswith("uint") else 1
    images = values > 0.5 if dtype == "bool" else (values * scale).astype(dtype)
    mask = parse("half:left").draw(20, 9, 12, stream(0))
    for name, baseline in BASELINES.items():
        if name in ("telea", "navier-stokes", "biharmonic") and (dtype != "uint8" or channels == (4,)):
            continue
        filled = baseline(images, images, mask, 2, stream(0))
        assert filled.dtype == images.dtype, name
        assert filled.shape == (20, 2, 9, 12, *channels), name
        assert (
            filled[~np.repeat(mask[:, None], 2, 1)] == np.repeat(images[:, None], 2, 1)[~mask[:, None].repeat(2, 1)]
        ).all()
        if name == "nearest":
            assert (filled[:, 0] == images).all()


def test_regression_returns_one_image(tmp_path, model, digits):
    config = TrainConfig(data="rendered", objective="regression", steps=2, batch_size=8, unet=TINY, dtype="float32")
    train(config, tmp_path, quiet=True)
    network = load(tmp_path / "model.safetensors", dtype=torch.float32)
    mask = parse("box:10").draw(2, 28, 28, stream(0))
    filled = regress(network, digits[:2], mask)
    assert filled.shape == (2, 1, 28, 28)
    np.testing.assert_array_equal(filled, regress(network, np.where(mask, 255, digits[:2]).astype(np.uint8), mask))
    done = complete(model, digits[:2], Cell("box:10", "regression", samples=8), regression=network)
    assert done.filled.shape == (2, 1, 28, 28)
    assert done.evaluations == 1
    with pytest.raises(InputError, match="objective regression"):
        inpaint(network, digits[:2], mask)
    with pytest.raises(InputError, match="objective v"):
        regress(model, digits[:2], mask)


def test_regression_in_a_data_range_far_from_zero(model, digits):
    """A shifted data range shifts the values."""
    high = Model(model.net, replace(model.recipe, objective="regression", value_range=(1000.0, 1255.0)))
    plain = Model(model.net, replace(model.recipe, objective="regression"))
    images, mask = digits[:2].astype(np.int32), parse("half:left").draw(2, 28, 28, stream(0))
    moved = regress(high, images + 1000, mask)
    assert moved.max() > 1000
    np.testing.assert_allclose(moved - 1000, regress(plain, images, mask), atol=1)


def test_training_images_of_another_size_are_refused(digits):
    mask = np.ones((1, 12, 12), bool)
    for name in ("mean", "nearest", "empirical"):
        with pytest.raises(InputError, match="28x28 do not fit images of 12x12"):
            BASELINES[name](digits, np.zeros((1, 12, 12), np.uint8), mask, 1, stream(0))
