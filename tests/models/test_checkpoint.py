"""Checkpoints: read whole or refused, and never a pickle."""

import json
import os
import pickle
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import save_file

from helpers import TINY, tiny_model
from inkfill.core.unet import UNet, UNetConfig
from inkfill.errors import InputError
from inkfill.models.checkpoint import load_network, load_state, save_network, save_state
from inkfill.models.model import Recipe


def test_round_trip(checkpoint):
    net, recipe = load_network(checkpoint)
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


def test_other_files_are_refused(checkpoint, tmp_path):
    refused(tmp_path / "none.safetensors", "no such")
    whole = checkpoint.read_bytes()
    for cut in (0, 5, 500, len(whole) - 1):
        checkpoint.write_bytes(whole[:cut])
        refused(checkpoint, "not a whole safetensors file")
    checkpoint.write_bytes(pickle.dumps({"a": 1}))
    refused(checkpoint, "pickles")
    torch.save({"a": torch.ones(2)}, checkpoint)
    refused(checkpoint, "pickles")
    save_file({"a": torch.ones(2)}, checkpoint)
    refused(checkpoint, "not an inkfill checkpoint")


def test_equal_weights_are_equal_bytes(checkpoint):
    net, recipe = load_network(checkpoint)
    first = checkpoint.read_bytes()
    save_network(checkpoint, net, net.state_dict(), recipe)
    assert checkpoint.read_bytes() == first


def test_another_format_is_refused(checkpoint):
    save_file({"a": torch.ones(2)}, checkpoint, {"inkfill": json.dumps({"format": "inkfill-unet-99"})})
    refused(checkpoint, "inkfill-unet-99")


def test_another_architecture_is_refused(checkpoint):
    net, recipe = load_network(checkpoint)
    weights = net.state_dict()
    for shape in ({"widths": [8, 8]}, {"colour": 3}, {**asdict(TINY), "widths": [32, 64]}):
        about = {"format": "inkfill-unet-1", "recipe": recipe, "unet": shape}
        save_file({k: v.contiguous() for k, v in weights.items()}, checkpoint, {"inkfill": json.dumps(about)})
        refused(checkpoint, "another architecture")
    weights["head.bias"] = weights["head.bias"] * float("nan")
    about = {"format": "inkfill-unet-1", "recipe": recipe, "unet": asdict(TINY)}
    save_file({k: v.contiguous() for k, v in weights.items()}, checkpoint, {"inkfill": json.dumps(about)})
    refused(checkpoint, "NaN")


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


# ---- hostile and broken files ----------------------------------------------------------------------------------------


def written(path, about, tensors=None):
    text = about if isinstance(about, str) else json.dumps(about)
    save_file(tensors or {"a": torch.ones(2)}, path, {"inkfill": text})
    return path


@pytest.mark.parametrize(
    "shape",
    [
        {"widths": [4096, 4096]},
        {"widths": [9000, 9000]},
        {"blocks": [1, 10**9]},
        {"time_width": 10**9},
        {"channels": 10**6},
        {"widths": 9000},
        {"widths": "ab"},
        {"widths": [64, 192, 3]},
        {"widths": [8, 8, 8, 8, 64], "blocks": [1, 1, 1, 1, 1]},
        {"widths": [-64, 192]},
        {"widths": [64.5, 192]},
        [],
        None,
        7,
    ],
)
def test_a_small_file_cannot_ask_for_a_large_network(tmp_path, monkeypatch, shape):
    """The network is built on the meta device before a tensor is read."""
    about = {"format": "inkfill-unet-1", "unet": shape, "recipe": Recipe().to_json()}
    path = written(tmp_path / "small.safetensors", about)

    def without_memory(*arguments):
        assert torch.empty(0).device.type == "meta"
        return UNet(*arguments)

    monkeypatch.setattr("inkfill.models.checkpoint.UNet", without_memory)
    refused(path, "another architecture")
    if isinstance(shape, dict) and shape["widths" if "widths" in shape else next(iter(shape))] != [4096, 4096]:
        with pytest.raises(InputError):
            UNetConfig.read(shape)


PADDED = json.dumps({"format": "inkfill-unet-1", "recipe": {}, "unet": {}, "more": "x" * 2**20})


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"format": ' + "9" * 5000 + "}", "{", "[]", "null", '{"format": 3}', PADDED]
)
def test_invalid_metadata_is_refused(tmp_path, text):
    with pytest.raises(InputError, match=r"JSON|not an inkfill checkpoint"):
        load_network(written(tmp_path / "odd.safetensors", text))


def test_weights_that_are_not_finite_are_never_written(checkpoint):
    before = checkpoint.read_bytes()
    net, recipe = load_network(checkpoint)
    weights = net.state_dict()
    weights["head.bias"] = weights["head.bias"] / 0
    with pytest.raises(InputError, match="not finite"):
        save_network(checkpoint, net, weights, recipe)
    assert checkpoint.read_bytes() == before


def test_a_name_that_is_not_utf8_is_refused(tmp_path, checkpoint):
    other = tmp_path / os.fsdecode(b"x\xff.safetensors")
    other.write_bytes(checkpoint.read_bytes())
    with pytest.raises(InputError, match="not UTF-8"):
        load_network(other)
