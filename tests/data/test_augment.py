"""Augmentation: every image changed the same way in all arrays, and nothing without a user's word."""

import dataclasses

import numpy as np
import pytest

from helpers import TINY
from inkfill.core import masks as specs
from inkfill.core.objectives import draw_batch
from inkfill.core.rng import stream
from inkfill.core.schedule import Schedule
from inkfill.data.augment import augmented, parse
from inkfill.errors import InputError
from inkfill.training.config import TrainConfig

SMALL = TrainConfig(data="rendered", batch_size=16, unet=TINY)
SCHEDULE = Schedule.named("cosine")


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


def test_flips_and_turns_are_those():
    picture = np.arange(400 * 64).reshape(400, 8, 8)
    flipped = augmented("flip", stream(1), picture)[0]
    is_flipped = (flipped == picture[:, :, ::-1]).all((1, 2))
    assert (is_flipped | (flipped == picture).all((1, 2))).all()
    assert abs(is_flipped.mean() - 0.5) < 0.12
    turned = augmented("rotate90", stream(1), picture)[0]
    each = np.stack([(turned == np.rot90(picture, k, (1, 2))).all((1, 2)) for k in range(4)])
    assert (each.sum(0) == 1).all()
    assert (abs(each.mean(1) - 0.25) < 0.1).all()


def test_a_shift_moves_by_a_tenth_at_most(digits):
    big = np.zeros((200, 20, 30), np.uint8)
    big[:, 10, 15] = 255
    moved = augmented("shift", stream(2), big)[0]
    at = np.array([np.argwhere(x == 255)[0] for x in moved]) - (10, 15)
    assert (np.abs(at).max(0) == (2, 3)).all()
    assert (np.abs(at).min(0) == 0).all()


def test_words_that_mean_nothing_are_refused():
    assert parse("") == ()
    with pytest.raises(InputError, match="unknown augmentation 'mirror'"):
        dataclasses.replace(SMALL, augment="mirror").check()
    with pytest.raises(InputError, match="square"):
        augmented("rotate90", stream(0), np.zeros((2, 8, 9)))
    with pytest.raises(InputError, match="leave --augment out"):
        dataclasses.replace(SMALL, augment="flip", objective="few").check()


def test_a_batch_without_it_is_what_it_was_and_holes_go_along(digits):
    spec = specs.parse("half:left")
    plain = draw_batch(SMALL, SCHEDULE, digits, spec, stream(0))
    index = stream(0).integers(len(digits), size=16)
    assert (plain.x0[:, 0].numpy() == digits[index].astype(np.float32) / np.float32(127.5) - 1).all()
    changed = draw_batch(
        dataclasses.replace(SMALL, augment="rotate90"), SCHEDULE, digits, spec, stream(0), holes=digits > 0
    )
    assert ((changed.mask & ~changed.scored)[..., :14] == (changed.x0 > -1)[..., :14]).all()
