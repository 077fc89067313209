"""Autoguidance: what the two networks predict together."""

from dataclasses import replace

import pytest
import torch

from helpers import TINY, model_of
from inkfill.core.guidance import Guided
from inkfill.core.unet import UNet
from inkfill.errors import InputError
from inkfill.filling.inpaint import inpaint, sample
from inkfill.models.model import load


def pair() -> tuple[UNet, UNet]:
    net, guide = model_of(1).net, UNet(TINY, seed=3)
    torch.nn.init.normal_(guide.head.weight, std=0.1, generator=torch.Generator().manual_seed(5))
    return net, guide


def inputs(b=4):
    generator = torch.Generator().manual_seed(1)
    x_t, pixels = (torch.randn(b, 1, 28, 28, generator=generator) for _ in range(2))
    known = (torch.rand(b, 1, 28, 28, generator=generator) < 0.5).float()
    return x_t, pixels * known, known, torch.tensor([0.1, 0.3, 0.7, 1.0])


def test_predictions_are_extrapolated_inside_the_interval_alone():
    net, guide = pair()
    given = inputs()
    found = Guided(net, guide, 2.0, (0.3, 0.9))(*given)
    good, poor = net(*given), guide(*given)
    assert torch.equal(found[[0, 3]], good[[0, 3]])
    assert torch.allclose(found[[1, 2]], (2 * good - poor)[[1, 2]], atol=1e-6)


def test_one_timestep_serves_the_whole_batch():
    guided = Guided(*pair(), 1.5)
    x_t, pixels, known, _ = inputs()
    embedded = guided.embed(pixels, known)
    for t in (0.2, 0.8):
        one = guided(x_t, pixels, known, torch.tensor([t]), embedded)
        assert torch.allclose(one, guided(x_t, pixels, known, torch.full((4,), t)), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "says"), [({"latent": True}, "few-step model"), ({"channels": 3}, "1 and 3 channels")]
)
def test_networks_that_do_not_fit_are_refused(change, says):
    with pytest.raises(InputError, match=says):
        Guided(UNet(TINY), UNet(replace(TINY, **change)))


def test_a_guided_model_fills_and_samples_like_any_other(digits):
    good, poor = model_of(1), model_of(1)
    poor.net.load_state_dict(pair()[1].state_dict())
    images, mask = digits[:2], "half:left"
    plain = inpaint(good, images, mask, 2, steps=3)
    guided = inpaint(good.guided(poor, 2.0), images, mask, 2, steps=3)
    assert (guided[..., 14:] == plain[..., 14:]).all()
    assert (guided != plain).mean() > 0.1
    assert (inpaint(good.guided(poor, 1.0), images, mask, 2, steps=3) == plain).mean() > 0.99  # up to rounding
    assert sample(good.guided(poor), 2, steps=2).shape == (2, 28, 28)


def test_models_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="v or eps"):
        model_of(1).guided(load("mnist-few"))
    with pytest.raises(InputError, match="noise schedules"):
        model_of(1).guided(model_of(1, T=500))
