"""Checkpoints: whole or refused, and never a pickle."""

import errno
import json
import os
import pickle
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from helpers import TINY, tiny_model
from inkfill.core.unet import UNet, UNetConfig
from inkfill.errors import InputError
from inkfill.evaluation.classifier import Classifier
from inkfill.files import folder_written_whole, read_json, write_json, written_whole
from inkfill.models.checkpoint import load_network, load_state, save_network, save_state
from inkfill.models.model import Model, Recipe, fast_dtype, load


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    net = tiny_model().net
    save_network(path, net, net.state_dict(), Recipe().to_json())
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
    about = {"format": "inkfill-unet-1", "recipe": recipe, "unet": asdict(TINY)}
    save_file({k: v.contiguous() for k, v in weights.items()}, saved, {"inkfill": json.dumps(about)})
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
    """684 bytes once built networks until the memory was gone."""
    about = {"format": "inkfill-unet-1", "unet": shape, "recipe": Recipe().to_json()}
    path = written(tmp_path / "small.safetensors", about)

    def built_of_nothing(*arguments):
        assert torch.empty(0).device.type == "meta"  # shapes without memory
        return UNet(*arguments)

    monkeypatch.setattr("inkfill.checkpoint.UNet", built_of_nothing)
    refused(path, "another architecture")
    if isinstance(shape, dict) and shape["widths" if "widths" in shape else next(iter(shape))] != [4096, 4096]:
        with pytest.raises(InputError):
            UNetConfig.read(shape)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"T": 4 * 10**8}, "levels"),
        ({"T": "1000"}, "T"),
        ({"T": True}, "T"),
        ({"T": 1}, "levels"),
        ({"schedule": "x"}, "schedule"),
        ({"schedule": ["cosine"]}, "schedule"),
        ({"floor": "4"}, "floor"),
        ({"image_size": [28]}, "image_size"),
        ({"image_size": "28x28"}, "image_size"),
        ({"image_size": [0, 0]}, "0x0"),
        ({"least_size": [-8, 8]}, "sides"),
        ({"value_range": [0, 10**400]}, "value_range"),
        ({"value_range": [0, float("inf")]}, "range"),
        ({"sampling_steps": -4}, "evaluations"),
        ({"value_range": [1, 0]}, "range"),
        ({"objective": "magic"}, "objective"),
        ({"step": "many"}, "step"),
        ({"trained_on": 5}, "trained_on"),
        ({"training": 5}, "training"),
        ({"batch_size": "<script>alert(1)</script>"}, "batch_size"),
    ],
)
def test_a_recipe_has_types(saved, change, word):
    net, recipe = load_network(saved)
    save_network(saved, net, net.state_dict(), {**recipe, **change})
    with pytest.raises(InputError, match=word) as caught:
        load(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


PADDED = json.dumps({"format": "inkfill-unet-1", "recipe": {}, "unet": {}, "more": "x" * 2**20})


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"format": ' + "9" * 5000 + "}", "{", "[]", "null", '{"format": 3}', PADDED]
)
def test_metadata_that_is_no_table(tmp_path, text):
    with pytest.raises(InputError, match=r"JSON|not an inkfill checkpoint"):
        load_network(written(tmp_path / "odd.safetensors", text))


def test_recipes_of_an_older_version_are_still_read():
    """Objective and weighting were two settings once."""
    model = load()
    assert model.recipe.objective == "v"
    assert model.recipe.floor == 4
    assert model.recipe.trained_on == "mnist"
    assert model.recipe.step == 18_367
    assert Recipe.read({"objective": "noise", "weighting": "noise"}).objective == "eps"
    assert Recipe.read({"objective": "regression", "weighting": "v"}).objective == "regression"
    assert Recipe.read(Recipe(T=500, training={"masks": "all"}).to_json()) == Recipe(T=500, training={"masks": "all"})


def test_weights_that_are_not_finite_are_never_written(saved):
    before = saved.read_bytes()
    net, recipe = load_network(saved)
    weights = net.state_dict()
    weights["head.bias"] = weights["head.bias"] / 0
    with pytest.raises(InputError, match="not finite"):
        save_network(saved, net, weights, recipe)
    assert saved.read_bytes() == before


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "out"
    with folder_written_whole(folder) as temporary:
        (temporary / "a").write_text("old")
    with pytest.raises(RuntimeError), folder_written_whole(folder) as temporary:  # noqa: PT012
        (temporary / "b").write_text("half")
        raise RuntimeError
    assert [p.name for p in folder.iterdir()] == ["a"]
    with folder_written_whole(folder) as temporary:
        (temporary / "c").write_text("new")
    assert [p.name for p in folder.iterdir()] == ["c"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("failing", [1, 2])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, OSError])
def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch, failing, kind):
    """Whichever of the two renames fails, what was there is there, and nothing else is."""
    folder, replace, calls = tmp_path / "out", Path.replace, []
    with folder_written_whole(folder) as temporary:
        (temporary / "a").write_text("old")

    def renamed(path, target):
        calls.append(target)
        if len(calls) == failing:
            raise kind
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", renamed)
    with pytest.raises(kind), folder_written_whole(folder) as temporary:
        (temporary / "b").write_text("new")
    assert [p.name for p in folder.iterdir()] == ["a"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_called_so_and_names_the_file(tmp_path):
    for error in (OSError(errno.ENOSPC, "no"), OSError("376320 requested and 65408 written")):
        with pytest.raises(OSError, match="No space left") as found, written_whole(tmp_path / "x.npy"):
            raise error
        assert found.value.filename == str(tmp_path / "x.npy")
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_not_utf8_is_said(tmp_path, saved):
    other = tmp_path / os.fsdecode(b"x\xff.safetensors")
    other.write_bytes(saved.read_bytes())
    with pytest.raises(InputError, match="not UTF-8"):
        load_network(other)
    with written_whole(
        tmp_path / ("\U0001f9ff" * 60 + ".npy")
    ) as temporary:  # 240 bytes, and as many for a temporary one
        temporary.write_text("x")


def test_json_is_strict_and_bounded(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": float("nan"), "b": [float("inf"), 1.5], "c": ("x",)})
    assert read_json(path) == {"a": None, "b": [None, 1.5], "c": ["x"]}
    for text in ("{", "[" * 100_000, "9" * 5000):
        path.write_text(text)
        with pytest.raises(InputError, match=r"a\.json"):
            read_json(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path / "none.json")


# ---- the model -------------------------------------------------------------------------------------------------------


def test_a_model_leaves_the_network_that_it_is_given_alone():
    net = UNet(TINY)
    model = Model(net, Recipe(), dtype=torch.bfloat16)
    assert net.training
    assert all(p.dtype == torch.float32 and p.requires_grad for p in net.parameters())
    assert all(p.dtype == torch.bfloat16 and not p.requires_grad for p in model.net.parameters())


def test_building_and_loading_leave_the_global_random_state_alone(saved):
    before = torch.get_rng_state()
    first, second, other = UNet(TINY), UNet(TINY), UNet(TINY, seed=1)
    load(saved)
    load()
    Classifier()
    assert torch.equal(torch.get_rng_state(), before)
    pairs = [(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)]
    assert all(torch.equal(a, b) for a, b in pairs)
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_a_model_says_what_it_is():
    text = repr(load(dtype="float32"))
    for word in ("1.51 M", "grey", "28x28", "mnist", "18,367 steps", "float32", "cpu", "inkfill.inpaint(", "dpmpp-sde"):
        assert word in text


@pytest.mark.parametrize(
    ("can", "expected"),
    [
        ({"amx_bf16": True, "avx512_bf16": True, "cpu_name": "Intel(R) Xeon(R)"}, torch.bfloat16),
        ({"amx_bf16": False, "avx512_bf16": True, "cpu_name": "AMD EPYC"}, torch.bfloat16),
        ({"amx_bf16": False, "avx512_bf16": True, "cpu_name": "Intel(R) Xeon(R)"}, torch.float32),
        ({"amx_bf16": False, "avx512_bf16": False, "cpu_name": "AMD EPYC"}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_precision_follows_a_rule_by_processor(monkeypatch, can, expected):
    """Intel's AVX512-BF16 without AMX has the flag and is slower than float32."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can)
    assert fast_dtype(torch.device("cpu")) == expected
    assert load().dtype == expected
    assert load(dtype="float32").dtype == torch.float32
    with pytest.raises(InputError, match="float16"):
        load(dtype="float16")
