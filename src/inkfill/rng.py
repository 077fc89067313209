"""Random streams by name, so that a result belongs to its image and not to its batch."""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor


def stream(seed: int, *key: int | str) -> np.random.Generator:
    """The random stream that belongs to ``(seed, *key)``, and to nothing else.

    Streams with different keys are independent (numpy's ``SeedSequence`` and the counter-based Philox generator),
    so anything that is drawn per image, per step or per rank can be drawn in any order and in any batch.
    """
    words = [int.from_bytes(part.encode(), "little") if isinstance(part, str) else part for part in key]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=words)))


class SampleNoise:
    """Standard normal noise for a batch of completions: row ``r`` has a stream of its own.

    The stream of a row is fixed by ``(seed, image[r], sample[r])``. ``noise()`` gives the next draw of every row,
    float32 ``[B, *shape]``; ``noise(4)`` gives ``[B, 4, *shape]`` (for particles); ``uniform()`` gives ``[B]``.
    """

    def __init__(
        self, seed: int, image: ArrayLike, sample: ArrayLike, shape: tuple[int, ...], device: torch.device | str = "cpu"
    ):
        pairs = zip(np.asarray(image).tolist(), np.asarray(sample).tolist(), strict=True)
        self.rows = [stream(seed, i, k) for i, k in pairs]
        self.shape = shape
        self.device = device

    def __call__(self, *lead: int) -> Tensor:
        out = np.empty((len(self.rows), *lead, *self.shape), np.float32)
        for row, target in zip(self.rows, out, strict=True):
            row.standard_normal(dtype=np.float32, out=target)
        return torch.from_numpy(out).to(self.device)

    def uniform(self) -> Tensor:
        """One uniform number in [0, 1) per row: float32 ``[B]``."""
        return torch.tensor([row.random() for row in self.rows], dtype=torch.float32, device=self.device)
