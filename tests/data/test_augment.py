"""Augmentation: every image changes in the same way in all arrays."""

import numpy as np
import pytest

from inkfill.core.rng import stream
from inkfill.data.augment import augmented, parse
from inkfill.errors import InputError


@pytest.mark.parametrize("words", ["flip", "shift", "rotate90", "flip,shift,rotate90"])
def test_arrays_change_together(words, digits):
    colour = np.stack([digits, digits // 2, 255 - digits], -1)
    changed, mask, other = augmented(words, stream(0), digits, digits > 100, colour)
    assert (mask == (changed > 100)).all()
    assert (other == np.stack([changed, changed // 2, 255 - changed], -1)).all()
    same = (changed == digits).all((1, 2)).mean()
    assert same < 0.8
    if words in ("flip", "rotate90"):
        assert (np.sort(changed.reshape(64, -1)) == np.sort(digits.reshape(64, -1))).all()


def test_frequencies_of_flips_and_rotations():
    """400 images: frequencies within 5 standard errors (.025 and .022)."""
    image = np.arange(400 * 64).reshape(400, 8, 8)
    flipped = augmented("flip", stream(1), image)[0]
    is_flipped = (flipped == image[:, :, ::-1]).all((1, 2))
    assert (is_flipped | (flipped == image).all((1, 2))).all()
    assert abs(is_flipped.mean() - 0.5) < 0.12
    rotated = augmented("rotate90", stream(1), image)[0]
    each = np.stack([(rotated == np.rot90(image, k, (1, 2))).all((1, 2)) for k in range(4)])
    assert (each.sum(0) == 1).all()
    assert (abs(each.mean(1) - 0.25) < 0.1).all()


def test_a_shift_is_a_tenth_of_the_side_at_most():
    images = np.zeros((200, 20, 30), np.uint8)
    images[:, 10, 15] = 255
    moved = augmented("shift", stream(2), images)[0]
    at = np.array([np.argwhere(x == 255)[0] for x in moved]) - (10, 15)
    assert (np.abs(at).max(0) == (2, 3)).all()
    assert (np.abs(at).min(0) == 0).all()


def test_unknown_names_and_rotations_of_oblong_images_are_refused():
    assert parse("") == ()
    with pytest.raises(InputError, match="unknown augmentation 'mirror'"):
        parse("flip,mirror")
    with pytest.raises(InputError, match="square"):
        augmented("rotate90", stream(0), np.zeros((2, 8, 9)))
