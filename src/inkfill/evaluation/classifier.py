"""Two small classifiers that judge samples: one of whole digits, one of masked digits.

The first labels a sample, and its features define the Fréchet and kernel distances. The second has the input of an
inpainting method, and is the baseline for label posteriors. Both are one network with different weights, trained by
``reports/train_classifier.py`` on the training split.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from inkfill.core.rng import seeded
from inkfill.core.unet import ChannelNorm
from inkfill.data import Images, to_x0
from inkfill.errors import InputError
from inkfill.models.checkpoint import SHIPPED, read_network

FORMAT = "inkfill-classifier-1"
WHOLE = SHIPPED.with_name("classifier.safetensors")  # for whole digits
MASKED = SHIPPED.with_name("masked-classifier.safetensors")  # for masked digits
FEATURES = 128


class Layer(nn.Module):
    """Residual: norm, 3x3 convolution, SiLU, 3x3 convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = ChannelNorm(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(self.norm(x))))


class Classifier(nn.Module):
    """``net(known_pixels, known_map) -> features [B, 128]``, ``net.head(features) -> logits [B, 10]``.

    The inputs are ``[B, 1, H, W]``, as for the U-Net; ``known_map`` is 1 everywhere for a whole digit.
    """

    data_hash: str | None = None  # of its training data

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with seeded(seed):
            self.fold = nn.PixelUnshuffle(2)
            self.stem = nn.Conv2d(8, 64, 3, padding=1)
            self.fine = Layer(64)
            self.shrink = nn.Conv2d(64, FEATURES, 2, stride=2)
            self.coarse = nn.Sequential(Layer(FEATURES), Layer(FEATURES))
            self.norm = ChannelNorm(FEATURES)
            self.mix = nn.Linear(2 * FEATURES, FEATURES)
            self.head = nn.Linear(FEATURES, 10)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, known_pixels: Tensor, known_map: Tensor) -> Tensor:
        planes = torch.cat([known_pixels, known_map], dim=1)
        h = self.fine(self.stem(self.fold(planes).contiguous(memory_format=torch.channels_last)))
        h = self.norm(self.coarse(self.shrink(h)))
        return F.silu(self.mix(torch.cat([h.mean((2, 3)), h.amax((2, 3))], 1)))


def load_classifier(path: Path) -> Classifier:
    """A classifier (eval mode, CPU, float32), and the hash of its training data. Raises InputError."""
    net, recipe = read_network(path, FORMAT, lambda about: Classifier())
    net.data_hash = recipe.get("data_hash")
    return net


def judge(
    net: Classifier, images: Images, mask: NDArray[np.bool_] | None = None, batch: int = 500
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Label probabilities ``[N, 10]`` and features ``[N, 128]`` of uint8 images ``[N, 28, 28]``.

    With a ``mask`` ``[N, 28, 28]``, True = missing, they depend on observed pixels only. Raises InputError.
    """
    if images.shape[1:] != (28, 28):
        raise InputError(f"the classifiers take 28x28 images, not {images.shape[1]}x{images.shape[2]}")
    probabilities, features = [], []
    with torch.no_grad():
        for start in range(0, len(images), batch):
            x0 = to_x0(images[start : start + batch])
            known = torch.ones_like(x0)
            if mask is not None:
                known = torch.from_numpy(~mask[start : start + batch, None]).float()
            found = net(x0 * known, known)
            features.append(found.numpy())
            probabilities.append(net.head(found).softmax(1).numpy())
    return np.concatenate(probabilities), np.concatenate(features)
