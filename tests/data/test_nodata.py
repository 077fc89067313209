"""Values that mean missing (nodata): as a mask, in filling and in training."""

import warnings

import numpy as np
import pytest

from helpers import model_of, must_refuse, observed_alike, refused, run, saved
from inkfill import data
from inkfill.data import masks
from inkfill.data.images import ValueRange, nodata_words, range_of
from inkfill.filling.inpaint import inpaint
from inkfill.models.model import load
from inkfill.training.config import TrainConfig
from inkfill.training.recipe import data_range

HOLE = np.random.default_rng(1).random((12, 16, 16)) < 0.3
LOWEST = {"int16": -32768, "uint16": 0, "int64": -(2**63), "float32": -3.4028235e38, "float64": -9999.5}


def heights(dtype: str, nodata: float, hole: np.ndarray = HOLE) -> np.ndarray:
    """Images of values from 100 to 200, ``nodata`` where they are missing."""
    images = np.random.default_rng(0).integers(100, 201, hole.shape).astype(dtype)
    images[hole] = nodata
    return images


@pytest.mark.parametrize("dtype", LOWEST)
def test_a_value_marks_what_is_missing(dtype):
    nodata = LOWEST[dtype]
    images = heights(dtype, nodata)
    np.testing.assert_array_equal(masks.fit(f"value:{nodata}", images), HOLE)
    images[0, 0, 0] = 250
    both = HOLE.copy()
    both[0, 0, 0] = True
    np.testing.assert_array_equal(masks.fit(f"value:{nodata},250", images), both)


def test_nan_may_be_among_the_values():
    images = heights("float32", np.nan)
    images[0, 0, 0] = -1
    both = HOLE.copy()
    both[0, 0, 0] = True
    np.testing.assert_array_equal(masks.fit("value:-1,nan", images), both)


@pytest.mark.parametrize("number", ["-1", "1e30", "99999999999999999999", "9" * 400, "nan"])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint64", "float16"])
def test_numbers_that_a_dtype_does_not_hold_are_nowhere(dtype, number):
    with warnings.catch_warnings(action="error"):
        assert not masks.fit(f"value:{number}", np.full((1, 8, 8), 1, dtype)).any()


def test_bad_numbers_and_values_that_do_not_occur_are_refused():
    for text in ("value:", "value:x", "value:1,,2", "value:²"):
        must_refuse(lambda text=text: masks.read_mask(text), text, "not a number")
    model = model_of(1, (16, 16), number_type="int16", value_range=(100, 200))
    must_refuse(lambda: inpaint(model, heights("int16", 0), "value:-7", 1, steps=1), "value:-7", "no value")


@pytest.mark.parametrize("dtype", LOWEST)
def test_missing_values_are_filled_and_never_read(dtype):
    model = model_of(1, (16, 16), number_type=dtype, value_range=(100, 200))
    first, second = heights(dtype, LOWEST[dtype]), heights(dtype, 99)
    with warnings.catch_warnings(action="error"):
        filled = inpaint(model, first, f"value:{LOWEST[dtype]}", 2, steps=2)
    assert observed_alike(filled, first, HOLE)
    assert 100 <= filled.min() <= filled.max() <= 200
    np.testing.assert_array_equal(filled, inpaint(model, second, "value:99", 2, steps=2))


def test_a_value_beyond_float32_in_units_of_the_data_range_is_quiet():
    images = np.where(HOLE[:2], np.float32(-3.4028235e38), np.float32(0.5))
    with warnings.catch_warnings(action="error"):
        inpaint(model_of(1, (16, 16)), images, "value:-3.4028235e38", 1, steps=1, value_range=(0, 1))


def test_other_bands_come_back():
    images = np.random.default_rng(0).integers(100, 201, (2, 16, 16, 3)).astype(np.int16)
    images[0, 4:8, 4:8, 1] = -1
    model = model_of(3, (16, 16), number_type="int16", value_range=(100, 200))
    filled = inpaint(model, images, "value:-1", 1, steps=1)[:, 0]
    np.testing.assert_array_equal(filled[images != -1], images[images != -1])
    assert filled.min() >= 100


def test_the_value_is_in_no_data_range_and_no_statistics(tmp_path):
    np.save(tmp_path / "x.npy", heights("int16", -32768))
    dataset = data.load(str(tmp_path / "x.npy"), "value:-32768")
    values = data_range(TrainConfig(), dataset)
    assert 100 <= values.low < values.high <= 200
    assert min(dataset.split(split).min() for split in ("train", "validation", "test")) >= 100


def test_train_evaluate_and_inpaint_take_a_value(tmp_path, capsys):
    images, out = tmp_path / "x.npy", tmp_path / "run"
    np.save(images, heights("int16", -32768))
    words = ["--data", images, "--data-mask", "value:-32768"]
    assert run("train", *words, "--steps", 1, "--batch-size", 2, "--rounds", 1, "--out", out) == 0
    assert load(out).recipe.value_range[0] >= 100
    how = ["--checkpoint", out, "--steps", 1, "--samples", 1]
    assert run("evaluate", *words, "--mask", "half:left", *how) == 0
    assert run("inpaint", images, "--mask", "value:-32768", *how, "--out", tmp_path / "o.npy") == 0
    assert observed_alike(np.load(tmp_path / "o.npy"), np.load(images), HOLE)
    capsys.readouterr()
    refused(capsys, "inpaint", images, "--mask", "value:-7", *how, "--out", tmp_path / "p.npy", says=["value:-7"])
    for text in ("value:-7", "value:x"):
        must_refuse(lambda text=text: data.load(str(images), text), text)
    assert not (tmp_path / "p.npy").exists()


def test_a_report_of_extreme_values_is_quiet(tmp_path, capsys):
    np.save(tmp_path / "x.npy", heights("float32", -3.4028235e38)[:2])
    path = saved(model_of(1, (16, 16), number_type="float32", value_range=(100, 200)), tmp_path / "w.safetensors")
    words = ["--mask", "value:-3.4028235e38", "--checkpoint", path, "--steps", 1, "--samples", 2]
    with warnings.catch_warnings(action="error"):
        assert run("inpaint", tmp_path / "x.npy", *words, "--report", tmp_path / "report") == 0


# ---- remarks: a forgotten value, and a range that is a small part of the dtype's -----------------------------------


@pytest.mark.parametrize(("dtype", "nodata"), [("int16", -32768), ("uint16", 65535), ("float32", -9999.5)])
def test_a_value_far_from_all_others_is_named(dtype, nodata):
    assert f"--mask value:{nodata}" in nodata_words(heights(dtype, nodata), "--mask")


@pytest.mark.parametrize(
    "values",
    [
        np.array([0, 0, 255, 254, 253], np.uint8),  # ink
        np.array([0, 0, 1, 1], np.int16),  # two values
        np.array([100, 150, 200, 200], np.int16),
        np.array([1, 2, 3, 4, 1e5], np.float32),  # one pixel: an outlier
        np.array([0, 0, 400, 4400], np.uint16),
        np.array([7, 7, 7], np.int32),
        np.array([], np.int32),
    ],
)
def test_other_values_are_not(values):
    assert not nodata_words(values, "--mask")


def test_training_and_filling_remark_on_a_forgotten_value(caplog):
    images = heights("int16", -32768)
    dataset = data.Dataset("x", images, images, images, {})
    assert data_range(TrainConfig(), dataset).low == -32768
    assert "--data-mask value:-32768" in caplog.text
    model = model_of(1, (16, 16), number_type="int16", value_range=(100, 200))
    inpaint(model, images, "box:4", 1, steps=1)
    assert "leave the data range 100 to 200" in caplog.text
    assert "--mask value:-32768" in caplog.text


def test_a_small_part_of_a_dtype_is_the_data_range_with_a_remark(caplog):
    depth = np.random.default_rng(0).integers(0, 4401, (20, 16, 16)).astype(np.uint16)
    dataset = data.Dataset("x", depth, depth, depth, {})
    assert data_range(TrainConfig(), dataset) == ValueRange(depth.min(), depth.max())
    assert "of the range of uint16" in caplog.text
    assert "--range 0 65535" in caplog.text
    assert data_range(TrainConfig(low=0, high=65535), dataset).high == 65535
    labels = np.where(depth < 4000, 0, depth % 10).astype(np.uint8)  # mostly 0, as ink
    assert data_range(TrainConfig(), data.Dataset("x", labels, labels, labels, {})) == ValueRange(0, 9)  # without floor


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (np.array([0, 65535 // 2], np.uint16), (0, 65535)),
        (np.zeros(2, np.uint8), (0, 255)),
        (np.array([False, True]), (0, 1)),
        (np.array([5, 6], np.int32), (5, 6)),
    ],
)
def test_the_data_range_of_other_images_is_that_of_their_dtype(images, expected):
    assert range_of(images) == expected
