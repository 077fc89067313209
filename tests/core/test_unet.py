"""The network: image sizes, which inputs it reads and where, and the time embedding."""

import pytest
import torch

from helpers import TINY, tiny_model
from inkfill.core.unet import TimeEmbedding, UNet, UNetConfig


def planes(b=2, h=28, w=28):
    generator = torch.Generator().manual_seed(1)
    x_t, pixels = (torch.randn(b, 1, h, w, generator=generator) for _ in range(2))
    known = (torch.rand(b, 1, h, w, generator=generator) < 0.5).float()
    return x_t, pixels * known, known


@pytest.mark.parametrize(("h", "w"), [(28, 28), (32, 32), (64, 64), (16, 48)])
def test_sizes_that_are_multiples_of_4(h, w):
    net = tiny_model().net
    x_t, pixels, known = planes(2, h, w)
    assert net(x_t, pixels, known, torch.rand(2)).shape == (2, 1, h, w)


DEEP = UNetConfig(widths=(8, 8, 16, 16), blocks=(1, 0, 2, 1), head_width=8, time_width=16)


@pytest.mark.parametrize(("h", "w"), [(8, 8), (9, 31), (16, 16), (50, 33)])
def test_a_deeper_network_takes_any_size_and_learns_at_each_resolution(h, w):
    net = UNet(DEEP)
    x_t, pixels, known = planes(2, h, w)
    assert net(x_t, pixels, known, torch.rand(2)).shape == (2, 1, h, w)
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    net(x_t, pixels, known, torch.rand(2)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in net.parameters())
    assert net.down[0].conv1.weight.shape[0] == 8
    assert [len(resolution.down) for resolution in net.resolutions] == [1, 0, 2]


def test_large_images_get_more_resolutions():
    assert UNetConfig.for_size(28) == UNetConfig.for_size(48) == UNetConfig()
    assert len(UNetConfig.for_size(64).widths) == 4
    assert 1e6 < sum(p.numel() for p in UNet(UNetConfig.for_size(64)).parameters()) < 4e6


def test_the_default_network_is_lightweight():
    assert 1e6 < sum(p.numel() for p in UNet(UNetConfig()).parameters()) < 4e6


def test_x_t_is_read_only_where_pixels_are_missing():
    net = tiny_model().net
    x_t, pixels, known = planes()
    t = torch.tensor([0.5, 0.5])
    out = net(x_t, pixels, known, t)
    torch.testing.assert_close(net(x_t + 9 * known, pixels, known, t), out)
    assert (net(x_t + 9 * (1 - known), pixels, known, t) - out).abs().max() > 1e-3


def test_time_and_observation_are_read():
    net = tiny_model().net
    x_t, pixels, known = planes()
    out = net(x_t, pixels, known, torch.tensor([0.5, 0.5]))
    assert (net(x_t, pixels, known, torch.tensor([0.501, 0.5])) - out)[0].abs().max() > 1e-5
    assert (net(x_t, pixels * 0.5, known, torch.tensor([0.5, 0.5])) - out).abs().max() > 1e-3


def test_one_embedding_and_one_time_for_the_batch_change_nothing():
    net = tiny_model().net
    x_t, pixels, known = planes()
    out = net(x_t, pixels, known, torch.tensor([0.3, 0.3]))
    once = net(x_t, pixels, known, torch.tensor([0.3]), net.embed(pixels, known))
    torch.testing.assert_close(once, out)


def test_neighbouring_timesteps_differ_in_bfloat16():
    embedding = TimeEmbedding(32).bfloat16()
    assert (embedding(torch.tensor([0.999])) != embedding(torch.tensor([1.0]))).any()


def test_every_parameter_learns():
    net = UNet(TINY)
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():  # the zero-initialised ones would hide the gradient of others
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    x_t, pixels, known = planes()
    net(x_t, pixels, known, torch.rand(2)).square().sum().backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []
