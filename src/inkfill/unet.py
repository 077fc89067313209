"""A lightweight U-Net that is told which pixels are known.

Input: the noisy image, the known pixels and the known map, and the noise level. Output: v, from which
``schedule.py`` gives the noise or the clean image. Channels are free, and so are sizes, from 8 pixels up.

Why it is fast on a CPU: the stem folds 2x2 pixels into channels, so that nothing heavy runs at full resolution;
feature maps are channels-last, where bfloat16 convolutions run near the speed of a matrix product and LayerNorm
over channels reads memory in order; there is one normalisation per block.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inkfill.errors import InputError
from inkfill.rng import seeded

LARGE = 48  # pixels a side, above which a network has more levels


@dataclass(frozen=True)
class UNetConfig:
    """The shape of the network. Raises InputError for numbers that no network has."""

    channels: int = 1  # of an image: 1 is grey, 3 colour
    widths: tuple[int, ...] = (64, 192)  # channels at half resolution, at a quarter, and so on
    blocks: tuple[int, ...] = (1, 2)  # blocks at each resolution (each way, but at the lowest, where attention is)
    head_width: int = 64  # channels of one attention head
    time_width: int = 256  # width of the time embedding
    fresh: bool = False  # whether it reads noise of its own, so that it can draw and need not average

    @classmethod
    def for_size(cls, side: int) -> "UNetConfig":
        """What suits images of so many pixels a side: for large ones two levels more, and attention at a sixteenth.

        So the cost grows with the pixels, and not with their square (docs/speed.md; docs/sizes.py chose it).
        """
        return cls(widths=(32, 64, 128, 192), blocks=(1, 1, 1, 2)) if side > LARGE else cls()

    def __post_init__(self) -> None:
        for name, values, low, high in (
            ("channels", (self.channels,), 1, 4),
            ("widths", self.widths, 1, 4096),
            ("blocks", self.blocks, 0, 64),
            ("head_width", (self.head_width,), 1, 4096),
            ("time_width", (self.time_width,), 1, 16384),
        ):
            if not all(isinstance(value, int) and low <= value <= high for value in values):
                raise InputError(f"{name} {getattr(self, name)!r}: whole numbers from {low} to {high} are needed")
        if not isinstance(self.fresh, bool):
            raise InputError(f"fresh {self.fresh!r}: true or false is needed")
        if not 2 <= len(self.widths) == len(self.blocks) <= 4 or self.widths[-1] % self.head_width:
            raise InputError("2 to 4 widths, head_width dividing the last, and as many numbers of blocks are needed")

    @property
    def multiple(self) -> int:
        """What the sides of an image are padded to a multiple of."""
        return int(2 ** len(self.widths))

    @classmethod
    def read(cls, settings: Any) -> "UNetConfig":
        """From JSON, which knows lists and no tuples. Raises InputError for what is no such configuration."""
        if not isinstance(settings, dict) or not {*settings} <= {field.name for field in fields(cls)}:
            raise InputError(f"{str(settings)[:80]!r} is no shape of a network")
        try:
            shape: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}
            return cls(**shape)
        except TypeError:
            raise InputError(f"{str(settings)[:80]!r} is no shape of a network") from None


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


class Level(nn.Module):
    """One resolution of the network, on the way down to the next and on the way up from there."""

    def way_down(self, width: int, below: int, blocks: int, time_width: int) -> None:
        """Build its first half, to halve the resolution."""
        self.down = nn.ModuleList(Block(width, time_width, 3) for _ in range(blocks))
        self.shrink = nn.Conv2d(width, below, 2, stride=2)

    def way_up(self, width: int, below: int, blocks: int, time_width: int) -> None:
        """Build its second half."""
        self.grow = nn.ConvTranspose2d(below, width, 2, stride=2)
        self.skip = nn.Conv2d(width, width, 1)
        self.up = nn.ModuleList(Block(width, time_width, 3) for _ in range(blocks))

    def descend(self, h: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """What goes across, and what goes down."""
        for block in self.down:
            h = block(h, time)
        return h, self.shrink(h)

    def ascend(self, h: Tensor, low: Tensor, time: Tensor) -> Tensor:
        """What went across, joined with what comes from below."""
        h = self.skip(h) + self.grow(low)
        for block in self.up:
            h = block(h, time)
        return h


class UNet(Level):
    """``net(x_t, known_pixels, known_map, t) -> v``; images float32 ``[B, C, H, W]``, t / T in [0, 1] ``[B]``.

    ``known_map`` is ``[B, 1, H, W]``, 1 where pixels are known; ``known_pixels`` is 0 where it is 0. The noisy image
    is shown only where pixels are missing. A ``t`` of length 1 serves the whole batch. ``embed`` gives the part of the
    stem that depends on the observation alone, which a sampler computes once. ``fresh`` is noise like ``x_t``, for
    networks that draw (``config.fresh``); without it they are given none. The initial weights depend on ``seed`` alone.
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
        self.stem_known = nn.Conv2d(4 * (config.channels + 1), half, 3, padding=1, bias=False)
        self.between = nn.ModuleList(Level() for _ in steps[1:])
        for level, step in zip(self.levels, steps, strict=True):
            level.way_down(*step, time_width)
        self.middle = nn.ModuleList(Block(lowest, time_width, 1) for _ in range(config.blocks[-1]))
        self.attention = nn.ModuleList(Attention(lowest, config.head_width) for _ in range(config.blocks[-1]))
        for level, step in zip(self.levels, steps, strict=True):
            level.way_up(*step, time_width)
        self.norm = ChannelNorm(half)
        self.head = nn.Conv2d(half, 4 * config.channels, 3, padding=1)
        self.unfold = nn.PixelShuffle(2)
        nn.init.zeros_(self.head.weight)
        if config.fresh:  # last, so that all else begins as in a network without it; small, not zero: a zero would stay
            self.stem_fresh = nn.Conv2d(4 * config.channels, half, 3, padding=1, bias=False)
            with torch.no_grad():
                self.stem_fresh.weight.mul_(0.1)

    @property
    def levels(self) -> "list[Level]":
        """All resolutions but the lowest, the first of which is the network itself."""
        return [self, *cast("list[Level]", self.between)]

    def embed(self, known_pixels: Tensor, known_map: Tensor) -> Tensor:
        """The observation's share of the stem: ``[B, width, H / 2, W / 2]``."""
        planes = self._padded(torch.cat([known_pixels, known_map], dim=1))
        return self.stem_known(self.fold(planes).contiguous(memory_format=torch.channels_last))

    def _padded(self, planes: Tensor) -> Tensor:
        """Planes mirrored at their lower and right edges until they can be halved so often; the output is cut back.

        A mirror image of noise is noise and one of a hole a hole, so the padding looks like any other part.
        """
        multiple = self.config.multiple
        below, right = -planes.shape[-2] % multiple, -planes.shape[-1] % multiple
        while below or right:  # a picture smaller than that is mirrored more than once
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
        fresh: Tensor | None = None,
    ) -> Tensor:
        time, (height, width) = self.time(t), x_t.shape[-2:]

        def folded(planes: Tensor) -> Tensor:  # what is shown where pixels are missing alone
            return self.fold(self._padded(planes * (1 - known_map))).contiguous(memory_format=torch.channels_last)

        h = self.stem_noisy(folded(x_t)) + (self.embed(known_pixels, known_map) if embedded is None else embedded)
        if fresh is not None:
            h = h + self.stem_fresh(folded(fresh))
        across = []
        for level in self.levels:
            h, low = level.descend(h, time)
            across.append(h)
            h = low
        for block, attention in zip(self.middle, self.attention, strict=True):
            h = attention(block(h, time))
        for level in reversed(self.levels):
            h = level.ascend(across.pop(), h, time)
        return self.unfold(self.head(F.silu(self.norm(h))).float())[..., :height, :width]
