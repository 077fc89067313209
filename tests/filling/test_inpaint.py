"""``inpaint`` and ``sample``: the contracts, the arguments, and priors other than a trained network."""

import numpy as np
import pytest
import torch
from PIL import Image

import inkfill
from helpers import mixture, tiny_model
from inkfill.core.denoiser import Prior
from inkfill.core.masks import parse
from inkfill.core.rng import stream
from inkfill.core.samplers import SAMPLERS
from inkfill.core.schedule import Schedule
from inkfill.data import black_floor, to_x0
from inkfill.errors import InputError
from inkfill.evaluation.analytic import AnalyticPrior, EmpiricalPrior
from inkfill.filling.inpaint import inpaint, sample
from inkfill.methods import METHODS, Task, mean_methods
from inkfill.models.model import Model, Recipe


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_observed_pixels_come_back_bit_for_bit(digits, sampler, dtype):
    noise = np.random.default_rng(0).integers(0, 256, (6, 16, 16), dtype=np.uint8)  # values that no digit has
    mask = parse("half:random").draw(6, 16, 16, stream(0))
    filled = inpaint(tiny_model(dtype), noise, mask, samples=3, steps=3, sampler=sampler)
    assert filled.shape == (6, 3, 16, 16)
    assert filled.dtype == np.uint8
    known = np.broadcast_to(~mask[:, None], filled.shape)
    np.testing.assert_array_equal(filled[known], np.repeat(noise[:, None], 3, 1)[known])
    assert (filled != noise[:, None])[~known].mean() > 0.5


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sample_does_not_depend_on_its_batch(digits, sampler, dtype):
    """The same at 3, 7 and 32 together. float32: within one grey value; bfloat16 (8 bits): within 16."""
    model, images = tiny_model(dtype), digits[:8, 6:22, 6:22]
    mask = parse("half:left").draw(8, 16, 16, stream(0))
    runs = [inpaint(model, images, mask, 4, steps=5, sampler=sampler, rows=rows).astype(int) for rows in (3, 7, 32)]
    allowed = 1 if dtype == torch.float32 else 16
    for other in runs[1:]:
        assert np.abs(other - runs[0]).max() <= allowed
        assert (other != runs[0]).mean() < (1e-3 if dtype == torch.float32 else 0.25)


def test_a_sample_does_not_depend_on_the_other_images(digits, model):
    mask = np.zeros((28, 28), bool)
    mask[8:20, 8:20] = True
    few, many = inpaint(model, digits[:2], mask, 2, steps=4), inpaint(model, digits[:9], mask, 3, steps=4)
    assert np.abs(few.astype(int) - many[:2, :2]).max() <= 1
    # A spec draws the mask of image i whatever comes after it.
    few, many = (inpaint(model, digits[:n], "strokes", 1, steps=2) for n in (2, 9))
    assert np.abs(few.astype(int) - many[:2]).max() <= 1


def test_seeds_and_samples_differ(digits, model):
    with pytest.raises(InputError, match="mask array"):
        inpaint(model, digits[:1], "strokes", 2, steps=4, first=3)
    first = inpaint(model, digits[:1], "half:left", 2, steps=4, seed=0)
    assert (first[:, 0] != first[:, 1]).any()
    assert (first != inpaint(model, digits[:1], "half:left", 2, steps=4, seed=1)).any()
    np.testing.assert_array_equal(first, inpaint(model, digits[:1], "half:left", 2, steps=4, seed=0))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_missing_pixels_are_never_read(digits, model, sampler):
    mask = parse("half:random").draw(4, 28, 28, stream(1))
    garbage = np.where(mask, np.random.default_rng(0).integers(0, 256, mask.shape), digits[:4]).astype(np.uint8)
    clean = inpaint(model, digits[:4], mask, 2, steps=3, sampler=sampler)
    np.testing.assert_array_equal(clean, inpaint(model, garbage, mask, 2, steps=3, sampler=sampler))


def test_nothing_missing_returns_the_input_without_the_network(digits, model):
    spent = []
    filled = inpaint(model, digits[:3], "none", 2, count=spent.append)
    np.testing.assert_array_equal(filled, np.repeat(digits[:3, None], 2, 1))
    assert spent == []


def test_with_everything_missing_inpaint_is_sample(digits, model):
    drawn = inpaint(model, digits[:2], "all", 2, steps=4)
    np.testing.assert_array_equal(drawn, inpaint(model, 255 - digits[:2], "all", 2, steps=4))  # no pixel is read
    np.testing.assert_array_equal(sample(model, 2, steps=4), drawn[:, 0])
    np.testing.assert_array_equal(sample(model, 1), inpaint(model, digits[:1], "all", 1, steps=16)[:, 0])
    assert sample(model, 3, (32, 64), steps=2).shape == (3, 32, 64)


@pytest.mark.parametrize("size", [(28, 28), (32, 32), (64, 64), (16, 40)])
def test_sizes(model, size):
    images = np.zeros((2, *size), np.uint8)
    assert inpaint(model, images, "half:left", 2, steps=2).shape == (2, 2, *size)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_network_evaluations_are_counted(digits, model, sampler):
    spent = []
    inpaint(model, digits[:5], "half:left", 3, steps=7, sampler=sampler, rows=4, count=spent.append)
    assert sum(spent) == 5 * 3 * 7


def test_global_random_state_is_neither_read_nor_changed(digits, model):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    inpaint(model, digits[:2], "strokes", 2, steps=3, sampler="ancestral")
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_progress_adds_up_to_all_samples(digits, model):
    done = []
    mask = np.zeros((5, 28, 28), bool)
    mask[1:, 3:9] = True
    inpaint(model, digits[:5], mask, 3, steps=1, rows=4, progress=done.append)
    assert sum(done) == 15


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"method": "magic"}, "conditional"),
        ({"sampler": "euler"}, "ddim"),
        ({"samples": 0}, "at least 1"),
        ({"steps": 0}, "from 1 to"),
        ({"steps": 10**6}, "from 1 to"),
        ({"mask": "half:up"}, "half:left"),
        ({"mask": np.zeros((28, 28))}, "bool"),
        ({"mask": np.zeros((24, 28), bool)}, "sizes must agree"),
        ({"mask": np.zeros((3, 28, 28), bool)}, "3 images"),
        ({"images": np.zeros((2, 7, 30), np.uint8)}, "at least 8"),
        ({"images": np.full((2, 28, 28), np.nan)}, "NaN"),
    ],
)
def test_bad_arguments(digits, model, change, word):
    with pytest.raises(InputError, match=word):
        inpaint(model, **{"images": digits[:2], "mask": "half:left", "steps": 2, **change})


def test_the_public_names():
    assert inkfill.inpaint is inpaint
    assert inkfill.sample is sample
    assert callable(inkfill.load)
    with pytest.raises(AttributeError):
        inkfill.nonsense  # noqa: B018


def test_a_black_background_comes_out_black(model, digits):
    """Grey values up to the floor become 0 in missing pixels alone; the floor is inferred from the data."""
    plain = inpaint(model, digits[:2], "half:left", 2, steps=2)
    model = Model(model.net, Recipe(floor=40), dtype=model.dtype)
    floored = inpaint(model, digits[:2], "half:left", 2, steps=2)
    mask = np.broadcast_to(parse("half:left").draw(2, 28, 28, stream(0))[:, None], plain.shape)
    np.testing.assert_array_equal(floored, np.where(mask & (plain <= 40), 0, plain))
    assert black_floor(digits) == 4
    assert black_floor(np.arange(256, dtype=np.uint8).reshape(1, 16, 16)) == 0


# ---- arguments -------------------------------------------------------------------------------------------------------


def test_images_in_many_forms(digits, model, tmp_path):
    array = inpaint(model, digits[:2], "half:left", 2, steps=2)
    mask = torch.from_numpy(parse("half:left").draw(2, 28, 28, stream(0)))
    tensor = inpaint(model, torch.from_numpy(digits[:2]), mask, 2, steps=2)
    assert isinstance(tensor, torch.Tensor)
    assert tensor.dtype == torch.uint8
    np.testing.assert_array_equal(tensor.numpy(), array)
    np.testing.assert_array_equal(inpaint(model, list(digits[:2]), "half:left", 2, steps=2), array)
    pictures = [Image.fromarray(digit) for digit in digits[:2]]
    np.testing.assert_array_equal(inpaint(model, pictures, "half:left", 2, steps=2), array)
    np.save(tmp_path / "digits.npy", digits[:2])
    for path in (tmp_path / "digits.npy", str(tmp_path / "digits.npy")):
        np.testing.assert_array_equal(inpaint(model, path, "half:left", 2, steps=2), array)
    pictures[0].save(tmp_path / "one.png")
    np.testing.assert_array_equal(inpaint(model, tmp_path / "one.png", "half:left", 2, steps=2), array[:1])
    with pytest.raises(InputError, match="no such file"):
        inpaint(model, "nowhere.npy", "half:left", 2, steps=2)
    np.save(tmp_path / "left.npy", mask[0].numpy())
    for path in (tmp_path / "left.npy", str(tmp_path / "left.npy")):
        np.testing.assert_array_equal(inpaint(model, digits[:2], path, 2, steps=2), array)
    with pytest.raises(InputError, match="no such mask file"):
        inpaint(model, digits[:2], tmp_path / "nowhere.png", 2, steps=2)


def test_samples_have_the_size_of_the_model():
    model = Model(tiny_model().net, Recipe(image_size=(32, 24)))
    assert sample(model, 2, steps=1).shape == (2, 32, 24)
    with pytest.raises(InputError, match="size"):
        sample(AnalyticPrior(mixture(), Schedule.named("cosine")), 2, steps=1)


def empirical(digits, **settings) -> AnalyticPrior:
    return AnalyticPrior(EmpiricalPrior(to_x0(digits), 0.3), Schedule.named("cosine"), **settings)


def test_an_analytic_prior_is_a_model(digits):
    """A masked training image comes back: its posterior under so narrow a prior is itself."""
    small = digits[:16, 6:22, 6:22]
    filled = inpaint(empirical(small, bounded=True), small[:3], "half:left", 4, steps=20)
    assert filled.shape == (3, 4, 16, 16)
    assert np.abs(filled.astype(int) - small[:3, None]).mean() < 12
    for method in mean_methods():
        assert inpaint(empirical(small), small[:1], "box:10", 1, method, steps=2).shape == (1, 1, 16, 16)


class Foreign(Prior):
    """A user's own prior: a schedule, channels, a denoiser, and nothing more."""

    schedule = Schedule.named("linear", 50)
    channels = 1

    def unconditional(self, like):
        return lambda x_t, t: x_t * float(self.schedule.alpha_bar[t]) ** 0.5  # of N(0, I)


def test_a_prior_of_ones_own_needs_a_schedule_channels_and_a_denoiser(digits):
    prior = Foreign()
    for method in mean_methods():
        if method == "conditional":
            with pytest.raises(InputError, match=r"conditional denoiser.*ddnm.*tds"):
                inpaint(prior, digits[:1], "box:10", 1, method, steps=2)
        else:
            assert inpaint(prior, digits[:1], "box:10", 1, method, steps=2).shape == (1, 1, 28, 28)
    assert sample(prior, 2, (10, 14), steps=3).shape == (2, 10, 14)
    with pytest.raises(InputError, match="no conditional denoiser"):
        inpaint(prior, digits[:1], "box:10", 1, lambda task: task.conditional, steps=2)
    with pytest.raises(InputError, match=r"no prior: give a model, or subclass inkfill\.core\.denoiser\.Prior"):
        inpaint(object(), digits[:1], "box:10", 1)


def test_a_method_may_be_a_function_of_a_task(digits, model):
    seen = []

    def mine(task: Task, brightness: float = 0.0):
        seen.append(task)
        return torch.full_like(task.observation.pixels, brightness)

    filled = inpaint(model, digits[:2], "half:left", 3, mine, settings={"brightness": 1.0})
    assert (filled[..., :14] == 255).all()
    np.testing.assert_array_equal(filled[..., 14:], np.repeat(digits[:2, None, :, 14:], 3, 1))
    assert len(seen) == 1
    with pytest.raises(InputError, match=r"unknown setting 'colour'.*brightness"):
        inpaint(model, digits[:1], "half:left", 1, mine, settings={"colour": 1.0})
    with pytest.raises(InputError, match="not finite"):
        inpaint(model, digits[:1], "half:left", 1, lambda task: task.observation.pixels / 0)
    for wrong in (None, np.zeros((1, 1, 28, 28)), torch.zeros(1, 28, 28)):
        with pytest.raises(InputError, match="method"):
            inpaint(model, digits[:1], "half:left", 1, lambda task, wrong=wrong: wrong)


def test_settings_reach_the_method(digits, model):
    def filled(**settings):
        return inpaint(model, digits[:2], "half:left", 2, "dps", steps=3, settings=settings)

    np.testing.assert_array_equal(filled(), filled(strength=4.0))
    assert (filled() != filled(strength=0.5)).any()
    spent = []
    inpaint(model, digits[:2], "half:left", 1, "tds", steps=3, settings={"particles": 3}, count=spent.append)
    assert sum(spent) == 2 * 3 * 3 == 2 * METHODS["tds"].evaluations(3, {"particles": 3})
    for settings in ({"strength": -1}, {"power": 1}):
        with pytest.raises(InputError, match="setting"):
            filled(**settings)


def test_a_denoiser_without_a_gradient_is_refused(digits):
    class Closed(Foreign):
        def unconditional(self, like):
            return torch.no_grad()(super().unconditional(like))

    for method in ("dps", "pigdm", "tds"):
        with pytest.raises(InputError, match="no gradient"):
            inpaint(Closed(), digits[:1], "box:10", 1, method, steps=2)
        with torch.inference_mode():  # the caller's mode does not matter
            assert inpaint(Foreign(), digits[:1], "box:10", 1, method, steps=2).shape == (1, 1, 28, 28)


def test_noisy_observed_pixels_are_estimated_too(digits, model):
    filled = inpaint(model, digits[:2], "half:left", 1, "mmps", steps=2, observation_noise=30.0)
    assert filled.shape == (2, 1, 28, 28)
    assert (filled[:, 0, :, 14:] != digits[:2, :, 14:]).any()
    assert inpaint(model, digits[:1], "none", 1, "ddrm", steps=2, observation_noise=30.0).shape == (1, 1, 28, 28)
    with pytest.raises(InputError, match="takes observed pixels as exact: choose one of pigdm"):
        inpaint(model, digits[:2], "half:left", 1, "ddnm", observation_noise=1.0)
    with pytest.raises(InputError, match="number of at least 0"):
        inpaint(model, digits[:2], "half:left", 1, "mmps", observation_noise=-1.0)
    with pytest.raises(InputError, match="windows"):
        inpaint(model, np.zeros((1, 200, 200), np.uint8), "half:left", 1, "mmps", observation_noise=1.0)
