"""The model: its recipe, precision and repr; loading changes nothing global."""

import pytest
import torch

from helpers import TINY
from inkfill.core.denoiser import Observation
from inkfill.core.unet import UNet
from inkfill.errors import InputError
from inkfill.evaluation.classifier import Classifier
from inkfill.models.checkpoint import load_network, save_network
from inkfill.models.model import Model, Recipe, find_device, find_dtype, load


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"T": 4 * 10**8}, "the recipe's T"),
        ({"T": "1000"}, "T"),
        ({"T": True}, "T"),
        ({"T": 1}, "the recipe's T"),
        ({"schedule": "x"}, "schedule"),
        ({"schedule": ["cosine"]}, "schedule"),
        ({"floor": "4"}, "floor"),
        ({"image_size": [28]}, "image_size"),
        ({"image_size": "28x28"}, "image_size"),
        ({"image_size": [0, 0]}, "image_size"),
        ({"least_size": [-8, 8]}, "least_size"),
        ({"value_range": [0, 10**400]}, "value_range"),
        ({"value_range": [0, float("inf")]}, "value_range"),
        ({"sampling_steps": -4}, "sampling_steps"),
        ({"value_range": [1, 0]}, "value_range"),
        ({"step": "many"}, "step"),
        ({"trained_on": 5}, "trained_on"),
        ({"training": 5}, "training"),
        ({"batch_size": "<script>alert(1)</script>"}, "batch_size"),
    ],
)
def test_an_impossible_recipe_is_refused(checkpoint, change, word):
    net, recipe = load_network(checkpoint)
    save_network(checkpoint, net, net.state_dict(), {**recipe, **change})
    with pytest.raises(InputError, match=word) as caught:
        load(checkpoint)
    assert str(checkpoint) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_recipe_of_the_shipped_weights():
    model = load()
    assert model.recipe.objective == "v"
    assert model.recipe.floor == 4
    assert model.recipe.trained_on == "mnist"
    assert model.recipe.step == 18_367
    assert model.gives == "posterior mean"


def test_a_recipe_comes_back_from_its_json():
    assert Recipe.read(Recipe(T=500, training={"masks": "all"}).to_json()) == Recipe(T=500, training={"masks": "all"})


def test_a_model_holds_a_copy_of_its_network():
    net = UNet(TINY)
    model = Model(net, Recipe(), dtype=torch.bfloat16)
    assert net.training
    assert all(p.dtype == torch.float32 and p.requires_grad for p in net.parameters())
    assert all(p.dtype == torch.bfloat16 and not p.requires_grad for p in model.net.parameters())


def test_building_and_loading_leave_the_global_random_state_alone(checkpoint):
    before = torch.get_rng_state()
    first, second, other = UNet(TINY), UNet(TINY), UNet(TINY, seed=1)
    load(checkpoint)
    load()
    Classifier()
    assert torch.equal(torch.get_rng_state(), before)
    pairs = [(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)]
    assert all(torch.equal(a, b) for a, b in pairs)
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_the_repr_of_a_model():
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
def test_compute_precision_follows_the_processor(monkeypatch, can, expected):
    """Intel's AVX512-BF16 without AMX is slower than float32."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can)
    assert find_dtype(None, torch.device("cpu")) == expected
    assert load().dtype == expected
    assert load(dtype="float32").dtype == torch.float32
    with pytest.raises(InputError, match="float16"):
        load(dtype="float16")


def test_an_unknown_objective_has_no_posterior_mean(model):
    """Such a checkpoint is read, so that what it holds can be shown; ``conditional`` refuses it."""
    other = Model(model.net, Recipe.read({"objective": "magic"}))
    assert other.gives == "estimate"
    with pytest.raises(InputError, match="objective magic, which gives no posterior mean: use a network trained with"):
        other.conditional(Observation.nothing(torch.zeros(1, 1, 28, 28)))


def test_each_network_gives_its_own_kind(model):
    """A network of means draws nothing, and a few-step model has no mean."""
    nothing = Observation.nothing(torch.zeros(1, 1, 28, 28))
    with pytest.raises(InputError, match="posterior means and no samples"):
        model.draw(nothing)
    with pytest.raises(InputError, match="use the method few"):
        load("mnist-few").conditional(nothing)


def test_the_denoiser_returns_observed_pixels_and_x0_from_v(model):
    x0 = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.zeros(2, 1, 28, 28, dtype=torch.bool)
    mask[..., :14] = True
    observation = Observation.of(x0, mask)
    x_t = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    v = model.net(x_t, observation.pixels, observation.known.float(), torch.tensor([0.4]))
    expected = torch.where(mask, model.schedule.x0_from_v(x_t, 400, v), x0)
    torch.testing.assert_close(model.conditional(observation)(x_t, 400), expected)


def test_devices():
    assert find_device("cpu").type == "cpu"
    for name, word in (("tpu", "unknown device"), ("meta", "unknown device"), ("cpu:1", "not available")):
        with pytest.raises(InputError, match=word):
            find_device(name)
