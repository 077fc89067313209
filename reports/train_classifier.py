"""Train the classifiers that judge samples (``inkfill.evaluation.classifier``).

    python reports/train_classifier.py --out classifier.safetensors
    python reports/train_classifier.py --out masked-classifier.safetensors --masks training

Cross-entropy, AdamW, linear warm-up and decay of the learning rate, random warps, EMA of the weights.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inkfill import data, progress
from inkfill.core.masks import parse
from inkfill.core.rng import stream
from inkfill.core.trainer import Trainer
from inkfill.errors import InputError
from inkfill.evaluation.classifier import FORMAT, Classifier, judge
from inkfill.models.checkpoint import write_weights


@dataclass(frozen=True)
class LabelBatch:
    """Digits ``[B, 1, H, W]``, float maps of their observed pixels, and their labels, int64 ``[B]``."""

    x0: Tensor
    known: Tensor
    labels: Tensor

    @property
    def count(self) -> float:
        """The divisor of the sum of the errors."""
        return float(len(self.labels))


def label_errors(net: nn.Module, batch: LabelBatch) -> Tensor:
    """Cross-entropy of each label, float32 ``[B]``."""
    logits = net.head(net(batch.x0 * batch.known, batch.known))  # type: ignore[operator]
    return F.cross_entropy(logits.float(), batch.labels, reduction="none")


def warped(x0: Tensor, rng: np.random.Generator) -> Tensor:
    """Each image rotated by up to 12 degrees, scaled and sheared by up to 12 %, and shifted by up to 2 pixels."""
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


def train_classifier(
    dataset: data.Dataset,
    spec: str,
    out: Path,
    steps: int = 2500,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    seed: int = 0,
) -> float:
    """Train on digits with masks of ``spec`` (``none``: whole digits), and write the EMA of the weights to ``out``.

    Returns the accuracy on validation digits. Raises InputError.
    """
    if "train" not in dataset.labels:
        raise InputError(f"{dataset.name}: no labels: a classifier needs them")
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
    ema: Classifier = trainer.ema.eval()  # type: ignore[assignment]
    predicted = judge(ema, dataset.validation, hidden)[0].argmax(1)
    accuracy = float((predicted == dataset.labels["validation"]).mean())
    recipe: dict[str, Any] = {"masks": spec, "steps": steps, "batch_size": batch_size, "seed": seed}
    recipe |= {"trained_on": dataset.name, "data_hash": dataset.fingerprint, "validation_accuracy": accuracy}
    write_weights(out, ema.state_dict(), {"format": FORMAT, "recipe": recipe}, torch.float16)
    return accuracy


def main() -> None:
    """Parse the command line, train, and print the accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="FILE.safetensors to write")
    parser.add_argument("--data", default="mnist", help="data set of 28x28 images with labels [default: mnist]")
    parser.add_argument("--masks", default="none", help="mask spec: none (whole digits) or training [default: none]")
    parser.add_argument("--steps", type=int, default=2500, help="steps of 128 images [default: 2500]")
    parser.add_argument("--seed", type=int, default=0, help="random seed [default: 0]")
    parser.add_argument("--overwrite", action="store_true", help="replace the file")
    given = parser.parse_args()
    if given.steps < 1:
        parser.error("--steps must be at least 1")
    if given.out.suffix != ".safetensors":
        parser.error(f"--out {given.out}: give a file that ends in .safetensors")
    if given.out.exists() and not given.overwrite:
        parser.error(f"{given.out} exists: give --overwrite to replace it")
    try:
        accuracy = train_classifier(data.load(given.data), given.masks, given.out, given.steps, seed=given.seed)
    except InputError as error:
        sys.exit(f"train_classifier: {error}")
    print(f"wrote {given.out}: accuracy {accuracy:.2%} on validation images")


if __name__ == "__main__":
    main()
