"""Checkpoints: whole or refused, and never a pickle."""

import json
import pickle
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import save_file

from conftest import TINY, tiny_model
from inkfill.checkpoint import load_network, load_state, save_network, save_state, written_whole
from inkfill.errors import InputError
from inkfill.train import TrainConfig


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    net = tiny_model().net
    save_network(path, net, net.state_dict(), asdict(TrainConfig(unet=TINY)))
    return path


def test_round_trip(saved):
    net, recipe = load_network(saved)
    for name, value in tiny_model().net.state_dict().items():
        assert torch.equal(net.state_dict()[name], value)
    assert recipe["schedule"] == "cosine"
    assert net.config == TINY
    assert not net.training


def refused(path, *words):
    with pytest.raises(InputError) as caught:
        load_network(path)
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_what_is_not_a_checkpoint_is_refused(saved, tmp_path):
    refused(tmp_path / "none.safetensors", "no such")
    whole = saved.read_bytes()
    for cut in (0, 5, 500, len(whole) - 1):
        saved.write_bytes(whole[:cut])
        refused(saved, "not a whole safetensors file")
    saved.write_bytes(pickle.dumps({"a": 1}))
    refused(saved, "pickles")
    torch.save({"a": torch.ones(2)}, saved)
    refused(saved, "pickles")
    save_file({"a": torch.ones(2)}, saved)
    refused(saved, "not an inkfill checkpoint")


def test_equal_weights_are_equal_bytes(saved):
    net, recipe = load_network(saved)
    first = saved.read_bytes()
    save_network(saved, net, net.state_dict(), recipe)
    assert saved.read_bytes() == first


def test_another_format_is_refused(saved):
    save_file({"a": torch.ones(2)}, saved, {"inkfill": json.dumps({"format": "inkfill-unet-99"})})
    refused(saved, "inkfill-unet-99")


def test_another_architecture_is_refused(saved):
    net, recipe = load_network(saved)
    weights = net.state_dict()
    for shape in ({"widths": [8, 8]}, {"colour": 3}, {**asdict(TINY), "widths": [32, 64]}):
        about = {"format": "inkfill-unet-1", "recipe": recipe, "unet": shape}
        save_file({k: v.contiguous() for k, v in weights.items()}, saved, {"inkfill": json.dumps(about)})
        refused(saved, "another architecture")
    weights["head.bias"] = weights["head.bias"] * float("nan")
    save_network(saved, net, weights, recipe)
    refused(saved, "NaN")


def test_state_never_runs_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "state.pt"
    torch.save({"a": Evil()}, path)
    with pytest.raises(InputError, match="not a whole training state"):
        load_state(path)
    assert not (tmp_path / "ran").exists()
    save_state(path, {"a": torch.arange(3), "step": 4})
    assert load_state(path)["step"] == 4


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), written_whole(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
    with written_whole(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
