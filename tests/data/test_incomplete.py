"""Incomplete training data: masks of the images, and the first imputation."""

import numpy as np
import pytest

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


@pytest.mark.parametrize(("mask", "says"), [("all", "0.0% of the pixels"), ("none", "no pixel"), ("nosuch", "nosuch")])
def test_masks_that_leave_nothing_to_learn_are_refused(mask, says, tmp_path, digits):
    np.save(tmp_path / "x.npy", digits)
    with pytest.raises(InputError, match=says):
        data.load(str(tmp_path / "x.npy"), mask)


def test_a_spec_may_be_longer_than_any_file_name(tmp_path, digits):
    np.save(tmp_path / "x.npy", digits)
    assert data.load(str(tmp_path / "x.npy"), "+".join(["half:left"] * 40)).holes["train"].any()
