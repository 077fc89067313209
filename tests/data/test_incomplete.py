"""Incomplete training data: masks of the images, and the first imputation."""

import numpy as np
import pytest
from PIL import Image

from helpers import incomplete
from inkfill import data
from inkfill.data.incomplete import blurred, order_of
from inkfill.errors import InputError


def test_missing_pixels_become_local_means_and_are_never_read():
    images = np.arange(4 * 12 * 10, dtype=np.float64).reshape(4, 12, 10)
    hole = np.zeros((4, 12, 10), bool)
    hole[0, 3, 4] = hole[1] = hole[2, :6] = True
    filled = blurred(np.where(hole, np.nan, images), hole)
    around = images[0, 2:5, 3:6].sum() - images[0, 3, 4]
    assert filled[0, 3, 4] == pytest.approx(around / 8)
    assert (filled[~hole] == images[~hole]).all()
    assert np.isfinite(filled).all()
    assert filled[1, 0, 0] == pytest.approx(images[~hole].mean())  # without observed pixels: the mean of all images
    assert abs(filled[2, 5] - images[2, 6]).max() < 12
    colour = np.stack([images, images + 1, images + 2], -1).astype(np.uint8)
    assert blurred(colour, hole).dtype == np.uint8


@pytest.mark.parametrize("kind", ["nan", "spec", "alpha", "files"])
def test_masks_of_every_kind(kind, tmp_path, digits):
    floats, hole = incomplete(digits)
    if kind == "nan":
        np.save(tmp_path / "x.npy", floats)
        found = data.load(str(tmp_path / "x.npy"), "nan")
    elif kind == "spec":
        np.save(tmp_path / "x.npy", digits)
        found = data.load(str(tmp_path / "x.npy"), "pixels:0.5", 3)
    elif kind == "alpha":
        np.save(tmp_path / "x.npy", np.stack([digits, np.where(hole, 0, 255).astype(np.uint8)], -1))
        found = data.load(str(tmp_path / "x.npy"), "alpha")
    else:
        np.save(tmp_path / "x.npy", digits)
        np.save(tmp_path / "m.npy", hole)
        found = data.load(str(tmp_path / "x.npy"), str(tmp_path / "m.npy"))
    whole = data.load(str(tmp_path / "x.npy"))
    order = order_of(len(digits))
    at = {"train": order[:-12], "validation": order[-12:-6], "test": order[-6:]}
    for split in ("train", "validation", "test"):
        images, holes = found.split(split), found.holes[split]
        assert images.shape == holes.shape
        assert 0.4 < holes.mean() < 0.6
        original = whole.split(split)[..., 0] if kind == "alpha" else whole.split(split)
        assert (images[~holes] == original[~holes]).all()
        if kind != "spec":
            assert (holes == hole[at[split]]).all()


@pytest.fixture
def several_sizes(tmp_path):
    """A folder of grey images of four sizes, 0 under the masks in another folder; two of the sizes are rare."""
    rng = np.random.default_rng(0)
    sizes = [(16, 16)] * 30 + [(24, 20)] * 26 + [(40, 33)] * 3 + [(33, 44)] * 3
    for folder in ("images", "holes", "alpha"):
        (tmp_path / folder).mkdir()
    for i in rng.permutation(len(sizes)):
        image, hole = rng.integers(1, 256, sizes[i], np.uint8), rng.random(sizes[i]) < 0.5
        alpha = np.where(hole, 0, 255).astype(np.uint8)
        image[hole] = 0
        for folder, pixels in (("images", image), ("holes", 255 - alpha), ("alpha", np.stack([image, alpha], -1))):
            Image.fromarray(pixels).save(tmp_path / folder / f"{i:02d}.png")
    return tmp_path


@pytest.mark.parametrize("kind", ["files", "alpha", "spec"])
def test_images_of_several_sizes(kind, several_sizes):
    """A mask goes with its image into the group of its size, and into tiles."""
    images = several_sizes / ("alpha" if kind == "alpha" else "images")
    mask = {"files": str(several_sizes / "holes"), "alpha": "alpha", "spec": "pixels:0.5"}[kind]
    found, whole = data.load(str(images), mask), data.load(str(several_sizes / "images"))
    assert {group.shape[1:] for group in found.groups} == {(16, 16), (24, 20), (33, 33)}
    parts = [*zip(found.groups, found.holes_of_groups, whole.groups, strict=True)]
    parts += [(found.split(s), found.holes[s], whole.split(s)) for s in ("validation", "test")]
    for filled, holes, group in parts:
        assert filled.shape == holes.shape == group.shape
        assert (filled[~holes] == group[~holes]).all()
        if kind == "spec":
            assert 0.4 < holes.mean() < 0.6
        else:
            assert (holes == (group == 0)).all()
            assert (filled > 0).all()


def test_mask_files_that_fit_no_images_of_several_sizes_are_refused(several_sizes):
    Image.new("L", (16, 16), 255).save(several_sizes / "one.png")
    with pytest.raises(InputError, match="give a folder of masks"):
        data.load(str(several_sizes / "images"), str(several_sizes / "one.png"))
    (several_sizes / "holes" / "05.png").rename(several_sizes / "holes" / "x.png")
    with pytest.raises(InputError, match="no mask is called 05"):
        data.load(str(several_sizes / "images"), str(several_sizes / "holes"))
    Image.new("L", (11, 11), 255).save(several_sizes / "holes" / "05.png")
    (several_sizes / "holes" / "x.png").unlink()
    with pytest.raises(InputError, match="sizes must agree"):
        data.load(str(several_sizes / "images"), str(several_sizes / "holes"))


def test_mask_files_of_one_size_are_paired_by_name(tmp_path, digits):
    for folder in ("images", "holes"):
        (tmp_path / folder).mkdir()
    for i, image in enumerate(digits[:12]):
        Image.fromarray(image).save(tmp_path / "images" / f"{i:02d}.png")
        Image.new("L", (28, 28), 255 * (i == 3)).save(tmp_path / "holes" / f"{i:02d}.png")
    found = data.load(str(tmp_path / "images"), str(tmp_path / "holes"))
    which = [i for split in ("train", "validation", "test") for i in found.holes[split].any((1, 2))]
    assert order_of(12)[which].tolist() == [3]
    (tmp_path / "holes" / "03.png").rename(tmp_path / "holes" / "12.png")
    with pytest.raises(InputError, match="no mask is called 03"):
        data.load(str(tmp_path / "images"), str(tmp_path / "holes"))


@pytest.mark.parametrize(("mask", "says"), [("all", "0.0% of the pixels"), ("none", "no pixel"), ("nosuch", "nosuch")])
def test_masks_that_leave_nothing_to_learn_are_refused(mask, says, tmp_path, digits):
    np.save(tmp_path / "x.npy", digits)
    with pytest.raises(InputError, match=says):
        data.load(str(tmp_path / "x.npy"), mask)


def test_a_spec_may_be_longer_than_any_file_name(tmp_path, digits):
    np.save(tmp_path / "x.npy", digits)
    assert data.load(str(tmp_path / "x.npy"), "+".join(["half:left"] * 40)).holes["train"].any()
