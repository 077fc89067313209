"""The classifiers that judge samples, and their training."""

import importlib.util
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers import ROOT
from inkfill import data
from inkfill.core.masks import parse
from inkfill.core.rng import stream
from inkfill.errors import InputError
from inkfill.evaluation.classifier import MASKED, WHOLE, judge, load_classifier


@pytest.fixture(scope="module")
def training():
    """The script that trains them."""
    spec = importlib.util.spec_from_file_location("train_classifier", ROOT / "reports" / "train_classifier.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_a_short_training_learns_and_is_reproducible(tmp_path, training):
    dataset = data.load("rendered")
    paths = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    accuracy = [training.train_classifier(dataset, "none", path, steps=100, batch_size=64) for path in paths]
    assert accuracy[0] == accuracy[1] > 0.5
    assert paths[0].read_bytes() == paths[1].read_bytes()
    probabilities, features = judge(load_classifier(paths[0]), dataset.validation[:5])
    assert probabilities.shape == (5, 10)
    assert features.shape == (5, 128)
    assert probabilities.sum(1) == pytest.approx(1, abs=1e-5)


def test_the_masked_classifier_never_reads_masked_pixels(digits):
    mask = parse("half:left").draw(4, 28, 28, stream(0))
    net = load_classifier(MASKED)
    garbage = np.where(mask, 255 - digits[:4], digits[:4])
    np.testing.assert_array_equal(judge(net, digits[:4], mask)[0], judge(net, garbage, mask)[0])


def test_the_shipped_classifiers_on_mnist():
    """Whole digits: 99.4 % of the test split. The masked classifier is between chance and that."""
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


def test_warps_keep_the_range_and_depend_on_the_generator_only(digits, training):
    x0 = data.to_x0(digits[:4])
    once, again = (training.warped(x0, stream(1)) for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(once, training.warped(x0, stream(2)))
    assert once.min() >= -1 - 1e-6
    assert once.max() <= 1 + 1e-6
    assert (once[:, :, 0] == -1).any()


def test_bad_input_is_refused(tmp_path, training):
    with pytest.raises(InputError, match="28x28"):
        judge(load_classifier(WHOLE), np.zeros((1, 32, 32), np.uint8))
    with pytest.raises(InputError, match="labels"):
        training.train_classifier(replace(data.load("rendered"), labels={}), "none", tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="no such"):
        load_classifier(tmp_path / "none.safetensors")


@pytest.mark.check
def test_the_training_script(tmp_path):
    """It writes a classifier, and never replaces a file without --overwrite."""
    out = tmp_path / "classifier.safetensors"
    command = [sys.executable, str(ROOT / "reports" / "train_classifier.py"), "--out", str(out), "--data", "rendered"]
    made = subprocess.run([*command, "--steps", "2"], capture_output=True, text=True, check=True)
    assert f"wrote {out}: accuracy" in made.stdout
    before = out.read_bytes()
    again = subprocess.run([*command, "--steps", "3"], capture_output=True, text=True)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    assert out.read_bytes() == before
    load_classifier(out)
