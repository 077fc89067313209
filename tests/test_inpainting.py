"""The contracts: known pixels, batch independence, no peeking, nothing and everything missing."""

import numpy as np
import pytest
import torch

import inkfill
from conftest import tiny_model
from inkfill.data import black_floor, to_x0
from inkfill.defaults import SAMPLERS
from inkfill.denoiser import Observation
from inkfill.errors import InputError
from inkfill.inpainting import inpaint, sample
from inkfill.masks import parse
from inkfill.rng import stream
from inkfill.samplers import spaced_levels


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
    filled = inpaint(model, digits[:3], "none", 2)
    np.testing.assert_array_equal(filled, np.repeat(digits[:3, None], 2, 1))
    assert model.evaluations == 0


def test_everything_missing_generates(digits, model):
    drawn = inpaint(model, digits[:2], "all", 2, steps=4)
    np.testing.assert_array_equal(drawn, inpaint(model, 255 - digits[:2], "all", 2, steps=4))  # nothing is read
    np.testing.assert_array_equal(sample(model, 2, steps=4), drawn[:, 0])
    assert sample(model, 3, (32, 64), steps=2).shape == (3, 32, 64)


@pytest.mark.parametrize("size", [(28, 28), (32, 32), (64, 64), (16, 40)])
def test_sizes(model, size):
    images = np.zeros((2, *size), np.uint8)
    assert inpaint(model, images, "half:left", 2, steps=2).shape == (2, 2, *size)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_evaluations_are_counted(digits, model, sampler):
    inpaint(model, digits[:5], "half:left", 3, steps=7, sampler=sampler, rows=4)
    assert model.evaluations == 5 * 3 * 7


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
    assert spaced_levels(1000, 1) == [1000, 0]
    assert spaced_levels(10, 10) == list(range(10, -1, -1))
    assert len(set(spaced_levels(1000, 999))) == 1000
    for steps in (0, -1, 1001):
        with pytest.raises(InputError, match="from 1 to 1000"):
            spaced_levels(1000, steps)


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
        ({"images": np.zeros((2, 30, 30), np.uint8)}, "multiples of 4"),
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
    model.recipe["floor"] = 40
    floored = inpaint(model, digits[:2], "half:left", 2, steps=2)
    mask = np.broadcast_to(parse("half:left").draw(2, 28, 28, stream(0))[:, None], plain.shape)
    np.testing.assert_array_equal(floored, np.where(mask & (plain <= 40), 0, plain))
    assert black_floor(digits) == 4
    assert black_floor(np.arange(256, dtype=np.uint8).reshape(1, 16, 16)) == 0
