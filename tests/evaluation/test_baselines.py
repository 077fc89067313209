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


def cropped(name, *arrays):
    """A corner of the images for the baseline that takes a second for a hundred values."""
    return [x[:, 8:13, 10:14] if name == "iterative-imputer" else x for x in arrays]


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("by_channel", [False, True])
def test_every_baseline_returns_observed_pixels_and_never_reads_masked_ones(digits, name, by_channel):
    """With one mask for an image, and with one for each of two channels."""
    everything, mask = digits[:40], parse("half:random").draw(3, 28, 28, stream(0))
    if by_channel:
        everything, mask = np.stack([everything, 255 - everything], -1), np.stack([mask, mask[::-1]], -1)
    everything, mask = cropped(name, everything, mask)
    images, train_images = everything[:3], everything[3:]
    garbage = np.where(mask, 255 - images, images)
    filled = BASELINES[name](train_images, images, mask, 4, stream(1))
    assert filled.shape == (3, 4, *images.shape[1:])
    known = np.broadcast_to(~mask[:, None], filled.shape)
    np.testing.assert_array_equal(filled[known], np.repeat(images[:, None], 4, 1)[known])
    np.testing.assert_array_equal(filled, BASELINES[name](train_images, garbage, mask, 4, stream(1)))


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
    for name in ("telea", "navier-stokes"):
        bytes_, again = (BASELINES[name](x, x, mask, 1, stream(0)) for x in (ramp[None], floats))
        assert again.dtype == np.float32
        assert np.abs(again * 255 - bytes_).max() < 6, name  # grey levels
    with pytest.raises(InputError, match="no float64 images, but uint8, uint16, float32"):
        BASELINES["telea"](floats.astype(float), floats.astype(float), mask, 1, stream(0))
    whole = np.ones((1, 20, 20), bool)
    assert BASELINES["biharmonic"](ramp[None], ramp[None], whole, 1, stream(0)).max() == 0
    packages = {
        "telea": ("cv2", "opencv-python-headless"),
        "biharmonic": ("skimage.restoration", "scikit-image"),
        "linear": ("scipy.interpolate", "scipy"),
        "kriging": ("sklearn.gaussian_process", "scikit-learn"),
        "iterative-imputer": ("sklearn.impute", "scikit-learn"),
    }
    for name, (module, package) in packages.items():
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(InputError, match=f"pip install {package}"):
            BASELINES[name](ramp[None], ramp[None], mask, 1, stream(0))


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
        if name in ("telea", "navier-stokes") and dtype == "bool":
            continue
        given, hole = (images[:, :3, 4:8], mask[:, :3, 4:8]) if name == "iterative-imputer" else (images, mask)
        filled = baseline(given, given, hole, 2, stream(0))
        assert filled.dtype == images.dtype, name
        assert filled.shape == (20, 2, *given.shape[1:]), name
        assert (
            filled[~np.repeat(hole[:, None], 2, 1)] == np.repeat(given[:, None], 2, 1)[~hole[:, None].repeat(2, 1)]
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


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize(("dtype", "value"), [("uint8", 128), ("float32", 1013.25), ("int16", -40), ("bool", True)])
def test_a_constant_is_continued(name, dtype, value):
    """In any unit; the iterative imputer draws with the least deviation that it knows."""
    if name in ("telea", "navier-stokes") and dtype not in ("uint8", "float32"):
        return
    images, mask = cropped(name, np.full((12, 16, 16), value, dtype), parse("box:6").draw(12, 16, 16, stream(0)))
    filled = BASELINES[name](images, images, mask, 2, stream(0))
    np.testing.assert_allclose(filled.astype(float), float(value), rtol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_linear_interpolation_is_exact_on_a_ramp(dtype):
    """Inside the hull of the observed pixels; outside it and without a triangle, the nearest pixel."""
    y, x = np.indices((12, 15))
    ramp = (1000 + 3 * x - 2 * y).astype(dtype)[None]
    mask = stream(0).random(ramp.shape) < 0.7
    mask[:, [0, 0, -1, -1], [0, -1, 0, -1]] = False
    filled = BASELINES["linear"](ramp, ramp, mask, 1, stream(0))[:, 0]
    np.testing.assert_allclose(filled, ramp, rtol=1e-6)
    half = parse("half:left").draw(1, 12, 15, stream(0))
    expected = np.where(half, ramp[:, :, half[0, 0].sum()][..., None], ramp)
    for name in ("linear", "nearest-pixel"):
        np.testing.assert_array_equal(BASELINES[name](ramp, ramp, half, 1, stream(0))[:, 0], expected)
    line = np.ones(ramp.shape, bool)
    line[0, 4, [2, 9]] = False
    filled = BASELINES["linear"](ramp, ramp, line, 1, stream(0))[0, 0]
    assert set(np.unique(filled)) == {ramp[0, 4, 2], ramp[0, 4, 9]}
    assert filled[11, 0] == ramp[0, 4, 2]


def test_biharmonic_interpolation_is_exact_on_a_ramp_in_any_unit():
    ramp = np.broadcast_to(np.linspace(-3e4, 2e4, 20), (1, 20, 20)).astype(np.float32)
    mask = parse("box:6").draw(1, 20, 20, stream(0))
    filled = BASELINES["biharmonic"](ramp, ramp, mask, 1, stream(0))[:, 0]
    np.testing.assert_allclose(filled, ramp, atol=5)  # of 50,000


def fields(covariance, n, rng, channels=1):
    """Gaussian fields of mean 50, ``[n, 10, 10]``, and a covariance of their pixels."""
    root = np.linalg.cholesky(covariance)
    return 50 + (rng.standard_normal((n, len(root))) @ root.T).reshape(n, 10, 10)


def test_kriging_is_the_conditional_distribution_of_a_gaussian_field():
    """40 fields of a known covariance, half of each missing; K = 64.

    Its mean is off by sampling and by the fitted covariance: under a fifth of the conditional deviation; standard
    deviations within 5 %.
    """
    rng, y, x = np.random.default_rng(0), *np.indices((10, 10)).reshape(2, -1)
    apart = np.hypot(y[:, None] - y, x[:, None] - x) * 3**0.5 / 3.0
    covariance = 4 * (1 + apart) * np.exp(-apart) + 0.04 * np.eye(100)  # Matern 3/2 of length 3, and a nugget
    train_fields, truth = fields(covariance, 300, rng), fields(covariance, 40, rng)
    mask = rng.random(truth.shape) < 0.5
    filled = BASELINES["kriging"](train_fields, truth, mask, 64, rng)
    off, ratio, outside = [], [], []
    for field, hole, samples in zip(
        truth.reshape(40, -1), mask.reshape(40, -1), filled.reshape(40, 64, -1), strict=True
    ):
        gain = np.linalg.solve(covariance[np.ix_(~hole, ~hole)], covariance[np.ix_(~hole, hole)])
        mean = 50 + (field[~hole] - 50) @ gain
        deviation = np.sqrt(np.diag(covariance[np.ix_(hole, hole)] - covariance[np.ix_(hole, ~hole)] @ gain))
        off.append((samples[:, hole].mean(0) - mean) / deviation)
        ratio.append(samples[:, hole].std(0) / deviation)
        outside.append((field[hole] - mean) / deviation)
    assert np.concatenate(outside).std() == pytest.approx(1, abs=0.1)  # the closed form itself
    assert np.sqrt((np.concatenate(off) ** 2).mean()) < 0.2  # 1/8 by sampling alone
    assert np.concatenate(ratio).mean() == pytest.approx(1, abs=0.05)


def test_kriging_without_an_observed_pixel_draws_from_the_process():
    rng = np.random.default_rng(0)
    covariance = 0.3 * np.exp(-np.abs(np.subtract.outer(np.arange(100), np.arange(100))))
    train_fields = fields(covariance, 100, rng)
    filled = BASELINES["kriging"](train_fields, train_fields[:2], np.ones((2, 10, 10), bool), 50, rng)
    assert filled.mean() == pytest.approx(50, abs=0.1)
    assert filled.std() == pytest.approx(train_fields.std(), rel=0.15)


def test_the_iterative_imputer_finds_a_linear_relation():
    """Each image is a multiple of one template: any observed pixel tells the others."""
    rng = np.random.default_rng(0)
    template = rng.uniform(0.5, 2, (5, 6))
    images = template * rng.normal(3, 1, (200, 1, 1)) + rng.normal(0, 1e-3, (200, 5, 6))
    mask = rng.random((10, 5, 6)) < 0.3
    filled = BASELINES["iterative-imputer"](images[10:], images[:10], mask, 3, stream(0))
    hidden = np.repeat(mask[:, None], 3, 1)
    assert np.abs(filled - images[:10, None])[hidden].mean() < 0.05 * images.std()


def test_large_images_are_left_to_other_baselines():
    big = np.zeros((1, 70, 70), np.uint8)
    for name, words in (("kriging", "4096 pixels"), ("iterative-imputer", "at most 1024")):
        with pytest.raises(InputError, match=words):
            BASELINES[name](big, big, big > 0, 1, stream(0))
    colour = np.zeros((1, 8, 8, 3), np.uint8)
    with pytest.raises(InputError, match="different channels"):
        BASELINES["kriging"](np.zeros((5, 8, 8), np.uint8), colour, np.ones((1, 8, 8), bool), 1, stream(0))
