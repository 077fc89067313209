"""Cells kept in files, their identity, scores and tables."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers import tiny_model
from inkfill import data
from inkfill.core.rng import stream
from inkfill.errors import InputError
from inkfill.evaluation import cells, protocol, scores
from inkfill.evaluation.cells import Cell, Completed, complete, identity, imported, kept, source_files
from inkfill.files import locked
from inkfill.models.checkpoint import save_network
from inkfill.models.model import Recipe
from inkfill.tables import markdown, table


@pytest.fixture
def networks(tmp_path):
    path, net = tmp_path / "tiny.safetensors", tiny_model().net
    save_network(path, net, net.state_dict(), Recipe().to_json())
    return protocol.Networks.load(path, dtype="float32")


@pytest.fixture
def dataset(digits):
    return data.Dataset("some", digits, digits[:20], digits[20:40], {})


def counted(run):
    calls = []

    def called():
        calls.append(1)
        return run()

    return called, calls


# ---- identity --------------------------------------------------------------------------------------------------------


def test_an_identity_is_of_everything_that_completions_depend_on(monkeypatch):
    cell, about = Cell("half:left", "dps"), {"weights": "a", "data": "b", "dtype": "c"}
    others = [
        Cell("half:right", "dps"), Cell("half:left", "ddnm"), Cell("half:left", "dps", steps=9),
        Cell("half:left", "dps", samples=9), Cell("half:left", "dps", seed=9),
        Cell("half:left", "dps", sampler="ddim"), Cell("half:left", "dps", settings={"strength": 1.0}),
    ]  # fmt: skip
    found = [identity(cell, about), *(identity(other, about) for other in others)]
    found += [identity(cell, {**about, name: "x"}) for name in about]
    assert len(set(found)) == len(found)
    monkeypatch.setattr(cells, "code_hash", lambda method: "changed")
    assert identity(cell, about) not in found


def test_the_code_that_completions_depend_on_is_found_in_its_imports():
    files = {str(path.relative_to(cells.ROOT)) for path in source_files(cells.ROOT / "inpainting.py")}
    assert {"methods/chains.py", "schedule.py", "samplers.py", "rng.py", "data/masks.py", "denoiser.py"} <= files
    assert not {name for name in files if name.startswith(("app", "training", "evaluation"))}
    network = {path.name for path in source_files(cells.ROOT / "model.py")}
    assert {"unet.py", "checkpoint.py"} <= network
    reference = {path.name for path in source_files(cells.ROOT / "evaluation" / "baselines.py")}
    assert "oracle.py" in reference
    assert cells.code_hash("dps") == cells.code_hash("dps") != cells.code_hash("nearest")
    assert "inkfill.unet.UNet" in imported(cells.ROOT / "model.py")


# ---- kept ------------------------------------------------------------------------------------------------------------


def test_completions_are_kept_for_the_same_weights_alone(tmp_path, digits, model):
    cell = Cell("half:left", steps=2, samples=2)
    run, calls = counted(lambda: complete(model, digits[:3], cell))
    first = kept(tmp_path, cell, {"weights": "a"}, run)
    again = kept(tmp_path, cell, {"weights": "a"}, run)
    assert calls == [1]
    for name in ("filled", "mask"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert (first.evaluations, first.machine) == (again.evaluations, again.machine) == (2.0, again.machine)
    kept(tmp_path, cell, {"weights": "b"}, run)
    assert calls == [1, 1]


@pytest.mark.parametrize("damage", ["cut", "empty", "words", "shape", "pickle"])
def test_a_damaged_cell_is_made_again(tmp_path, digits, model, damage):
    cell = Cell("half:left", steps=1, samples=2)
    run, calls = counted(lambda: complete(model, digits[:3], cell))
    whole = kept(tmp_path, cell, {}, run)
    (path,) = (tmp_path / "cells").iterdir()
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:300])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "words":
        path.write_text("not this")
    elif damage == "shape":
        np.savez(path, filled=np.zeros((1, 2), np.uint8), mask=whole.mask, cost=[1.0, 1.0], machine="x")
    else:
        np.savez(path, filled=np.array([{}], object), mask=whole.mask, cost=[1.0, 1.0], machine="x")
    again = kept(tmp_path, cell, {}, run)
    assert calls == [1, 1]
    np.testing.assert_array_equal(again.filled, whole.filled)
    assert kept(tmp_path, cell, {}, run).filled.shape == (3, 2, 28, 28)
    assert calls == [1, 1]


# ---- the protocol ----------------------------------------------------------------------------------------------------


def test_a_plan_is_every_mask_by_every_method():
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


def test_an_evaluation_by_other_weights_finds_nothing_of_the_first(tmp_path, networks, dataset):
    plan = protocol.plan(["half:left"], ["conditional"], [2], 2)
    first = protocol.run(networks, dataset, "test", 4, plan, tmp_path / "out")
    assert first.rows[0]["evaluations"] == 2
    net = networks.model.net
    with torch.no_grad():
        next(net.parameters()).mul_(2)
    save_network(networks.checkpoint, net, net.state_dict(), Recipe().to_json())
    other = protocol.run(
        protocol.Networks.load(networks.checkpoint, dtype="float32"), dataset, "test", 4, plan, tmp_path / "out"
    )
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 2
    assert (other.results[0].done.filled != first.results[0].done.filled).any()
    assert other.about["checkpoint_hash"] != first.about["checkpoint_hash"]


def test_one_evaluation_in_a_folder_at_a_time(tmp_path, networks, dataset):
    plan = protocol.plan(["half:left"], ["conditional"], [1], 1)
    with locked(tmp_path, "evaluate"), pytest.raises(InputError, match="another inkfill evaluate is at work"):
        protocol.run(networks, dataset, "test", 2, plan, tmp_path)
    assert protocol.run(networks, dataset, "test", 2, plan, tmp_path)


def test_regression_needs_its_network(networks, dataset):
    with pytest.raises(InputError, match="--regression"):
        protocol.run(networks, dataset, "test", 4, protocol.plan(["all"], ["regression"], [1]))


@pytest.mark.parametrize("plain", ["biharmonic", "telea"])
def test_advice_says_where_less_will_do(networks, dataset, plain):
    """Digits with a half missing are no smooth surfaces; the rows decide, by two standard errors."""
    plan = protocol.plan(["half:left"], ["conditional", plain, "mean"], [2], 2)
    found = protocol.run(networks, dataset, "test", 6, plan)
    ours, smooth = found.rows[0], found.rows[1]
    ours.update(crps=0.03, crps_se=0.001)
    smooth.update(crps=0.04, crps_se=0.001)
    assert found.advice == [f"half:left: diffusion is better by 25% (CRPS conditional 0.0300, {plain} 0.0400)"]
    smooth.update(crps=0.0315)
    assert f"{plain} is as good here, and needs no training: use it" in found.advice[0]
    del found.results[1]
    assert found.advice == []


def test_advice_says_where_completions_copy_training_images(networks, dataset):
    plan, dataset = protocol.plan(["half:left"], ["conditional"], [1], 1), replace(dataset, train=dataset.train[40:])
    found = protocol.run(networks, dataset, "test", 6, plan)
    assert found.advice == []
    truth, done = dataset.test[:6], found.results[0].done
    nearest = baselines.nearest(dataset.train, truth, done.mask, 1, stream(0))
    learnt_by_heart = replace(done, filled=nearest)
    assert protocol.copied(truth, learnt_by_heart, dataset.train) < 0.05
    assert protocol.copied(truth, replace(done, filled=truth[:, None]), dataset.train) == pytest.approx(1)
    found.rows[0]["copied"] = 0.1
    assert "copies training images (it is 10% as far" in found.advice[0]


# ---- scores and tables -----------------------------------------------------------------------------------------------


def test_a_frechet_distance_of_few_images_is_left_out(digits):
    """Between 20 images it is a hundred times its own floor's error: no figure at all."""
    judges = scores.Judges(
        scores.load_classifier(scores.WHOLE),
        scores.load_classifier(scores.MASKED),
        np.random.rand(300, 128),  # noqa: NPY002
        digits,
    )

    def row(n):
        truth = np.resize(digits, (n, 28, 28))
        done = Completed(np.repeat(truth[:, None], 2, 1), np.ones(truth.shape, bool), 1.0, 1.0)
        return scores.score(truth, done, Cell("all"), np.zeros(n, int), judges)

    few, many = row(20), row(scores.LEAST_IMAGES)
    assert not [name for name in few if name.startswith(("frechet", "kernel"))]
    assert many["frechet"] == pytest.approx(many["frechet_floor"])
    assert "vote" in few
    # Completions that are the truth itself, which is among the training images: as sure, as even and as near as they.
    assert few["confident"] == few["real_confident"]
    assert few["nearest"] == few["real_nearest"] == pytest.approx(0, abs=1e-3)
    assert few["real_imbalance"] == pytest.approx(0.9)  # all labels are 0 here
    assert "imbalance" in table([few], scores.NEW_COLUMNS)
    assert "Frechet" not in table([few], scores.LABEL_COLUMNS)
    assert "Frechet" in table([few, many], scores.LABEL_COLUMNS)


def test_tables_are_markdown_and_leave_out_what_was_not_measured():
    columns = {"name": ("name", "{}"), "value": ("value", "{:.2f}"), "other": ("other", "{:.1f}")}
    rows = [{"name": "a", "value": 1.234}, {"name": "long", "value": float("nan"), "other": None}]
    assert table(rows, columns).splitlines() == [
        "| name | value |", "|------|------:|", "| a    |  1.23 |", "| long |       |",
    ]  # fmt: skip
    assert markdown(["a", "b"], [[1, 2]], left=2).splitlines() == ["| a | b |", "|---|---|", "| 1 | 2 |"]
