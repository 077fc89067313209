"""The built-in data set: digits drawn from matplotlib's fonts, where MNIST cannot be had."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from inkfill.core.rng import stream
from inkfill.data.dataset import Dataset
from inkfill.data.images import Images

SIDE = 28
PART = 2000  # digits warped at once


def rendered(train: int = 20000, validation: int = 2000, test: int = 2000, seed: int = 0) -> Dataset:
    """Digits from fonts, warped at random and centred like MNIST: uint8, 28 x 28, deterministic from ``seed``."""
    templates = _templates()
    n = train + validation + test
    labels = np.empty(n, np.uint8)
    images = np.empty((n, SIDE, SIDE), np.uint8)
    for start in range(0, n, PART):
        count = min(PART, n - start)
        rng = stream(seed, "rendered", start)
        pick = rng.integers(len(templates), size=count)
        labels[start : start + count] = pick % 10
        images[start : start + count] = _warped(templates, pick, rng)
    a, b = train, train + validation
    by_split = {"train": labels[:a], "validation": labels[a:b], "test": labels[b:]}
    return Dataset("rendered", images[:a], images[a:b], images[b:], by_split)


def _templates(size: int = 64) -> Tensor:
    """Every digit of every font, slightly blurred: ``[fonts x 10, 1, size, size]`` in [0, 1]."""
    from matplotlib import get_data_path
    from PIL import Image, ImageDraw, ImageFont

    fonts = sorted(Path(get_data_path(), "fonts", "ttf").glob("DejaVu*.ttf"))
    fonts = [f for f in fonts if "Display" not in f.name]
    glyphs = np.zeros((len(fonts) * 10, size, size), np.float32)
    for i, font in enumerate(fonts):
        face = ImageFont.truetype(font, 52)
        for digit in range(10):
            picture = Image.new("L", (size, size))
            ImageDraw.Draw(picture).text((size / 2, size / 2), str(digit), fill=255, font=face, anchor="mm")
            glyphs[10 * i + digit] = np.asarray(picture, np.float32) / 255
    return F.avg_pool2d(torch.from_numpy(glyphs)[:, None], 3, stride=1, padding=1)


def _warped(templates: Tensor, pick: NDArray[np.int64], rng: np.random.Generator) -> Images:
    """The picked digits, each rotated, sheared, scaled and warped at random: uint8 ``[N, 28, 28]``."""
    count = len(pick)

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))

    # Affine: turn, slant, and one scale per axis; elastic: a coarse field of displacements, made smooth.
    turn, slant = 0.15 * normal(count), 0.2 * normal(count)
    wide, tall = 0.95 * torch.exp(0.12 * normal(count)), 0.9 * torch.exp(0.08 * normal(count))
    zero = torch.zeros(count)
    rotate = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], 1).view(-1, 2, 2)
    shear = torch.stack([wide, wide * slant, zero, tall], 1).view(-1, 2, 2)
    affine = torch.cat([rotate @ shear, torch.zeros(count, 2, 1)], 2)
    elastic = F.interpolate(0.07 * normal(count, 2, 5, 5), (SIDE, SIDE), mode="bicubic", align_corners=True)
    grid = F.affine_grid(affine, [count, 1, SIDE, SIDE], align_corners=False) + elastic.permute(0, 2, 3, 1)
    drawn = F.grid_sample(templates[torch.from_numpy(pick)], grid, align_corners=False)
    # Centred like MNIST: one more resampling moves the centre of mass to the centre.
    mass = drawn.sum((2, 3)).clamp(min=1e-3)
    axis = torch.linspace(-1 + 1 / SIDE, 1 - 1 / SIDE, SIDE)
    shift = torch.cat([(drawn.sum(2) * axis).sum(2) / mass, (drawn.sum(3) * axis).sum(2) / mass], 1)
    identity = F.affine_grid(torch.eye(2, 3).expand(count, 2, 3), [count, 1, SIDE, SIDE], align_corners=False)
    drawn = F.grid_sample(drawn, identity + shift[:, None, None, :], align_corners=False)
    return (drawn[:, 0] * 1.3).clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
