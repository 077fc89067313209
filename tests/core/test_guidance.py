"""Autoguidance: what the two networks predict together."""

from dataclasses import replace

import pytest
import torch

from helpers import TINY, model_of
from inkfill.core.guidance import Guided
from inkfill.core.unet import UNet
from inkfill.errors import InputError


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
