"""Random streams that must be apart, and validation on images as they are."""

import numpy as np

from helpers import tiny_model
from inkfill.core.rng import SampleNoise, key, stream
from inkfill.filling.inpaint import inpaint
from inkfill.training import few
from inkfill.training.batches import Batches
from inkfill.training.validation import validation_losses


def test_pairs_have_noise_of_their_own(tmp_path, digits, monkeypatch):
    """A few-step model is evaluated on noise that it was not trained on."""
    from inkfill.core.masks import parse

    monkeypatch.setattr(few, "PART", 4)
    pairs = few.find_pairs(tmp_path, tiny_model, digits, parse("half:left"), 4, seed=0, quiet=True)
    assert pairs.seed != 0
    taught = inpaint(
        tiny_model(), digits[pairs.index], pairs.mask, 2, "conditional", 8, pairs.seed, few.TEACHER_SAMPLER
    )
    np.testing.assert_array_equal(pairs.samples, taught)
    _, _, x_T, _ = pairs.take(np.arange(4), digits, tiny_model().value_range)
    drawn = SampleNoise(0, np.repeat(np.arange(4), 2), np.tile(np.arange(2), 4), (1, 28, 28))()
    assert not np.isclose(x_T.reshape(8, -1)[:, :5], drawn.reshape(8, -1)[:, :5]).any()


def test_validation_does_not_augment(digits, monkeypatch):
    from inkfill.core.masks import parse
    from inkfill.core.objectives import OBJECTIVES
    from inkfill.core.schedule import Schedule

    monkeypatch.setattr("inkfill.training.validation.SIZE", 20)
    net, values = tiny_model().net, tiny_model().value_range
    found = [
        validation_losses(
            net, OBJECTIVES["v"], Batches(Schedule.named("cosine"), parse("strokes"), values, 4, words), digits
        )
        for words in ("", "flip,shift,rotate90")
    ]
    assert found[0] == found[1]


def test_derived_seeds_differ():
    assert len({key(0, "a"), key(0, "b"), key(1, "a"), 0, 1}) == 5
    assert stream(key(0, "a")).random() != stream(0, "a").random()
