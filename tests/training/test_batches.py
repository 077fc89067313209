"""Training batches: images, augmentation and masks from a data set."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from inkfill.core import masks as specs
from inkfill.core.objectives import v_errors
from inkfill.core.rng import stream
from inkfill.core.schedule import Schedule
from inkfill.data import Dataset
from inkfill.data.images import BYTES, ValueRange
from inkfill.training.batches import Batches, Source

LEFT = Batches(Schedule.named("cosine"), specs.parse("half:left"), BYTES, 16)


def test_rows_of_a_batch_are_those_of_the_global_batch(digits):
    batches = replace(LEFT, spec=specs.parse("training"), size=8)
    whole = batches.draw(digits, stream(0, "train", 5))
    second = batches.draw(digits, stream(0, "train", 5), slice(4, 8))
    for name in ("x0", "mask", "t", "eps"):
        assert torch.equal(getattr(whole, name)[4:], getattr(second, name))
    assert whole.count == second.count == whole.mask.sum()
    assert whole.x0.shape == whole.mask.shape == whole.eps.shape == (8, 1, 28, 28)


def test_without_augmentation_images_are_unchanged(digits):
    plain = LEFT.draw(digits, stream(0))
    index = stream(0).integers(len(digits), size=16)
    assert (plain.x0[:, 0].numpy() == digits[index].astype(np.float32) / np.float32(127.5) - 1).all()


def test_augmentation_changes_missing_pixels_with_the_image(digits):
    changed = replace(LEFT, augment="rotate90").draw(digits, stream(0), holes=digits > 0)
    assert ((changed.mask & ~changed.scored)[..., :14] == (changed.x0 > -1)[..., :14]).all()


@pytest.mark.parametrize("imputed", [False, True])
def test_missing_pixels_of_the_data_are_never_scored(imputed, digits, model):
    """They are masked before a network has imputed them, and inputs after it."""
    hole = np.random.default_rng(0).random(digits.shape) < 0.5
    batch = LEFT.draw(digits, stream(0), holes=hole, imputed=np.full(len(digits), imputed))
    index = stream(0).integers(len(digits), size=16)
    missing = torch.from_numpy(hole[index][:, None])
    left = torch.zeros_like(missing)
    left[..., :14] = True
    assert torch.equal(batch.mask, left if imputed else left | missing)
    assert torch.equal(batch.scored, left & ~missing)
    assert batch.count == float(batch.scored.sum())
    assert (v_errors(model.net, batch)[~batch.scored] == 0).all()


def test_missing_pixels_are_inputs_in_imputed_images_alone(digits):
    hole, imputed = np.random.default_rng(0).random(digits.shape) < 0.5, np.arange(len(digits)) % 2 == 0
    batch = LEFT.draw(digits, stream(0), holes=hole, imputed=imputed)
    index = stream(0).integers(len(digits), size=16)
    masked = torch.from_numpy(hole[index] & ~imputed[index][:, None, None])
    assert torch.equal(batch.mask[:, 0, :, 14:], masked[..., 14:])
    assert not batch.scored[..., 14:].any()


def test_a_source_draws_sizes_by_their_number_of_images():
    """400 batches: the frequency of the smaller group is within 5 standard errors (.02) of 1/5."""
    few, many = np.zeros((10, 8, 8), np.uint8), np.zeros((40, 12, 9), np.uint8)
    source = Source(replace(LEFT, size=2), Dataset("mixed", many, many, many, {}, (few,)))
    shapes = [source.draw(stream(0, i), slice(None)).x0.shape[2:] for i in range(400)]
    assert set(shapes) == {(8, 8), (12, 9)}
    assert abs(shapes.count((8, 8)) / 400 - 0.2) < 0.1


@pytest.mark.parametrize("imputed", [False, True])
def test_missing_values_of_one_channel_are_never_scored(imputed):
    images, holes = np.random.default_rng(0).random((20, 8, 8, 3), np.float32), np.zeros((20, 8, 8, 3), bool)
    holes[..., 2] = True
    batches = Batches(Schedule.named("cosine"), specs.parse("half:left"), ValueRange(0, 1), 64, planes=3)
    batch = batches.draw(images, np.random.default_rng(1), holes=holes, imputed=np.full(20, imputed))
    assert batch.mask.shape == batch.scored.shape == (64, 3, 8, 8)
    assert not batch.scored[:, 2].any()
    assert batch.scored[:, :2].any()
    assert bool(batch.mask[:, 2].all()) != imputed
    assert batch.count == float(batch.scored.sum())
