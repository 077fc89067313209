"""Filling images of any dtype and number of channels: what comes back, and what is refused."""

import numpy as np
import pytest
import torch

from helpers import images_of, model_of, observed_alike, tiny_model
from inkfill.core.denoiser import Observation
from inkfill.core.rng import SampleNoise, stream
from inkfill.core.samplers import spaced_timesteps
from inkfill.core.schedule import Schedule
from inkfill.data import masks
from inkfill.errors import InputError
from inkfill.evaluation.analytic import AnalyticPrior, GaussianMixture
from inkfill.filling.inpaint import inpaint
from inkfill.methods import METHODS, Task

DTYPES = ["uint8", "uint16", "float16", "float32", "float64", "bool"]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_and_channels_come_back(channels, dtype):
    images = images_of(dtype, (2, 11, 14) if channels == 1 else (2, 11, 14, channels))
    mask = masks.fit("box:5", images)
    filled = inpaint(model_of(channels), images, mask, 2, steps=2)
    assert filled.shape == (2, 2, *images.shape[1:])
    assert observed_alike(filled, images, mask)
    missing = filled[np.broadcast_to(mask[:, None], (2, 2, 11, 14))]
    assert len(np.unique(missing)) > 1
    if np.dtype(dtype).kind == "f":
        assert (missing >= 0).all()
        assert (missing <= 1).all()


@pytest.mark.parametrize("method", [name for name in METHODS if name != "few"])
def test_every_method_fills_odd_sizes_in_colour_without_reading_missing_pixels(method):
    images = images_of("uint8", (2, 9, 13, 3))
    mask = masks.fit("pixels:0.5", images)
    garbage = images.copy()
    garbage[mask] = 255 - garbage[mask]
    filled = inpaint(model_of(3), images, mask, 1, method, steps=2)
    assert observed_alike(filled, images, mask)
    np.testing.assert_array_equal(filled, inpaint(model_of(3), garbage, mask, 1, method, steps=2))


def test_conditional_samples_an_analytic_posterior_in_three_channels():
    """One missing pixel of three values, correlated with an observed one: 1,500 samples.

    Tolerance: 5 standard errors of the mean and of the standard deviation, plus 4 % for 100 steps.
    """
    d = 6  # two pixels of three channels
    a = torch.from_numpy(stream(0, "colour").standard_normal((d, d)))
    covariance = a @ a.T / d + 0.3 * torch.eye(d, dtype=torch.float64)
    mixture = GaussianMixture(torch.ones(1), torch.zeros(1, d), covariance[None])
    prior = AnalyticPrior(mixture, Schedule.named("cosine"), channels=3)
    x0 = torch.tensor([0.5, 0.0, -0.3, 0.0, 0.8, 0.0]).view(1, 3, 1, 2).expand(1500, -1, -1, -1)
    observation = Observation.of(x0, torch.tensor([[[[False, True]]]]))
    posterior = mixture.posterior(Observation(observation.pixels[:1], observation.known[:1]))
    noise = SampleNoise(0, np.arange(1500), np.zeros(1500, int), (3, 1, 2))
    task = Task(prior, observation, noise, spaced_timesteps(1000, 100), "ancestral")
    missing = (~observation.known[0]).flatten()
    x = METHODS["conditional"].run(task).flatten(1).double()[:, missing]
    mean, std = posterior.mean()[missing], posterior.covariance().diagonal().sqrt()[missing]
    assert ((x.mean(0) - mean).abs() < std * (5 / 1500**0.5 + 0.04)).all()
    assert ((x.std(0) / std - 1).abs() < 5 / 3000**0.5 + 0.04).all()


def test_other_channels_than_the_model_expects_are_refused():
    colour, grey = images_of("uint8", (1, 12, 12, 3)), images_of("uint8", (1, 12, 12))
    with pytest.raises(InputError, match="--grey"):
        inpaint(model_of(1), colour, "box:4", 1, steps=1)
    with pytest.raises(InputError, match="the images are grey, the weights expect colour"):
        inpaint(model_of(3), grey, "box:4", 1, steps=1)


def test_a_model_of_colour_fills_rgba_and_keeps_alpha():
    image = images_of("uint8", (1, 16, 16, 4))
    image[..., 3] = 200
    image[:, 4:9, 4:9, 3] = 0
    filled = inpaint(model_of(3), image, "alpha", 2, steps=2)
    missing = np.zeros((16, 16), bool)
    missing[4:9, 4:9] = True
    assert (filled[:, :, missing, 3] == 255).all()  # filled pixels are opaque
    assert (filled[:, :, ~missing] == image[:, None, ~missing]).all()
    assert (filled[:, :, missing, :3] != image[:, None, missing, :3]).any()
    fourth = inpaint(model_of(4), image, "alpha", 1, steps=2)  # alpha as a channel like the others
    assert fourth.shape == (1, 1, 16, 16, 4)
    with pytest.raises(InputError, match="nothing to fill"):
        inpaint(model_of(3), image[..., :3], "alpha", 1, steps=1)


@pytest.mark.parametrize(("dtype", "top"), [("int64", 255), ("float32", 1), ("uint16", 65535)])
def test_the_opaque_value_depends_on_the_dtype_alone(dtype, top):
    images = images_of("uint8", (2, 12, 12, 2)).astype(dtype) * (1 if dtype != "float32" else 1 / 255)
    images = images.astype(dtype)
    images[..., 1] = top
    images[:, 3:7, 3:7, 1] = 0
    model = model_of(1, (12, 12))
    filled = inpaint(model, images, "alpha", 1, steps=1)
    mask = np.zeros((2, 12, 12), bool)
    mask[:, 3:7, 3:7] = True
    assert observed_alike(filled, images, mask)
    assert (filled[..., 1] == top).all()
    images[:, 3:7, 3:7] = 0 if dtype != "float32" else np.nan  # missing values are not read, alpha included
    np.testing.assert_array_equal(filled, inpaint(model, images, mask, 1, steps=1))
    if dtype == "float32":
        images[..., 1] *= 3
        with pytest.raises(InputError, match="from 0 to 1"):
            inpaint(model, images, mask, 1, steps=1)
    else:  # whatever the alpha of the other pixels
        images[..., 1] = 0
        assert (inpaint(model, images, mask, 1, steps=1)[:, 0, ..., 1][mask] == top).all()


def test_tensors_come_back_as_tensors():
    planes = torch.from_numpy(images_of("float32", (2, 3, 12, 16)))
    filled = inpaint(model_of(3), planes, "box:5", 2, steps=2)
    assert isinstance(filled, torch.Tensor)
    assert filled.shape == (2, 2, 3, 12, 16)
    assert filled.dtype == torch.float32
    torch.testing.assert_close(filled[..., 0, :], planes[:, None, ..., 0, :].expand(-1, 2, -1, -1), rtol=0, atol=0)
    half = planes[:, 0].to(torch.bfloat16)
    filled = inpaint(tiny_model(), half, "half:left", 1, steps=1)
    assert filled.dtype == torch.bfloat16
    assert torch.equal(filled[:, 0, :, 8:], half[:, :, 8:])


def test_tensors_of_images_take_tensors_of_masks():
    images = images_of("uint8", (2, 12, 12))
    mask = torch.from_numpy(masks.fit("half:left", images))[:, None]
    filled = inpaint(model_of(1, (12, 12)), torch.from_numpy(images)[:, None], mask, 1, steps=1)
    assert filled.shape == (2, 1, 12, 12)


def test_arguments_of_other_types_are_refused():
    model, images = model_of(1, (12, 12)), images_of("uint8", (2, 12, 12))
    for bad, says in (
        ({"rows": -1}, "rows"), ({"rows": 0}, "rows"), ({"steps": 2.0}, "steps|integer"),
        ({"value_range": (0,)}, "value_range"), ({"value_range": 5}, "value_range"),
        ({"observation_noise": "a"}, "observation_noise"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=says):
            inpaint(model, images, "half:left", 1, **({"steps": 1} | bad))
    with pytest.raises(InputError, match="object is not supported"):
        inpaint(model, None, "half:left", 1, steps=1)
