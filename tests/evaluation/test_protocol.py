"""The protocol of an evaluation: its plan, stored samples, and advice."""

from dataclasses import replace

import pytest
import torch

from helpers import tiny_model
from inkfill import data
from inkfill.core.rng import stream
from inkfill.errors import InputError
from inkfill.evaluation import baselines, protocol
from inkfill.files import locked
from inkfill.models.checkpoint import save_network
from inkfill.models.model import Recipe


@pytest.fixture
def networks(tmp_path):
    path, net = tmp_path / "tiny.safetensors", tiny_model().net
    save_network(path, net, net.state_dict(), Recipe().to_json())
    return protocol.Networks.load(path, dtype="float32")


@pytest.fixture
def dataset(digits):
    return data.Dataset("some", digits, digits[:20], digits[20:40], {})


def test_a_plan_has_every_mask_and_method_once():
    found = protocol.plan(["half:left", "box:10", "half:left"], ["dps", "nearest"], [5, 9], settings={"strength": 2.0})
    assert [(c.mask, c.method, c.steps, dict(c.settings)) for c in found] == [
        (mask, method, steps, settings)
        for mask in ("half:left", "box:10")
        for method, steps, settings in (
            ("dps", 5, {"strength": 2.0}), ("dps", 9, {"strength": 2.0}), ("nearest", 1, {}),
        )
    ]  # fmt: skip
    for wrong in (
        {"specs": ["half:up"]}, {"methods": ["magic"]}, {"settings": {"strength": -1}}, {"settings": {"power": 1}},
    ):  # fmt: skip
        with pytest.raises(InputError):
            protocol.plan(**{"specs": ["all"], "methods": ["dps"], "steps": [1], **wrong})


def test_an_evaluation_of_other_weights_reuses_nothing(tmp_path, networks, dataset):
    plan = protocol.plan(["half:left"], ["conditional"], [2], 2)
    first = protocol.run(networks, dataset, "test", 4, plan, tmp_path / "out")
    assert first.rows[0]["evaluations"] == 2
    net = networks.model.net
    with torch.no_grad():
        next(net.parameters()).mul_(2)
    save_network(networks.model.source, net, net.state_dict(), Recipe().to_json())
    other = protocol.run(
        protocol.Networks.load(networks.model.source, dtype="float32"), dataset, "test", 4, plan, tmp_path / "out"
    )
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 2
    assert (other.results[0].done.filled != first.results[0].done.filled).any()
    assert other.about["checkpoint_hash"] != first.about["checkpoint_hash"]


def test_one_evaluation_in_a_folder_at_a_time(tmp_path, networks, dataset):
    plan = protocol.plan(["half:left"], ["conditional"], [1], 1)
    with locked(tmp_path, "evaluate"), pytest.raises(InputError, match="locked by another inkfill evaluate"):
        protocol.run(networks, dataset, "test", 2, plan, tmp_path)
    assert protocol.run(networks, dataset, "test", 2, plan, tmp_path)


def test_regression_requires_its_network(networks, dataset):
    with pytest.raises(InputError, match="--regression"):
        protocol.run(networks, dataset, "test", 4, protocol.plan(["all"], ["regression"], [1]))


@pytest.mark.parametrize("plain", ["biharmonic", "telea"])
def test_advice_compares_diffusion_with_smooth_fills(networks, dataset, plain):
    """Diffusion must be better by two standard errors."""
    plan = protocol.plan(["half:left"], ["conditional", plain, "mean"], [2], 2)
    found = protocol.run(networks, dataset, "test", 6, plan)
    diffusion, smooth = found.rows[0], found.rows[1]
    diffusion.update(crps=0.03, crps_se=0.001)
    smooth.update(crps=0.04, crps_se=0.001)
    assert found.advice == [f"half:left: diffusion is better by 25% (CRPS conditional 0.0300, {plain} 0.0400)"]
    smooth.update(crps=0.0315)
    assert f"{plain} is as good and needs no training: use it" in found.advice[0]
    del found.results[1]
    assert found.advice == []


def test_advice_reports_overfitting(networks, dataset):
    plan, dataset = protocol.plan(["half:left"], ["conditional"], [1], 1), replace(dataset, train=dataset.train[40:])
    found = protocol.run(networks, dataset, "test", 6, plan)
    assert found.advice == []
    truth, done = dataset.test[:6], found.results[0].done
    nearest = baselines.nearest(dataset.train, truth, done.mask, 1, stream(0))
    memorised = replace(done, filled=nearest)
    assert protocol.memorisation(truth, memorised, dataset.train) < 0.05
    assert protocol.memorisation(truth, replace(done, filled=truth[:, None]), dataset.train) == pytest.approx(1)
    found.rows[0]["copied"] = 0.1
    assert "overfits: distance to the nearest training image 10%" in found.advice[0]
