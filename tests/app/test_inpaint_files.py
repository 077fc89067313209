"""``inkfill inpaint`` on files of any kind: sizes, channels, dtypes, masks, parts of long arrays."""

import numpy as np
import pytest
from PIL import Image

from helpers import images_of, model_of, observed_alike, refused, run, saved
from inkfill.app import fill
from inkfill.core import masks as specs
from inkfill.core.rng import stream
from inkfill.data import masks
from inkfill.filling.inpaint import inpaint

QUICK = ["--samples", 2, "--steps", 1, "--dtype", "float32"]


@pytest.fixture
def colour_checkpoint(tmp_path):
    return saved(model_of(3, (16, 16), black=None), tmp_path / "colour.safetensors")


# ---- images in files -------------------------------------------------------------------------------------------------


def save_mixed(tmp_path):
    """Three images of two sizes in ``in``, their masks in ``holes``."""
    sizes = {"a": (16, 16), "b": (20, 13), "c": (16, 16)}
    for folder in ("in", "holes"):
        (tmp_path / folder).mkdir()
    for name, size in sizes.items():
        Image.fromarray(images_of("uint8", (*size, 3))).save(tmp_path / "in" / f"{name}.png")
        mask = np.zeros(size, np.uint8)
        mask[3:9, 4:8] = 255
        Image.fromarray(mask).save(tmp_path / "holes" / f"{name}.png")
    return sizes


def test_a_folder_of_several_sizes_with_its_folder_of_masks(tmp_path, colour_checkpoint):
    sizes = save_mixed(tmp_path)
    words = ["inpaint", tmp_path / "in", "--mask", tmp_path / "holes", *QUICK, "--checkpoint", colour_checkpoint]
    assert run(*words, "--out", tmp_path / "out", "--report", tmp_path / "page") == 0
    for name, size in sizes.items():
        for k in range(2):
            filled = np.asarray(Image.open(tmp_path / "out" / f"{name}_{k:02d}.png"))
            before = np.asarray(Image.open(tmp_path / "in" / f"{name}.png"))
            assert filled.shape == (*size, 3)
            mask = np.zeros(size, bool)
            mask[3:9, 4:8] = True
            np.testing.assert_array_equal(filled[~mask], before[~mask])
    with np.load(tmp_path / "page" / "filled.npz") as filled, np.load(tmp_path / "page" / "std.npz") as std:
        assert len(filled.files) == len(std.files) > 1
        assert all(filled[name].shape[1:3] == std[name].shape for name in filled.files)


def test_masks_and_images_that_do_not_pair_are_refused(tmp_path, colour_checkpoint, capsys):
    save_mixed(tmp_path)
    words = ["inpaint", tmp_path / "in", "--mask", tmp_path / "holes", *QUICK, "--checkpoint", colour_checkpoint]
    refused(capsys, *words, "--out", tmp_path / "x.npy", says=["several sizes", "folder"])
    (tmp_path / "holes" / "c.png").rename(tmp_path / "holes" / "d.png")
    refused(capsys, *words, "--out", tmp_path / "y", says=["c"])
    (tmp_path / "in" / "c.png").unlink()
    refused(capsys, *words, "--out", tmp_path / "y", says=["no image is called d"])


def test_image_files_get_the_channels_that_the_weights_expect(tmp_path, capsys):
    """A grey image and an opaque one, saved as RGBA, for weights of colour with alpha; also one of them alone."""
    model = model_of(4, (12, 12))
    path = saved(model, tmp_path / "rgba.safetensors")
    images = images_of("uint8", (3, 12, 12, 4))
    images[1, ..., :3] = images[1, ..., :1]
    images[2, ..., 3] = 255
    (tmp_path / "in").mkdir()
    for name, image in zip("abc", images, strict=True):
        Image.fromarray(image).save(tmp_path / "in" / f"{name}.png")
    words = ["--mask", "half:left", "--samples", 1, "--steps", 1, "--dtype", "float32", "--checkpoint"]
    assert run("inpaint", tmp_path / "in", *words, path, "--out", tmp_path / "o.npy") == 0
    filled = np.load(tmp_path / "o.npy")
    assert observed_alike(filled, images, masks.fit("half:left", images))
    np.testing.assert_array_equal(inpaint(model, tmp_path / "in", "half:left", 1, steps=1), filled)
    assert run("inpaint", tmp_path / "in" / "c.png", *words, path, "--out", tmp_path / "c.png") == 0
    capsys.readouterr()
    grey = saved(model_of(1), tmp_path / "grey.safetensors")
    Image.fromarray(images[0, ..., 0]).save(tmp_path / "in" / "a.png")
    refused(capsys, "inpaint", tmp_path / "in", *words, grey, "--out", tmp_path / "x", says=["c.png", "--grey"])


def test_values_under_a_mask_are_not_read(tmp_path, checkpoint):
    images = images_of("float32", (2, 28, 28))
    images[:, 3:9, 3:9] = -9999
    np.save(tmp_path / "a.npy", images)
    np.save(tmp_path / "m.npy", images < 0)
    words = ["inpaint", tmp_path / "a.npy", "--mask", tmp_path / "m.npy", *QUICK, "--checkpoint", checkpoint]
    assert run(*words, "--out", tmp_path / "b.npy", "--sheet", tmp_path / "b.png", "--report", tmp_path / "r") == 0
    filled = np.load(tmp_path / "b.npy")
    assert 0 <= filled.min() < filled.max() <= 1


def test_alpha_does_not_affect_the_data_range(tmp_path, checkpoint):
    images = images_of("float32", (3, 28, 28, 2))
    images[..., 1] = 1.5
    np.save(tmp_path / "a.npy", images)
    words = ["inpaint", tmp_path / "a.npy", "--mask", "half:left", *QUICK, "--checkpoint", checkpoint]
    assert run(*words, "--out", tmp_path / "o.npy") == 0
    assert np.load(tmp_path / "o.npy")[..., 0].max() <= 1


# ---- what is written -------------------------------------------------------------------------------------------------


def test_keep_mean_and_keep_central(tmp_path, colour_checkpoint):
    Image.fromarray(images_of("uint8", (16, 16, 3))).save(tmp_path / "a.png")
    words = ["inpaint", tmp_path / "a.png", "--mask", "box:6", "--steps", 2, "--checkpoint", colour_checkpoint]
    assert run(*words, "--samples", 5, "--out", tmp_path / "all.npy") == 0
    every = np.load(tmp_path / "all.npy")
    assert every.shape == (1, 5, 16, 16, 3)
    kept = {}
    for keep in ("mean", "central"):
        assert run(*words, "--samples", 5, "--keep", keep, "--out", tmp_path / f"{keep}.png") == 0
        kept[keep] = np.asarray(Image.open(tmp_path / f"{keep}.png"))
    np.testing.assert_array_equal(kept["mean"], every[0].mean(0).round().astype(np.uint8))
    assert any((kept["central"] == each).all() for each in every[0])


@pytest.mark.parametrize("dtype", ["float32", "float64", "bool"])
def test_a_mean_keeps_observed_pixels_bit_for_bit(dtype, tmp_path, checkpoint):
    """Rounding in a mean of equal values could change them."""
    images = images_of(dtype, (2, 28, 28))
    np.save(tmp_path / "a.npy", images)
    words = ["inpaint", tmp_path / "a.npy", "--mask", "half:left", "--samples", 7, "--steps", 1, "--range", 0, 1]
    words += ["--checkpoint", checkpoint, "--out"]
    assert run(*words, tmp_path / "all.npy") == 0
    assert run(*words, tmp_path / "mean.npy", "--keep", "mean") == 0
    every, kept = np.load(tmp_path / "all.npy"), np.load(tmp_path / "mean.npy")
    assert observed_alike(kept, images, masks.fit("half:left", images))
    tolerance = 0.5 if dtype == "bool" else 1e-6
    np.testing.assert_allclose(kept.astype(float), every.mean(1, keepdims=True).astype(float), atol=tolerance)


def test_an_output_name_in_capitals(tmp_path, checkpoint, digits):
    np.save(tmp_path / "a.npy", digits[:2])
    words = ["--mask", "half:left", *QUICK, "--checkpoint", checkpoint]
    assert run("inpaint", tmp_path / "a.npy", *words, "--out", tmp_path / "B.NPY") == 0
    assert np.load(tmp_path / "B.NPY").shape == (2, 2, 28, 28)
    assert sorted(path.name for path in tmp_path.glob("*") if path.suffix != ".safetensors") == ["B.NPY", "a.npy"]


def test_floats_are_not_written_as_images(tmp_path, colour_checkpoint, capsys):
    np.save(tmp_path / "a.npy", images_of("float32", (2, 16, 16, 3)))
    words = ["inpaint", tmp_path / "a.npy", "--mask", "box:6", *QUICK, "--checkpoint", colour_checkpoint]
    refused(capsys, *words, "--out", tmp_path / "x", says=["float32", ".npy"])
    assert run(*words, "--out", tmp_path / "b.npy", "--report", tmp_path / "page") == 0
    filled = np.load(tmp_path / "b.npy")
    assert filled.dtype == np.float32
    deviation = np.load(tmp_path / "page" / "std.npy")
    assert deviation.shape == (2, 16, 16)
    expected = np.sqrt(((filled * 255).round().std(1) ** 2).mean(-1)) / 255
    np.testing.assert_allclose(deviation, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", ["uint16", "bool", "float32"])
def test_a_sheet_shows_any_dtype(dtype, tmp_path, checkpoint):
    np.save(tmp_path / "a.npy", images_of(dtype, (1, 28, 28)))
    words = ["inpaint", tmp_path / "a.npy", "--mask", "half:left", *QUICK, "--checkpoint", checkpoint]
    out = tmp_path / ("a.png" if dtype != "float32" else "b.npy")
    assert run(*words, "--out", out, "--sheet", tmp_path / "s.png") == 0
    if dtype != "float32":
        assert out.read_bytes() == (tmp_path / "s.png").read_bytes()


# ---- parts of long arrays --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "mask"), [("whole", "strokes"), ("whole", "holes.npy"), ("broken", "nan")])
def test_a_long_array_is_filled_in_parts_as_at_once(name, mask, tmp_path, monkeypatch):
    path = saved(model_of(1, (12, 12)), tmp_path / "grey.safetensors")
    images = images_of("float32", (25, 12, 12))
    missing = specs.parse("pixels:0.3").draw(25, 12, 12, stream(3))
    np.save(tmp_path / "whole.npy", images)
    np.save(tmp_path / "broken.npy", np.where(missing, np.nan, images).astype(np.float32))
    np.save(tmp_path / "holes.npy", missing)
    mask, found = tmp_path / mask if mask.endswith(".npy") else mask, []
    for part in (1000, 10):
        monkeypatch.setattr(fill, "PART", part)
        words = ["--mask", mask, *QUICK, "--out", tmp_path / "o.npy", "--overwrite", "--checkpoint", path]
        assert run("inpaint", tmp_path / f"{name}.npy", *words) == 0
        found.append(np.load(tmp_path / "o.npy"))
    assert found[0].shape == (25, 2, 12, 12)
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_parts_share_one_data_range_and_may_be_complete(tmp_path, monkeypatch, checkpoint, capsys):
    """The last image alone would be taken for floats from 0 to 1; the first alone has missing pixels."""
    images = images_of("float32", (5, 28, 28)) * 255
    images[4] /= 255
    images[0, 3:9, 3:9] = np.nan
    np.save(tmp_path / "holes.npy", images)
    np.save(tmp_path / "whole.npy", np.nan_to_num(images))
    words = [*QUICK, "--out", tmp_path / "o.npy", "--overwrite", "--checkpoint", checkpoint]
    for name, mask in (("holes", []), ("whole", ["--mask", "half:left"])):
        found = []
        for part in (1000, 2):
            monkeypatch.setattr(fill, "PART", part)
            assert run("inpaint", tmp_path / f"{name}.npy", *mask, *words) == 0
            found.append(np.load(tmp_path / "o.npy"))
        np.testing.assert_allclose(found[0], found[1], atol=1e-2)
    capsys.readouterr()
    refused(capsys, "inpaint", tmp_path / "whole.npy", *words, says=["no missing values"])
