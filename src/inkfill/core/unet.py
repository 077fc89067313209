"""A lightweight U-Net conditioned on the observed pixels.

Input: the noisy image x_t, the observed pixels, the map of observed pixels, and t / T. Output: v, from which
``schedule.py`` computes the noise or the clean image. Any number of channels and any size from 8 pixels up.

It is fast on a CPU because the stem folds 2x2 pixels into channels, so nothing heavy runs at full resolution; because
feature maps are channels-last, where bfloat16 convolutions run near the speed of a matrix product and LayerNorm over
channels reads memory in order; and because a block has one normalisation.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inkfill.core.rng import seeded
from inkfill.errors import InputError

MAX_CHANNELS = 32
LARGE = 48  # pixels a side, above which a network has two more resolutions


@dataclass(frozen=True)
class UNetConfig:
    """The architecture. Raises InputError for impossible numbers."""

    channels: int = 1  # of an image: 1 is grey, 3 colour
    planes: int = 1  # of the mask: 1 for all channels of a pixel, or one a channel
    widths: tuple[int, ...] = (64, 192)  # channels at half resolution, at a quarter, and so on
    blocks: tuple[int, ...] = (1, 2)  # blocks at each resolution: down and up each, but once at the lowest
    head_width: int = 64  # channels of one attention head
    time_width: int = 256  # width of the time embedding
    latent: bool = False  # it also reads latent noise: a few-step model, which draws samples and gives no mean

    @classmethod
    def for_size(cls, side: int) -> "UNetConfig":
        """The default for images of ``side`` pixels: above 48, two more resolutions and attention at a sixteenth.

        So the cost grows linearly with the number of pixels (reports/image-types.md).
        """
        return cls(widths=(32, 64, 128, 192), blocks=(1, 1, 1, 2)) if side > LARGE else cls()

    def __post_init__(self) -> None:
        for name, values, low, high in (
            ("channels", (self.channels,), 1, MAX_CHANNELS),
            ("planes", (self.planes,), 1, MAX_CHANNELS),
            ("widths", self.widths, 1, 4096),
            ("blocks", self.blocks, 0, 64),
            ("head_width", (self.head_width,), 1, 4096),
            ("time_width", (self.time_width,), 1, 16384),
        ):
            if not all(isinstance(value, int) and low <= value <= high for value in values):
                raise InputError(f"{name}: must be integers from {low} to {high}, not {getattr(self, name)!r}")
        if not isinstance(self.latent, bool):
            raise InputError(f"latent: must be true or false, not {self.latent!r}")
        if self.planes not in (1, self.channels):
            raise InputError(f"planes: must be 1 or the number of channels, {self.channels}, not {self.planes}")
        if not 2 <= len(self.widths) == len(self.blocks) <= 4 or self.widths[-1] % self.head_width:
            raise InputError("widths: give 2 to 4, as many blocks, and a head_width that divides the last width")

    @property
    def multiple(self) -> int:
        """The sides of an image are padded to a multiple of this."""
        return int(2 ** len(self.widths))

    @classmethod
    def read(cls, settings: Any) -> "UNetConfig":
        """From the JSON of a checkpoint. Raises InputError for anything that is no such configuration."""
        if isinstance(settings, dict) and "fresh" in settings:  # its name in checkpoints before 0.3
            settings = {**settings, "latent": settings["fresh"]}
            del settings["fresh"]
        if not isinstance(settings, dict) or not {*settings} <= {field.name for field in fields(cls)}:
            raise InputError(f"{str(settings)[:80]!r} is not a network configuration")
        try:
            shape: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}
            return cls(**shape)
        except TypeError:
            raise InputError(f"{str(settings)[:80]!r} is not a network configuration") from None


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of every pixel. In channels-last memory the permutations copy nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class TimeEmbedding(nn.Module):
    """Sinusoidal embedding of the timestep (Ho et al. 2020, after Vaswani et al. 2017), then two linear layers.

    Takes ``t / T`` in [0, 1], float32 ``[B]``, so that one network serves schedules of any T; returns ``[B, width]``.
    """

    def __init__(self, width: int, frequencies: int = 32):
        super().__init__()
        self.frequencies = frequencies
        self.layers = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, t: Tensor) -> Tensor:
        # In float32 whatever the weights are: bfloat16 cannot tell timestep 999 from 1000.
        index = torch.arange(self.frequencies, device=t.device)
        angle = 1000 * t[:, None] * torch.exp(-math.log(1e4) * index / self.frequencies)
        features = torch.cat([angle.sin(), angle.cos()], dim=1)
        return self.layers(features.to(next(self.layers.parameters()).dtype))


class Block(nn.Module):
    """Residual block: norm, 3x3 convolution, plus the time embedding, then a convolution of size ``second``.

    Before attention, which mixes all pixels, ``second`` = 1 suffices.
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


class Resolution(nn.Module):
    """One resolution of the network: its blocks on the way down and on the way up."""

    def way_down(self, width: int, below: int, blocks: int, time_width: int) -> None:
        """Build the blocks before downsampling."""
        self.down = nn.ModuleList(Block(width, time_width, 3) for _ in range(blocks))
        self.shrink = nn.Conv2d(width, below, 2, stride=2)

    def way_up(self, width: int, below: int, blocks: int, time_width: int) -> None:
        """Build the blocks after upsampling."""
        self.grow = nn.ConvTranspose2d(below, width, 2, stride=2)
        self.skip = nn.Conv2d(width, width, 1)
        self.up = nn.ModuleList(Block(width, time_width, 3) for _ in range(blocks))

    def descend(self, h: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (skip features, downsampled features)."""
        for block in self.down:
            h = block(h, time)
        return h, self.shrink(h)

    def ascend(self, h: Tensor, low: Tensor, time: Tensor) -> Tensor:
        """Joins the skip features with those of the lower resolution."""
        h = self.skip(h) + self.grow(low)
        for block in self.up:
            h = block(h, time)
        return h


class UNet(Resolution):
    """``net(x_t, known_pixels, known_map, t) -> v``; images float32 ``[B, C, H, W]``, t / T in [0, 1] ``[B]``.

    ``known_map`` is ``[B, planes, H, W]``, 1 where values are observed; ``known_pixels`` is 0 where it is 0. x_t is
    read only where values are missing. A ``t`` of length 1 serves the whole batch. ``embed`` gives the part of the stem
    that depends on the observation alone, which a sampler computes once. ``latent`` is noise like ``x_t``, for networks
    with ``config.latent``; None adds nothing. The initial weights depend on ``seed`` alone.
    """

    def __init__(self, config: UNetConfig | None = None, seed: int = 0):
        super().__init__()
        self.config = config or UNetConfig()
        with seeded(seed):
            self._build(self.config)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _build(self, config: UNetConfig) -> None:
        (half, *_, lowest), time_width = config.widths, config.time_width
        steps = list(zip(config.widths[:-1], config.widths[1:], config.blocks[:-1], strict=True))
        self.time = TimeEmbedding(time_width)
        self.fold = nn.PixelUnshuffle(2)
        self.stem_noisy = nn.Conv2d(4 * config.channels, half, 3, padding=1)
        self.stem_known = nn.Conv2d(4 * (config.channels + config.planes), half, 3, padding=1, bias=False)
        self.between = nn.ModuleList(Resolution() for _ in steps[1:])
        for resolution, step in zip(self.resolutions, steps, strict=True):
            resolution.way_down(*step, time_width)
        self.middle = nn.ModuleList(Block(lowest, time_width, 1) for _ in range(config.blocks[-1]))
        self.attention = nn.ModuleList(Attention(lowest, config.head_width) for _ in range(config.blocks[-1]))
        for resolution, step in zip(self.resolutions, steps, strict=True):
            resolution.way_up(*step, time_width)
        self.norm = ChannelNorm(half)
        self.head = nn.Conv2d(half, 4 * config.channels, 3, padding=1)
        self.unfold = nn.PixelShuffle(2)
        nn.init.zeros_(self.head.weight)
        if config.latent:  # last, so the other weights begin as without it; small and not zero, which would stay zero
            self.stem_latent = nn.Conv2d(4 * config.channels, half, 3, padding=1, bias=False)
            with torch.no_grad():
                self.stem_latent.weight.mul_(0.1)

    @property
    def resolutions(self) -> "list[Resolution]":
        """All resolutions but the lowest; the first is the network itself."""
        return [self, *cast("list[Resolution]", self.between)]

    def embed(self, known_pixels: Tensor, known_map: Tensor) -> Tensor:
        """The stem's response to the observation: ``[B, width, H / 2, W / 2]``."""
        known_map = known_map.expand(-1, self.config.planes, -1, -1)  # one plane may stand for all
        planes = self._padded(torch.cat([known_pixels, known_map], dim=1))
        return self.stem_known(self.fold(planes).contiguous(memory_format=torch.channels_last))

    def _padded(self, planes: Tensor) -> Tensor:
        """Planes padded by reflection at the lower and right edges to a multiple of ``config.multiple``.

        Reflected noise is noise and a reflected hole is a hole, so padding resembles the rest. The output is cropped.
        """
        multiple = self.config.multiple
        below, right = -planes.shape[-2] % multiple, -planes.shape[-1] % multiple
        while below or right:  # a small image is reflected more than once
            now = min(right, planes.shape[-1] - 1), min(below, planes.shape[-2] - 1)
            planes = F.pad(planes, (0, now[0], 0, now[1]), mode="reflect")
            right, below = right - now[0], below - now[1]
        return planes

    def forward(
        self,
        x_t: Tensor,
        known_pixels: Tensor,
        known_map: Tensor,
        t: Tensor,
        embedded: Tensor | None = None,
        latent: Tensor | None = None,
    ) -> Tensor:
        time, (height, width) = self.time(t), x_t.shape[-2:]

        def folded(planes: Tensor) -> Tensor:  # read only where pixels are missing
            return self.fold(self._padded(planes * (1 - known_map))).contiguous(memory_format=torch.channels_last)

        h = self.stem_noisy(folded(x_t)) + (self.embed(known_pixels, known_map) if embedded is None else embedded)
        if latent is not None:
            h = h + self.stem_latent(folded(latent))
        across = []
        for resolution in self.resolutions:
            h, low = resolution.descend(h, time)
            across.append(h)
            h = low
        for block, attention in zip(self.middle, self.attention, strict=True):
            h = attention(block(h, time))
        for resolution in reversed(self.resolutions):
            h = resolution.ascend(across.pop(), h, time)
        return self.unfold(self.head(F.silu(self.norm(h))).float())[..., :height, :width]
