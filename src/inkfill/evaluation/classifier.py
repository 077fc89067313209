"""Two small classifiers that judge completions: one of whole digits, one of digits with holes.

The first names the digit that a completion shows, and its features are what the Frechet distance compares. The second
is the yardstick of the label posterior: it is shown what an inpainting method is shown, and says how much about the
label can be known from that. Both are one network, trained here, on the same training split as everything else.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from inkfill import data, progress
from inkfill.core.masks import parse
from inkfill.core.rng import seeded, stream
from inkfill.core.trainer import Trainer
from inkfill.core.unet import ChannelNorm
from inkfill.errors import InputError
from inkfill.models.checkpoint import SHIPPED, read_weights, shapes_of, write_weights

FORMAT = "inkfill-classifier-1"
WHOLE = SHIPPED.with_name("classifier.safetensors")  # for whole digits
MASKED = SHIPPED.with_name("masked-classifier.safetensors")  # for digits with holes
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

    Planes ``[B, 1, H, W]`` as the U-Net has them; a whole digit is one whose known map is 1 everywhere.
    """

    def __init__(self, labels: int = 10, seed: int = 0) -> None:
        super().__init__()
        with seeded(seed):
            self._build(labels)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _build(self, labels: int) -> None:
        self.fold = nn.PixelUnshuffle(2)
        self.stem = nn.Conv2d(8, 64, 3, padding=1)
        self.fine = Layer(64)
        self.shrink = nn.Conv2d(64, FEATURES, 2, stride=2)
        self.coarse = nn.ModuleList(Layer(FEATURES) for _ in range(2))
        self.norm = ChannelNorm(FEATURES)
        self.mix = nn.Linear(2 * FEATURES, FEATURES)
        self.head = nn.Linear(FEATURES, labels)

    def forward(self, known_pixels: Tensor, known_map: Tensor) -> Tensor:
        planes = torch.cat([known_pixels, known_map], dim=1)
        h = self.fine(self.stem(self.fold(planes).contiguous(memory_format=torch.channels_last)))
        h = self.shrink(h)
        for layer in self.coarse:
            h = layer(h)
        h = self.norm(h)
        return F.silu(self.mix(torch.cat([h.mean((2, 3)), h.amax((2, 3))], 1)))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return read_weights(path, FORMAT, lambda about: shapes_of(Classifier))


def load_classifier(path: Path) -> Classifier:
    """A classifier (eval mode, CPU, float32). Raises InputError."""
    net = Classifier()
    net.load_state_dict(_read(path)[0])
    return net.eval().requires_grad_(False)


def about_classifier(path: Path) -> dict[str, Any]:
    """The recipe of a classifier. Raises InputError."""
    recipe: dict[str, Any] = _read(path)[1]["recipe"]
    return recipe


def judge(
    net: Classifier, images: data.Images, mask: NDArray[np.bool_] | None = None, batch: int = 500
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Label probabilities ``[N, 10]`` and features ``[N, 128]`` of uint8 ``[N, 28, 28]``; with a mask, of what it
    leaves."""
    if images.shape[1:] != (28, 28):
        raise InputError(f"the classifiers judge 28x28 images, not {images.shape[1]}x{images.shape[2]}")
    probabilities, features = [], []
    with torch.no_grad():
        for start in range(0, len(images), batch):
            x0 = data.to_x0(images[start : start + batch])
            known = torch.ones_like(x0)
            if mask is not None:
                known = torch.from_numpy(~mask[start : start + batch, None]).float()
            found = net(x0 * known, known)
            features.append(found.numpy())
            probabilities.append(net.head(found).softmax(1).numpy())
    return np.concatenate(probabilities), np.concatenate(features)


def warped(x0: Tensor, rng: np.random.Generator) -> Tensor:
    """Every image turned by up to 12 degrees, scaled and sheared by up to 12 %, and moved by up to 2 pixels."""
    n = len(x0)
    turn = np.deg2rad(rng.uniform(-12, 12, n))
    scale, shear = np.exp(rng.uniform(-0.12, 0.12, (2, n))), rng.uniform(-0.12, 0.12, n)
    move = rng.uniform(-2, 2, (2, n)) * 2 / x0.shape[-1]
    cos, sin = np.cos(turn), np.sin(turn)
    rows = [
        np.stack([scale[0] * cos, shear - sin, move[0]], 1),
        np.stack([sin + shear, scale[1] * cos, move[1]], 1),
    ]
    grid = F.affine_grid(torch.from_numpy(np.stack(rows, 1)).float(), list(x0.shape), align_corners=False)
    return F.grid_sample(x0 + 1, grid, align_corners=False) - 1


# ---- training --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelBatch:
    """Digits with what a mask leaves of them, and their labels: ``[B, 1, H, W]`` and int64 ``[B]``."""

    x0: Tensor
    known: Tensor
    labels: Tensor

    @property
    def count(self) -> float:
        """What the sum of the errors is divided by."""
        return float(len(self.labels))


def label_errors(net: nn.Module, batch: LabelBatch) -> Tensor:
    """Cross-entropy of the label of each digit, float32 ``[B]``."""
    logits = net.head(net(batch.x0 * batch.known, batch.known))  # type: ignore[operator]
    return F.cross_entropy(logits.float(), batch.labels, reduction="none")


def train_classifier(
    dataset: data.Dataset,
    spec: str,
    out: Path,
    steps: int = 2500,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    seed: int = 0,
) -> float:
    """Train on digits with these masks (``none``: whole digits), write the running mean of the weights to ``out``.

    Gives the accuracy on validation digits. Cross-entropy, AdamW, a linear rise and fall of the learning rate, random
    warps. Raises InputError.
    """
    if "train" not in dataset.labels:
        raise InputError(f"{dataset.name} has no labels: a classifier needs them")
    mask_spec, labels = parse(spec), dataset.labels["train"].astype(np.int64)
    height, width = dataset.train.shape[1:]
    if (height, width) != (28, 28) or labels.max() > 9:
        raise InputError(f"{dataset.name}: a classifier takes 28x28 images with labels 0 to 9")

    def draw(step: int) -> LabelBatch:
        rng = stream(seed, "classifier", step)
        chosen = rng.integers(len(dataset.train), size=batch_size)
        x0 = warped(data.to_x0(dataset.train[chosen]), rng)
        mask = mask_spec.draw(batch_size, height, width, rng, data.to_uint8(x0))
        return LabelBatch(x0, torch.from_numpy(~mask[:, None]).float(), torch.from_numpy(labels[chosen]))

    net = Classifier(seed=seed)
    adam = torch.optim.AdamW(net.parameters(), learning_rate, betas=(0.9, 0.99), weight_decay=0.05, fused=True)
    trainer = Trainer(net, [adam], draw, label_errors, ema=0.998, dtype=torch.bfloat16)
    with progress.bar(steps, unit="step") as bar:
        for step in range(steps):
            trainer.step(min(1.0, (step + 1) / 300) * (1 - step / steps))
            bar.update()
    hidden = mask_spec.draw(len(dataset.validation), height, width, stream(seed, "judge"), dataset.validation)
    average: Classifier = trainer.ema.eval()  # type: ignore[assignment]
    found = judge(average, dataset.validation, hidden)[0].argmax(1)
    accuracy = float((found == dataset.labels["validation"]).mean())
    recipe: dict[str, Any] = {"masks": spec, "steps": steps, "batch_size": batch_size, "seed": seed}
    recipe |= {"trained_on": dataset.name, "data_hash": dataset.fingerprint, "validation_accuracy": accuracy}
    write_weights(out, average.state_dict(), {"format": FORMAT, "recipe": recipe}, torch.float16)
    return accuracy
