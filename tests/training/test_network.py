"""The network that a training begins with, where it comes from a checkpoint."""

import numpy as np
import pytest
import torch
from inkfill.training.start import first_network, with_channels

from helpers import tiny_model
from inkfill.core.unet import UNet, UNetConfig
from inkfill.training.config import TrainConfig


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_grey_network_sees_grey_in_every_channel(checkpoint, channels):
    """Colour whose channels are alike comes out as it would in grey, in each of them."""
    images = np.zeros((12, 8, 9, channels) if channels > 1 else (12, 8, 9), np.uint8)
    config, net = first_network(TrainConfig(start=str(checkpoint)), (images,), latent=True)
    assert config.unet.channels == net.config.channels == channels
    generator = torch.Generator().manual_seed(1)
    x_t, pixels, known = (torch.randn((2, 1, 8, 9), generator=generator) for _ in range(3))
    known, level = (known > 0).float(), torch.tensor([0.4])
    grey = tiny_model().net(x_t, pixels * known, known, level)
    several = net(*(planes.repeat(1, channels, 1, 1) for planes in (x_t, pixels * known)), known, level)
    assert torch.allclose(several, grey.repeat(1, channels, 1, 1), atol=1e-5)
    if channels > 1:  # it can learn how they differ: channels that are not alike are not read as if they were
        many, nothing = x_t.repeat(1, channels, 1, 1), torch.zeros(2, channels, 8, 9)
        one, other = (net(many.index_fill(1, torch.tensor([c]), 0.0), nothing, 0 * known, level) for c in (0, 1))
        assert (one - other).abs().max() > 1e-3


def test_a_colour_network_sees_grey_as_colour():
    net = UNet(UNetConfig(channels=3, widths=(16, 32), head_width=16, latent=True), 1)
    torch.nn.init.normal_(net.head.weight)
    grey = UNet(UNetConfig(widths=(16, 32), head_width=16, latent=True))
    grey.load_state_dict(with_channels(net, grey))
    x, known, level = torch.randn((2, 1, 8, 8), generator=torch.Generator().manual_seed(2)), torch.ones(2, 1, 8, 8), 0.5
    colour = x.repeat(1, 3, 1, 1)
    wanted = net(colour, 0 * colour, 0 * known, torch.tensor([level]), latent=colour).mean(1, keepdim=True)
    assert torch.allclose(grey(x, 0 * x, 0 * known, torch.tensor([level]), latent=x), wanted, atol=1e-5)


def test_a_drawing_network_begins_one_that_denoises_in_colour():
    images = np.zeros((12, 8, 9, 3), np.uint8)
    _, net = first_network(TrainConfig(start="mnist-few"), (images,), latent=True)
    assert (net.config.channels, net.config.latent) == (3, False)
