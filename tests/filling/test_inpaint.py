"""The contracts: known pixels, batch independence, no peeking, nothing and everything missing."""

import numpy as np
import pytest
import torch
from PIL import Image

import inkfill
from helpers import mixture, tiny_model
from inkfill.core.denoiser import ConditionalPrior, Observation, Prior, likelihood_gradient
from inkfill.core.masks import parse
from inkfill.core.rng import SampleNoise, stream
from inkfill.core.samplers import spaced_timesteps
from inkfill.core.schedule import Schedule
from inkfill.data import black_floor, to_x0
from inkfill.defaults import SAMPLERS
from inkfill.errors import InputError
from inkfill.evaluation.analytic import AnalyticPrior, EmpiricalPrior
from inkfill.filling.inpaint import inpaint, sample, unlike
from inkfill.methods import Task
from inkfill.models.model import Model, Recipe


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_known_pixels_bit_for_bit(digits, sampler, dtype):
    noise = np.random.default_rng(0).integers(0, 256, digits[:6].shape, dtype=np.uint8)  # every value, not just digits
    mask = parse("half:random").draw(6, 28, 28, stream(0))
    filled = inpaint(tiny_model(dtype), noise, mask, samples=3, steps=3, sampler=sampler)
    assert filled.shape == (6, 3, 28, 28)
    assert filled.dtype == np.uint8
    known = np.broadcast_to(~mask[:, None], filled.shape)
    np.testing.assert_array_equal(filled[known], np.repeat(noise[:, None], 3, 1)[known])
    assert (filled != noise[:, None])[~known].mean() > 0.5


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_completion_does_not_depend_on_its_batch(digits, sampler, dtype):
    """The same at 1, 7 and 64 together. float32: within one grey level; bfloat16 (8 bits): within a few."""
    model = tiny_model(dtype)
    mask = parse("half:left").draw(8, 28, 28, stream(0))
    runs = [inpaint(model, digits[:8], mask, 8, steps=5, sampler=sampler, rows=rows).astype(int) for rows in (1, 7, 64)]
    allowed = 1 if dtype == torch.float32 else 16
    for other in runs[1:]:
        assert np.abs(other - runs[0]).max() <= allowed
        assert (other != runs[0]).mean() < (1e-3 if dtype == torch.float32 else 0.25)


def test_a_completion_does_not_depend_on_the_other_images(digits, model):
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
def test_nothing_reads_the_missing_pixels(digits, model, sampler):
    mask = parse("half:random").draw(4, 28, 28, stream(1))
    garbage = np.where(mask, np.random.default_rng(0).integers(0, 256, mask.shape), digits[:4]).astype(np.uint8)
    clean = inpaint(model, digits[:4], mask, 2, steps=3, sampler=sampler)
    np.testing.assert_array_equal(clean, inpaint(model, garbage, mask, 2, steps=3, sampler=sampler))


def test_an_observation_holds_no_missing_pixel(digits):
    mask = torch.from_numpy(parse("pixels:0.5").draw(4, 28, 28, stream(0))[:, None])
    observation = Observation.of(to_x0(digits[:4]), mask)
    assert (observation.pixels[mask] == 0).all()
    torch.testing.assert_close(observation.pixels[~mask], to_x0(digits[:4])[~mask], rtol=0, atol=0)


def test_nothing_missing_returns_the_input_without_the_network(digits, model):
    spent = []
    filled = inpaint(model, digits[:3], "none", 2, count=spent.append)
    np.testing.assert_array_equal(filled, np.repeat(digits[:3, None], 2, 1))
    assert spent == []


def test_everything_missing_generates(digits, model):
    drawn = inpaint(model, digits[:2], "all", 2, steps=4)
    np.testing.assert_array_equal(drawn, inpaint(model, 255 - digits[:2], "all", 2, steps=4))  # nothing is read
    np.testing.assert_array_equal(sample(model, 2, steps=4), drawn[:, 0])
    np.testing.assert_array_equal(sample(model, 1), inpaint(model, digits[:1], "all", 1, steps=16)[:, 0])
    assert sample(model, 3, (32, 64), steps=2).shape == (3, 32, 64)


@pytest.mark.parametrize("size", [(28, 28), (32, 32), (64, 64), (16, 40)])
def test_sizes(model, size):
    images = np.zeros((2, *size), np.uint8)
    assert inpaint(model, images, "half:left", 2, steps=2).shape == (2, 2, *size)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_evaluations_are_counted(digits, model, sampler):
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


def test_progress_adds_up_to_all_completions(digits, model):
    done = []
    mask = np.zeros((5, 28, 28), bool)
    mask[1:, 3:9] = True
    inpaint(model, digits[:5], mask, 3, steps=1, rows=4, progress=done.append)
    assert sum(done) == 15


def test_levels():
    assert spaced_timesteps(1000, 1) == [1000, 0]
    assert spaced_timesteps(10, 10) == list(range(10, -1, -1))
    assert len(set(spaced_timesteps(1000, 999))) == 1000
    for steps in (0, -1, 1001):
        with pytest.raises(InputError, match="from 1 to 1000"):
            spaced_timesteps(1000, steps)


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


def test_the_package_offers_what_the_readme_says():
    assert inkfill.inpaint is inpaint
    assert inkfill.sample is sample
    assert callable(inkfill.load)
    with pytest.raises(AttributeError):
        inkfill.nonsense  # noqa: B018


def test_a_black_background_comes_out_black(model, digits):
    """Grey levels up to the floor are 0, in missing pixels alone; and whether there is a floor is read off the data."""
    plain = inpaint(model, digits[:2], "half:left", 2, steps=2)
    model = Model(model.net, Recipe(floor=40), dtype=model.dtype)
    floored = inpaint(model, digits[:2], "half:left", 2, steps=2)
    mask = np.broadcast_to(parse("half:left").draw(2, 28, 28, stream(0))[:, None], plain.shape)
    np.testing.assert_array_equal(floored, np.where(mask & (plain <= 40), 0, plain))
    assert black_floor(digits) == 4
    assert black_floor(np.arange(256, dtype=np.uint8).reshape(1, 16, 16)) == 0


# ---- the public door -------------------------------------------------------------------------------------------------


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


def test_an_oracle_goes_through_the_public_door(digits):
    """A masked training image comes back: its posterior under so narrow a prior is itself."""
    filled = inpaint(empirical(digits, bounded=True), digits[:3], "half:left", 4, steps=30)
    assert filled.shape == (3, 4, 28, 28)
    assert np.abs(filled.astype(int) - digits[:3, None]).mean() < 12
    for method in METHODS:
        assert inpaint(empirical(digits), digits[:1], "box:10", 1, method, steps=2).shape == (1, 1, 28, 28)


class Foreign:
    """What somebody else's model might be: a schedule, channels, a denoiser, and nothing more."""

    schedule = Schedule.named("linear", 50)
    channels = 1

    def unconditional(self, like):
        return lambda x_t, t: x_t * float(self.schedule.alpha_bar[t]) ** 0.5  # of N(0, I)


def test_a_foreign_prior_needs_no_more_than_the_protocol(digits):
    prior = Foreign()
    assert isinstance(prior, Prior)
    assert not isinstance(prior, ConditionalPrior)
    for method in METHODS:
        if method == "conditional":
            with pytest.raises(InputError, match=r"conditional denoiser.*replacement.*tds"):
                inpaint(prior, digits[:1], "box:10", 1, method, steps=2)
        else:
            assert inpaint(prior, digits[:1], "box:10", 1, method, steps=2).shape == (1, 1, 28, 28)
    assert sample(prior, 2, (10, 14), steps=3).shape == (2, 10, 14)
    with pytest.raises(InputError, match="no conditional denoiser"):
        inpaint(prior, digits[:1], "box:10", 1, lambda task: task.conditional, steps=2)


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
    for settings in ({"strength": float("nan")}, {"strength": -1}, {"strength": "4"}, {"power": 1}):
        with pytest.raises(InputError, match="setting"):
            filled(**settings)
    for method, name, value in (("ddrm", "eta", 1.5), ("mgps", "middle", 2), ("pigdm", "prior_variance", 0)):
        with pytest.raises(InputError, match=f"setting {name} must be a number from"):
            inpaint(model, digits[:1], "half:left", 1, method, steps=2, settings={name: value})
    for settings in ({"particles": 0}, {"particles": 2.5}):
        with pytest.raises(InputError, match="whole number"):
            inpaint(model, digits[:1], "half:left", 1, "tds", steps=1, settings=settings)


def test_an_unknown_sampler_in_a_task_is_refused(digits, model):
    seen = Observation.nothing(to_x0(digits[:1]))
    with pytest.raises(InputError, match="unknown sampler"):
        Task(model, seen, SampleNoise(0, [0], [0], (1, 28, 28)), [1000, 0], sampler="euler")


def test_a_denoiser_without_a_gradient_is_refused(digits):
    class Closed(Foreign):
        def unconditional(self, like):
            return torch.no_grad()(super().unconditional(like))

    for method in ("dps", "pigdm", "tds"):
        with pytest.raises(InputError, match="no gradient"):
            inpaint(Closed(), digits[:1], "box:10", 1, method, steps=2)
        with torch.inference_mode():  # of the caller: no business of the denoiser's
            assert inpaint(Foreign(), digits[:1], "box:10", 1, method, steps=2).shape == (1, 1, 28, 28)


def test_the_clamp_silences_no_known_pixel(digits):
    """A prediction that is out of range still pulls: its clamp is outside the gradient."""

    class Loud(Foreign):
        bounded = True

        def unconditional(self, like):
            return lambda x_t, t: 5 + x_t

    seen = Observation.of(to_x0(digits[:1]), torch.zeros(1, 1, 28, 28, dtype=torch.bool))
    task = Task(Loud(), seen, SampleNoise(0, [0], [0], (1, 28, 28)), [50, 0])
    x0_hat, log_p, gradient = task.likelihood_gradient(torch.zeros(1, 1, 28, 28), 25, 1.0)
    assert (x0_hat == 1).all()
    torch.testing.assert_close(gradient, seen.pixels - 1)
    assert torch.isfinite(log_p).all()


def test_the_likelihood_counts_values_and_not_pixels():
    """Three channels, one pixel known: three numbers were observed."""
    seen = Observation.of(torch.zeros(1, 3, 2, 2), torch.tensor([[[[False, True], [True, True]]]]))
    assert seen.known.sum() == 3
    _, log_p, _ = likelihood_gradient(lambda x_t, t: x_t, torch.zeros(1, 3, 2, 2), 5, seen, 1.0)
    assert float(log_p) == pytest.approx(-3 / 2 * np.log(2 * np.pi))


def test_images_of_another_kind_are_noticed(digits):
    model = Model(tiny_model().net, Recipe(black=0.8, floor=4))
    nothing = np.zeros((4, 28, 28), bool)
    assert unlike(model, digits[:4], nothing) == []
    (reason,) = unlike(model, np.full((1, 28, 28), 90, np.uint8), nothing[:1])
    assert "0%" in reason
    (reason,) = unlike(model, np.zeros((1, 32, 28), np.uint8) + digits[0, 0, 0], np.ones((1, 32, 28), bool))
    assert "28x28 images, these are 32x28" in reason
    old = Model(tiny_model().net, Recipe(floor=4))  # of version 0.1, which measured no share of black
    assert unlike(old, digits[:4], nothing) == []
    assert unlike(old, np.full((1, 28, 28), 90, np.uint8), nothing[:1])
    assert unlike(Foreign(), digits[:4], nothing) == []


def test_calls_of_version_0_1_still_mean_what_they_meant(model, digits):
    """Every argument by position, in the order of then, and by the names of then."""
    seen: list[int] = []
    by_place = inpaint(model, digits[:2], "half:left", 2, "conditional", 3, 5, "ddim", 4, seen.append, None, 0)
    by_name = inpaint(model=model, images=digits[:2], mask="half:left", samples=2, steps=3, seed=5, sampler="ddim")
    np.testing.assert_array_equal(by_place, by_name)
    assert sum(seen) == 4
    assert sample(model=model, count=1, size=(28, 28), steps=2, seed=1, sampler="ddim").shape == (1, 28, 28)
