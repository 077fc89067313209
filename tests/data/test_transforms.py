"""Values over several decades: log1p and asinh, in the data range, the recipe, training and filling."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers import model_of, must_refuse, observed_alike, refused, run
from inkfill import data
from inkfill.data.images import ValueRange, as_bytes, has_units
from inkfill.filling.inpaint import inpaint
from inkfill.models.export import write_diffusers, write_onnx
from inkfill.models.model import Model, Recipe, load
from inkfill.training.config import TrainConfig
from inkfill.training.recipe import data_range
from inkfill.web.page import page


def counts(dtype: str, shape=(20, 16, 16), seed: int = 0) -> np.ndarray:
    """Counts of 1 to 1e5, as many in each decade."""
    return (10 ** np.random.default_rng(seed).uniform(0, np.log10(60_000), shape)).astype(dtype)


def counting(dtype: str, transform: str = "log1p") -> Model:
    model = model_of(1, (16, 16), number_type=dtype, value_range=(0.0, 60_000.0))
    return Model(model.net, replace(model.recipe, transform=transform), dtype=model.dtype)


@pytest.mark.parametrize("transform", ["log1p", "asinh"])
@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32", "float64"])
def test_values_to_x0_and_back(dtype, transform):
    low = -60_000 if transform == "asinh" and dtype != "uint16" else 0
    values = ValueRange(low, 60_000, transform=transform)
    images = counts(dtype)
    images = np.concatenate([images, -images]) if low else images
    images[0, 0, :2] = low, 60_000
    x0 = values.to_x0(images)
    assert x0.dtype == torch.float32
    assert (x0.min(), x0.max()) == (-1, 1)
    back = values.to_images(x0, images)
    assert back.dtype == images.dtype
    if np.dtype(dtype).kind in "iu":
        np.testing.assert_array_equal(back, images)
    else:
        np.testing.assert_allclose(back, images, rtol=1e-5)
    order = images[0].ravel().argsort()
    assert (np.diff(x0[0, 0].flatten().numpy()[order]) >= 0).all()


def test_small_counts_are_told_apart():
    """Linearly, half of these values lie within 0.01 of -1."""
    images = counts("float32")
    assert np.median(ValueRange(0, 60_000).to_x0(images)) < -0.98
    assert abs(np.median(ValueRange(0, 60_000, transform="log1p").to_x0(images))) < 0.2


def test_extreme_predictions_are_clipped_quietly():
    values, like = ValueRange(0, 60_000, transform="asinh"), np.zeros((1, 8, 8), np.uint16)
    with warnings.catch_warnings(action="error"):
        assert (values.to_images(torch.full((1, 1, 8, 8), 1e4), like) == 60_000).all()
        assert (values.to_images(torch.full((1, 1, 8, 8), -1e4), like) == 0).all()


def test_a_picture_shows_transformed_values():
    shown = as_bytes(np.array([[[0, 244, 60_000, np.nan, -5]]], np.float32), ValueRange(0, 60_000, transform="log1p"))
    np.testing.assert_array_equal(shown[0, 0], [0, 128, 255, 0, 0])


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_observed_values_come_back_bit_for_bit(dtype):
    images, hole = counts(dtype, (2, 16, 16)), np.random.default_rng(1).random((2, 16, 16)) < 0.4
    missing = images.copy()
    missing[hole] = 65_535 if dtype == "uint16" else -3.4e38
    with warnings.catch_warnings(action="error"):
        found = inpaint(counting(dtype), missing, hole, 2, steps=2)
    assert observed_alike(found, images, hole)
    assert found[:, 0][hole].max() <= 60_000
    np.testing.assert_array_equal(found, np.where(hole[:, None], found, images[:, None]))


def test_a_recipe_has_the_transform_and_an_old_one_has_none():
    assert Recipe.read(Recipe(transform="asinh").to_json()).transform == "asinh"
    old = {name: value for name, value in Recipe().to_json().items() if name != "transform"}
    assert Recipe.read(old).transform == ""
    assert counting("uint16").value_range == ValueRange(0, 60_000, 0, "log1p")
    for bad in ({"transform": "sqrt"}, {"transform": "log1p", "value_range": [-1, 1]}):
        must_refuse(lambda bad=bad: Recipe.read({**old, **bad}), "the recipe's", "cannot be")


def test_training_takes_a_transform(tmp_path, capsys):
    images, out = tmp_path / "x.npy", tmp_path / "run"
    np.save(images, counts("float32"))
    words = ["--data", images, "--transform", "log1p", "--steps", 2, "--batch-size", 4, "--validate-every", 1]
    assert run("train", *words, "--out", out) == 0
    assert "by log1p" in capsys.readouterr().out
    assert load(out).recipe.transform == "log1p"
    rest = ["--checkpoint", out, "--steps", 1, "--samples", 2, "--out", tmp_path / "o.npy"]
    assert run("inpaint", images, "--mask", "box:6", *rest, "--sheet", tmp_path / "s.png") == 0
    found = np.load(tmp_path / "o.npy")
    assert load(out).recipe.value_range[0] * 0.99 <= found.min() <= found.max() <= 60_000
    assert run("evaluate", "--data", images, "--mask", "box:6", *rest[:-2]) == 0
    capsys.readouterr()
    refused(
        capsys, "inpaint", images, "--mask", "box:6", *rest[:-1], tmp_path / "p.npy", "--range", 0, 1, says=["log1p"]
    )


def test_values_that_log1p_does_not_take_are_refused():
    images = counts("float32") - 5
    dataset = data.Dataset("x", images, images, images, {})
    must_refuse(lambda: data_range(TrainConfig(transform="log1p"), dataset), "log1p", "asinh")
    assert data_range(TrainConfig(transform="asinh"), dataset).transform == "asinh"
    must_refuse(lambda: inpaint(counting("float32"), images, "box:4", 1, steps=1), "log1p", "at least 0")
    must_refuse(lambda: TrainConfig(transform="sqrt").check(), "transform", "log1p", "asinh")


def test_what_cannot_keep_a_transform_is_refused(tmp_path):
    model = counting("uint16")
    for write in (lambda: write_onnx(model, tmp_path / "o"), lambda: write_diffusers(model, tmp_path / "o")):
        must_refuse(write, "--transform log1p")
    must_refuse(lambda: page(model), "log1p")
    how = {"observation_noise": 3.0, "method": "mmps", "steps": 1}
    must_refuse(lambda: inpaint(model, counts("uint16", (1, 16, 16)), "box:4", 1, **how), "observation_noise", "log1p")
    assert not (tmp_path / "o").exists()


def test_other_dtypes_have_the_same_units():
    """The same counts give the same samples, whatever they are stored in."""
    assert has_units(ValueRange(0, 65_535, transform="log1p"), "uint16")
    images = counts("uint16", (1, 16, 16))
    one = inpaint(counting("uint16"), images, "box:8", 1, steps=1)
    for dtype in ("int32", "float64"):
        two = inpaint(counting("uint16"), images.astype(dtype), "box:8", 1, steps=1)
        np.testing.assert_allclose(two, one, atol=1)
