"""The initial network of a run, from a checkpoint."""

import numpy as np
import pytest
import torch

from helpers import TINY, tiny_model
from inkfill.core.unet import UNet, UNetConfig
from inkfill.training.config import TrainConfig
from inkfill.training.network import first_network, with_channels


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_grey_network_treats_equal_channels_as_grey(checkpoint, channels):
    images = np.zeros((12, 8, 9, channels) if channels > 1 else (12, 8, 9), np.uint8)
    config, net = first_network(TrainConfig(objective="few", start=str(checkpoint)), (images,), fresh=True)
    assert config.unet.channels == net.config.channels == channels
    generator = torch.Generator().manual_seed(1)
    x_t, pixels, known = (torch.randn((2, 1, 8, 9), generator=generator) for _ in range(3))
    known, time = (known > 0).float(), torch.tensor([0.4])
    grey = tiny_model().net(x_t, pixels * known, known, time)
    several = net(*(planes.repeat(1, channels, 1, 1) for planes in (x_t, pixels * known)), known, time)
    assert torch.allclose(several, grey.repeat(1, channels, 1, 1), atol=1e-5)
    if channels > 1:  # differences between channels are read
        many, nothing = x_t.repeat(1, channels, 1, 1), torch.zeros(2, channels, 8, 9)
        one, other = (net(many.index_fill(1, torch.tensor([c]), 0.0), nothing, 0 * known, time) for c in (0, 1))
        assert (one - other).abs().max() > 1e-3


def test_a_colour_network_treats_grey_as_equal_channels():
    net = UNet(UNetConfig(channels=3, widths=(16, 32), head_width=16, latent=True), 1)
    torch.nn.init.normal_(net.head.weight)
    grey = UNet(UNetConfig(widths=(16, 32), head_width=16, latent=True))
    grey.load_state_dict(with_channels(net, grey))
    x, known = torch.randn((2, 1, 8, 8), generator=torch.Generator().manual_seed(2)), torch.ones(2, 1, 8, 8)
    time, colour = torch.tensor([0.5]), x.repeat(1, 3, 1, 1)
    expected = net(colour, 0 * colour, 0 * known, time, latent=colour).mean(1, keepdim=True)
    assert torch.allclose(grey(x, 0 * x, 0 * known, time, latent=x), expected, atol=1e-5)


def test_a_few_step_network_starts_a_denoiser_in_colour():
    images = np.zeros((12, 8, 9, 3), np.uint8)
    _, net = first_network(TrainConfig(start="mnist-few"), (images,), fresh=True)
    assert (net.config.channels, net.config.latent) == (3, False)


def test_a_resumed_run_does_not_read_the_checkpoint(tmp_path):
    config = TrainConfig(start=str(tmp_path / "gone"), unet=TINY)
    config, net = first_network(config, (np.zeros((12, 8, 9), np.uint8),), fresh=False)
    assert net.config == config.unet


def test_a_network_of_one_mask_plane_starts_one_of_a_plane_a_channel():
    old = UNet(UNetConfig(channels=3, widths=(16, 32), head_width=16), 1)
    torch.nn.init.normal_(old.head.weight)
    new = UNet(UNetConfig(channels=3, planes=3, widths=(16, 32), head_width=16))
    new.load_state_dict(with_channels(old, new))
    x, known = torch.randn((2, 3, 8, 8), generator=torch.Generator().manual_seed(2)), torch.ones(2, 3, 8, 8)
    known[:, :, :4], time = 0, torch.tensor([0.5])
    alike = new(x, x * known, known, time)
    assert torch.allclose(alike, old(x, x * known, known[:, :1], time), atol=1e-5)
    known[:, 1] = 1
    assert (new(x, x * known, known, time) - alike).abs().max() > 1e-3
