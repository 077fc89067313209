"""Masks as users have them: image files, arrays, specs."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import images_of
from inkfill.core import masks as specs
from inkfill.core.rng import stream
from inkfill.data import masks
from inkfill.errors import InputError

HOLE = np.zeros((20, 20), bool)
HOLE[5:12, 6:14] = True
WHITE = np.where(HOLE, 255, 0).astype(np.uint8)


def save(array: np.ndarray, path: Path) -> Path:
    Image.fromarray(array).save(path)
    return path


def found(path: Path, **options) -> np.ndarray:
    """The mask in a file, for one image of 20 x 20 pixels."""
    return masks.fit(str(path), images_of("uint8", (1, 20, 20)), 0, masks.MaskOptions(**options))[0]


def test_white_is_missing_in_grey_and_rgb_files(tmp_path):
    assert (found(save(WHITE, tmp_path / "grey.png")) == HOLE).all()
    assert (found(save(np.dstack([WHITE] * 3), tmp_path / "rgb.png")) == HOLE).all()
    Image.fromarray(WHITE).save(tmp_path / "hole.jpg", quality=95)
    assert (found(tmp_path / "hole.jpg") == HOLE).mean() > 0.98


def test_soft_edges_are_cut_at_half_with_a_notice(tmp_path, caplog):
    soft = WHITE.copy()
    soft[5, 6:14], soft[11, 6:14] = 140, 100
    with caplog.at_level(logging.WARNING):
        assert (found(save(soft, tmp_path / "soft.png")) == (soft > 127)).all()
    assert "soft edges" in caplog.text


def test_a_painted_layer_and_an_erased_image(tmp_path):
    layer = np.dstack([np.full((20, 20, 3), 200, np.uint8), WHITE])
    assert (found(save(layer, tmp_path / "layer.png")) == HOLE).all()
    erased = np.dstack([images_of("uint8", (20, 20, 3)), 255 - WHITE])
    assert (found(save(erased, tmp_path / "erased.png")) == HOLE).all()


@pytest.mark.parametrize("colour", ["red", "#ff0000"])
def test_a_colour_marks_missing_pixels(tmp_path, colour):
    painted = images_of("uint8", (20, 20, 3)) // 2
    painted[HOLE] = (250, 10, 5)
    assert (found(save(painted, tmp_path / "red.png"), colour=masks.parse_colour(colour)) == HOLE).all()
    with pytest.raises(InputError, match="no --mask-colour"):
        found(save(WHITE, tmp_path / "grey.png"), colour=(255, 0, 0))


@pytest.mark.parametrize("text", ["reddish", "#ff00", "#gg0000"])
def test_an_unknown_colour_is_refused(text):
    with pytest.raises(InputError, match="unknown colour"):
        masks.parse_colour(text)


def test_invert_and_grow(tmp_path):
    assert (found(save(255 - WHITE, tmp_path / "inverse.png"), invert=True) == HOLE).all()
    grown = found(save(WHITE, tmp_path / "hole.png"), grow=2)
    assert grown.sum() == 11 * 12
    assert grown[HOLE].all()


def test_images_that_are_no_masks_are_refused(tmp_path):
    with pytest.raises(InputError, match="not binary"):
        found(save(images_of("uint8", (20, 20)), tmp_path / "photo.png"))
    with pytest.raises(InputError, match="marks nothing"):
        found(save(np.zeros((20, 20), np.uint8), tmp_path / "black.png"))


@pytest.mark.parametrize("values", [HOLE, HOLE.astype(np.uint8), HOLE * 255.0])
def test_numpy_files_hold_bool_or_zero_and_one_or_255(tmp_path, values):
    np.save(tmp_path / "mask.npy", values)
    assert (found(tmp_path / "mask.npy") == HOLE).all()


@pytest.mark.parametrize("values", [np.arange(400).reshape(20, 20), np.full((20, 20), np.nan), HOLE * 2, HOLE * 1j])
def test_other_numpy_values_are_refused(tmp_path, values):
    np.save(tmp_path / "mask.npy", values)
    with pytest.raises(InputError, match="not binary"):
        found(tmp_path / "mask.npy")


def test_sizes_counts_and_dtypes_must_agree():
    images = images_of("uint8", (3, 20, 20))
    for mask, says in (
        (HOLE[:10], "sizes must agree"),
        (np.stack([HOLE] * 2), "for 2 images"),
        (WHITE // 2, "give bool"),
    ):
        with pytest.raises(InputError, match=says):
            masks.fit(mask, images)


def test_an_inverted_mask_is_remarked(caplog):
    with caplog.at_level(logging.WARNING):
        masks.notice(~HOLE[None])
    assert "--invert-mask" in caplog.text


def test_a_spec_comes_before_a_folder_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strokes").mkdir()
    expected = specs.parse("strokes").draw(2, 20, 20, stream(0, "mask"))
    np.testing.assert_array_equal(masks.fit("strokes", images_of("uint8", (2, 20, 20))), expected)


def test_parts_of_a_set_get_the_masks_of_the_whole():
    images, given = images_of("uint8", (5, 20, 20)), masks.read_mask("strokes")
    parts = [given.draw(images[:2], 3, 0), given.draw(images[2:], 3, 2)]
    np.testing.assert_array_equal(np.concatenate(parts), masks.fit("strokes", images, 3))
    given = masks.read_mask(masks.fit("strokes", images, 3))
    np.testing.assert_array_equal(given.draw(images[2:], 3, 2), given.array[2:])
