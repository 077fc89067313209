"""The settings of a training run."""

import json
from dataclasses import asdict, replace

import pytest

from helpers import TINY
from inkfill.errors import InputError
from inkfill.training.config import TrainConfig

SMALL = TrainConfig(data="rendered", steps=8, batch_size=8, warmup=2, unet=TINY)


def test_the_learning_rate_warms_up_and_ends_at_zero():
    config = TrainConfig(steps=1000, warmup=100)
    rates = [config.rate(i, i / 1000) for i in range(1000)]
    assert rates[0] < 0.02
    assert 0.95 < max(rates) <= 1
    assert rates[-1] < 1e-4
    assert config.rate(3, 0.1) == pytest.approx(config.rate(100, 0.1))  # warm-up takes a tenth of the run at most


def test_the_learning_rate_is_constant_until_its_decay():
    config = TrainConfig(steps=1000, warmup=100, decay=0.2)
    rates = [config.rate(i, i / 1000) for i in range(1000)]
    assert {*rates[100:800]} == {1.0}
    assert rates[900] == pytest.approx(0.5)
    assert rates[-1] < 1e-3
    assert [config.decays(share) for share in (0.0, 0.79, 0.8, 1.0)] == [False, False, True, True]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"decay": 0.0}, "--decay 0"),
        ({"steps": 0}, "--steps 0: give a number from 1"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"learning_rate": 0.0}, "--learning-rate 0"),
        ({"weight_decay": -1.0}, "--weight-decay -1"),
        ({"T": 1}, "T 1"),
        ({"schedule": "x"}, "schedule"),
        ({"objective": "x"}, "--objective x: unknown objective: choose from"),
        ({"dtype": "float16"}, "choose from float32, bfloat16"),
        ({"masks": "x"}, "unknown mask"),
        ({"low": 0.0, "high": float("inf")}, "--range"),
        ({"low": 1.0, "high": 1.0}, "--range"),
        ({"low": 0.0}, "--range"),
        ({"augment": "mirror"}, "unknown augmentation 'mirror'"),
        ({"augment": "flip", "objective": "few"}, "leave it out"),
        ({"data_mask": "nan", "objective": "few"}, "--data-mask requires v or eps"),
        ({"teacher": "mnist"}, "--teacher requires few"),
    ],
)
def test_impossible_settings_are_refused(change, says):
    with pytest.raises(InputError, match=says):
        replace(SMALL, **change).check()


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, unet=None)])
def test_settings_are_read_back_as_written(config):
    config.check()
    assert TrainConfig.read(json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize("change", [{"steps": {}}, {"low": "x"}, {"masks": 3}, {"unet": 3}, {"steps": 2.5}, {"x": 1}])
def test_settings_of_other_types_are_refused(change):
    with pytest.raises(InputError):
        TrainConfig.read(asdict(SMALL) | change)
