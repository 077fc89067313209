"""A lightweight U-Net that is told which pixels are known.

Input: the noisy image, the known pixels and the known map, and the noise level. Output: v, from which
``schedule.py`` gives the noise or the clean image. Sizes are free: any height and width that 4 divides.

Why it is fast on a CPU: the stem folds 2x2 pixels into channels, so that nothing heavy runs at full resolution;
feature maps are channels-last, where bfloat16 convolutions run near the speed of a matrix product and LayerNorm
over channels reads memory in order; there is one normalisation per block.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class UNetConfig:
    """The shape of the network."""

    widths: tuple[int, int] = (64, 192)  # channels at half and at quarter resolution
    blocks: tuple[int, int] = (1, 2)  # blocks at half resolution (each way) and at quarter resolution
    head_width: int = 64  # channels of one attention head
    time_width: int = 256  # width of the time embedding


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of every pixel. In channels-last memory the permutations move nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class TimeEmbedding(nn.Module):
    """Sinusoidal embedding of the noise level (Ho et al. 2020, after Vaswani et al. 2017), then two layers.

    Takes ``t / T`` in [0, 1], float32 ``[B]``, so that one network reads schedules of any T; gives ``[B, width]``.
    """

    def __init__(self, width: int, frequencies: int = 32):
        super().__init__()
        self.frequencies = frequencies
        self.layers = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, t: Tensor) -> Tensor:
        # In float32 whatever the weights are: bfloat16 cannot tell level 999 from level 1000.
        index = torch.arange(self.frequencies, device=t.device)
        angle = 1000 * t[:, None] * torch.exp(-math.log(1e4) * index / self.frequencies)
        features = torch.cat([angle.sin(), angle.cos()], dim=1)
        return self.layers(features.to(next(self.layers.parameters()).dtype))


class Block(nn.Module):
    """Residual block: norm, 3x3 convolution, plus the time embedding, then a convolution of size ``second``.

    Where attention follows and mixes all pixels anyway, 1 is enough, and the time saved buys more training steps.
    """

    def __init__(self, width: int, time_width: int, second: int):
        super().__init__()
        self.norm = ChannelNorm(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.time = nn.Linear(time_width, width)
        self.conv2 = nn.Conv2d(width, width, second, padding=second // 2)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(self.norm(x)) + self.time(time)[:, :, None, None]
        return x + self.conv2(F.silu(h))


class Attention(nn.Module):
    """Self-attention among all pixels, as plain matrix products (the fused CPU kernel is slow backward)."""

    def __init__(self, width: int, head_width: int):
        super().__init__()
        self.heads = width // head_width
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        tokens = x.permute(0, 2, 3, 1).reshape(b, h * w, c)
        q, k, v = self.qkv(self.norm(tokens)).view(b, h * w, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(-1)
        tokens = tokens + self.out((weights @ v).transpose(1, 2).reshape(b, h * w, c))
        return tokens.view(b, h, w, c).permute(0, 3, 1, 2)


class UNet(nn.Module):
    """``net(x_t, known_pixels, known_map, t) -> v``; planes float32 ``[B, 1, H, W]``, t / T in [0, 1] ``[B]``.

    ``known_pixels`` is 0 where the known map is 0. The noisy image is shown only where pixels are missing. A ``t`` of
    length 1 serves the whole batch. ``embed`` gives the part of the stem that depends on the observation alone, which
    a sampler computes once.
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        half, quarter = config.widths
        self.time = TimeEmbedding(config.time_width)
        self.fold = nn.PixelUnshuffle(2)
        self.stem_noisy = nn.Conv2d(4, half, 3, padding=1)
        self.stem_known = nn.Conv2d(8, half, 3, padding=1, bias=False)
        self.down = nn.ModuleList(Block(half, config.time_width, 3) for _ in range(config.blocks[0]))
        self.shrink = nn.Conv2d(half, quarter, 2, stride=2)
        self.middle = nn.ModuleList(Block(quarter, config.time_width, 1) for _ in range(config.blocks[1]))
        self.attention = nn.ModuleList(Attention(quarter, config.head_width) for _ in range(config.blocks[1]))
        self.grow = nn.ConvTranspose2d(quarter, half, 2, stride=2)
        self.skip = nn.Conv2d(half, half, 1)
        self.up = nn.ModuleList(Block(half, config.time_width, 3) for _ in range(config.blocks[0]))
        self.norm = ChannelNorm(half)
        self.head = nn.Conv2d(half, 4, 3, padding=1)
        self.unfold = nn.PixelShuffle(2)
        nn.init.zeros_(self.head.weight)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def embed(self, known_pixels: Tensor, known_map: Tensor) -> Tensor:
        """The observation's share of the stem: ``[B, width, H / 2, W / 2]``."""
        planes = torch.cat([known_pixels, known_map], dim=1)
        return self.stem_known(self.fold(planes).contiguous(memory_format=torch.channels_last))

    def forward(
        self, x_t: Tensor, known_pixels: Tensor, known_map: Tensor, t: Tensor, embedded: Tensor | None = None
    ) -> Tensor:
        time = self.time(t)
        noisy = self.fold(x_t * (1 - known_map)).contiguous(memory_format=torch.channels_last)
        h = self.stem_noisy(noisy) + (self.embed(known_pixels, known_map) if embedded is None else embedded)
        for block in self.down:
            h = block(h, time)
        low = self.shrink(h)
        for block, attention in zip(self.middle, self.attention, strict=True):
            low = attention(block(low, time))
        h = self.skip(h) + self.grow(low)
        for block in self.up:
            h = block(h, time)
        return self.unfold(self.head(F.silu(self.norm(h))).float())
