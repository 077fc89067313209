"""The classifiers that judge completions."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from inkfill import data
from inkfill.core.masks import parse
from inkfill.core.rng import stream
from inkfill.errors import InputError
from inkfill.evaluation.classifier import MASKED, WHOLE, judge, load_classifier, train_classifier, warped


def test_a_short_training_learns_and_is_repeatable(tmp_path):
    dataset = data.load("rendered")
    paths = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    accuracy = [train_classifier(dataset, "none", path, steps=100, batch_size=64) for path in paths]
    assert accuracy[0] == accuracy[1] > 0.5
    assert paths[0].read_bytes() == paths[1].read_bytes()
    probabilities, features = judge(load_classifier(paths[0]), dataset.validation[:5])
    assert probabilities.shape == (5, 10)
    assert features.shape == (5, 128)
    assert probabilities.sum(1) == pytest.approx(1, abs=1e-5)


def test_the_masked_classifier_never_reads_what_is_missing(digits):
    mask = parse("half:left").draw(4, 28, 28, stream(0))
    net = load_classifier(MASKED)
    garbage = np.where(mask, 255 - digits[:4], digits[:4])
    np.testing.assert_array_equal(judge(net, digits[:4], mask)[0], judge(net, garbage, mask)[0])


def test_shipped_classifiers_know_mnist():
    """99.4 % of the test split, as the yardstick's use needs; the masked one knows less, and more than chance."""
    try:
        mnist = data.load("mnist")
    except InputError:
        pytest.skip("needs MNIST")
    labels = mnist.labels["test"]
    right = judge(load_classifier(WHOLE), mnist.test)[0].argmax(1) == labels
    assert right.mean() >= 0.994
    mask = parse("half:left").draw(1000, 28, 28, stream(0))
    half = judge(load_classifier(MASKED), mnist.test[:1000], mask)[0].argmax(1) == labels[:1000]
    assert 0.6 < half.mean() < right.mean()


def test_warps_keep_the_range_and_depend_on_the_generator_alone(digits):
    x0 = data.to_x0(digits[:4])
    once, again = warped(x0, stream(1)), warped(x0, stream(1))
    assert torch.equal(once, again)
    assert not torch.equal(once, warped(x0, stream(2)))
    assert once.min() >= -1 - 1e-6
    assert once.max() <= 1 + 1e-6
    assert (once[:, :, 0] == -1).any()


def test_bad_input(digits, tmp_path):
    with pytest.raises(InputError, match="28x28"):
        judge(load_classifier(WHOLE), np.zeros((1, 32, 32), np.uint8))
    with pytest.raises(InputError, match="labels"):
        train_classifier(replace(data.load("rendered"), labels={}), "none", tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="no such"):
        load_classifier(tmp_path / "none.safetensors")
