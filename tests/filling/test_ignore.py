"""Unknown values that are not to be filled, and numbers of samples that go on."""

import numpy as np
import pytest

from helpers import images_of, model_of, must_refuse, refused, run, saved
from inkfill.core.fill import most_central
from inkfill.filling.inpaint import inpaint

FILL, LEAVE = np.zeros((2, 12, 12), bool), np.zeros((2, 12, 12), bool)
FILL[:, 3:7, 3:9] = True
LEAVE[:, 6:10, 6:12] = True


def filled(images, mask, ignore, model=None, **how):
    return inpaint(model or model_of(1, (12, 12), number_type="float32", value_range=(0, 1)), images, mask, 2, steps=2,
                   ignore=ignore, **how)  # fmt: skip


@pytest.mark.parametrize("dtype", ["uint8", ">i2", "float32"])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_ignored_values_come_back_and_are_never_read(dtype, noise):
    images = (images_of("uint8", (2, 12, 12)) % 100).astype(dtype)
    other = images.copy()
    other[LEAVE] = 117 if dtype != "float32" else np.nan
    model = model_of(1, (12, 12), number_type=np.dtype(dtype).name, value_range=(0, 100))
    how = {"observation_noise": noise, "method": "mmps"} if noise else {}
    one, two = (filled(x, FILL, LEAVE, model, **how) for x in (images, other))
    for found, given in ((one, images), (two, other)):
        assert found.dtype == given.dtype
        assert found[:, 0][LEAVE].tobytes() == given[LEAVE].tobytes()
        assert found[:, 1][LEAVE].tobytes() == given[LEAVE].tobytes()
    np.testing.assert_array_equal(one[:, :, ~LEAVE[0]], two[:, :, ~LEAVE[0]])
    hole = FILL & ~LEAVE
    assert (one[:, 0][hole] != images[hole]).any()


def test_gaps_that_are_no_part_of_the_mask_stay(tmp_path):
    """Some NaN are filled, others stay NaN: by a region and ``ignore="nan"``, or by "nan" and a region to ignore."""
    images = images_of("float32", (2, 12, 12))
    images[FILL | LEAVE] = np.nan
    region = filled(images, FILL, "nan")
    np.testing.assert_array_equal(np.isnan(region[:, 0]), LEAVE & ~FILL)
    rest = filled(images, "nan", LEAVE & ~FILL)
    np.testing.assert_array_equal(region, rest)
    np.testing.assert_array_equal(np.isnan(filled(images, None, LEAVE)[:, 0]), LEAVE)
    must_refuse(lambda: filled(images, FILL, None), "NaN or infinite values outside the mask")
    must_refuse(lambda: filled(images, "nan", "all"), "nothing to fill")


def test_values_to_fill_and_values_to_ignore():
    images = images_of("float32", (2, 12, 12))
    images[FILL], images[LEAVE] = -1, -2
    found = filled(images, "value:-1", "value:-2")
    assert (found[:, 0][LEAVE] == -2).all()
    assert found[:, 0][~LEAVE].min() >= 0


def test_images_of_several_sizes_channels_and_masked_arrays():
    images = [images_of("float32", (12, 12)), images_of("float32", (12, 10))]
    ignored = [LEAVE[0], LEAVE[0, :, :10]]
    for image, ignore, found in zip(images, ignored, filled(images, "box:8", ignored), strict=True):
        assert (found[:, ignore] == image[ignore]).all()
        assert (found[0] != image).any()
    colour = images_of("float32", (2, 12, 12, 3))
    colour[LEAVE] = np.nan
    found = filled(colour, FILL, LEAVE, model_of(3, (12, 12), number_type="float32", value_range=(0, 1)))
    assert np.isnan(found[:, 0][LEAVE]).all()
    assert np.isfinite(found[:, 0][~LEAVE]).all()
    masked = np.ma.MaskedArray(images_of("float32", (2, 12, 12)), FILL)
    np.testing.assert_array_equal(filled(masked, None, LEAVE), filled(masked.data, FILL, LEAVE))


def test_large_images_are_filled_where_they_must_be():
    """No window is spent on ignored pixels alone."""
    images, mask, ignored = images_of("float32", (1, 40, 40)), np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    mask[2:6, 2:6], ignored[4:, :] = True, True
    images[0][ignored] = np.nan
    spent = []
    found = filled(images, mask, ignored, count=spent.append)[0, 0]
    np.testing.assert_array_equal(np.isnan(found), ignored)
    assert sum(spent) == 2 * 2  # one window: two samples, two steps


def test_the_command_ignores_too(tmp_path, capsys):
    images = images_of("float32", (2, 12, 12))
    images[LEAVE] = np.nan
    path = saved(model_of(1, (12, 12), number_type="float32", value_range=(0, 1)), tmp_path / "w.safetensors")
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "m.npy", FILL)
    words = ["inpaint", tmp_path / "x.npy", "--checkpoint", path, "--steps", 2, "--samples", 3, "--dtype", "float32"]
    for keep in ("all", "mean", "central"):
        out = tmp_path / f"{keep}.npy"
        rest = ["--mask", tmp_path / "m.npy", "--ignore", "nan", "--keep", keep, "--out", out, "--sheet"]
        assert run(*words, *rest, tmp_path / f"{keep}.png") == 0
        found = np.load(out)
        for sample in np.moveaxis(found, 1, 0):
            outside = ~FILL
            assert sample[outside].tobytes() == images[outside].tobytes()
            assert np.isfinite(sample[FILL]).all()
    kept, central = np.load(tmp_path / "all.npy"), np.load(tmp_path / "central.npy")
    nearest = inpaint(model_of(1, (12, 12), number_type="float32", value_range=(0, 1)), images, FILL, 3, steps=2,
                      ignore="nan")  # fmt: skip
    np.testing.assert_allclose(kept, nearest, atol=1e-6)
    index = most_central(kept[:, :, FILL[0]])
    assert index.any()  # not the first of both images
    np.testing.assert_array_equal(central[:, 0], kept[np.arange(2), index])
    capsys.readouterr()
    refused(capsys, *words, "--mask", tmp_path / "m.npy", "--out", tmp_path / "q.npy", says=["NaN", "outside the mask"])
    refused(capsys, *words, "--mask", "nan", "--ignore", "nosuch", "--out", tmp_path / "q.npy", says=["nosuch"])


def test_samples_go_on_from_the_first():
    images = images_of("float32", (2, 12, 12))
    model = model_of(1, (12, 12), number_type="float32", value_range=(0, 1))
    four = inpaint(model, images, FILL, 4, steps=2, rows=4)
    np.testing.assert_allclose(inpaint(model, images, FILL, 2, steps=2, rows=4, first_sample=2), four[:, 2:], atol=1e-6)
    for bad in (-1, 1.5, 2**31):
        must_refuse(lambda bad=bad: inpaint(model, images, FILL, 2, first_sample=bad), "first_sample")
