"""Random streams by key, so that a sample depends on its image and not on its batch."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from inkfill.errors import InputError

SMALL = 2**24  # smaller numbers are one word; every word of a text is at least as large
BETWEEN = 0xFFFFFFFF  # separates two texts; no text contains it, since UTF-8 has no byte 255 but in the padding


def _words(key: tuple[int | str, ...]) -> list[int]:
    """A key as 32-bit words, injectively: small numbers as they are, everything else as padded text."""
    words: list[int] = []
    text_before = False
    for part in key:
        if not isinstance(part, str) and 0 <= part < SMALL:
            words.append(int(part))
            text_before = False
            continue
        # Bytes that UTF-8 never uses mark numbers (254), empty text (253) and zero bytes (192, 128).
        text = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else b"\xfe" + str(int(part)).encode()
        text = text.replace(b"\0", b"\xc0\x80") or b"\xfd"
        text += b"\xff" * (-len(text) % 4)
        words += [BETWEEN] * text_before + [int.from_bytes(text[i : i + 4], "little") for i in range(0, len(text), 4)]
        text_before = True
    return words


def check_seed(seed: int) -> int:
    """The seed itself. Raises InputError unless it is an integer from 0 to 2^64 - 1."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
        raise InputError(f"the seed must be an integer from 0 to 2^64 - 1, not {seed!r}")
    return int(seed)


def stream(seed: int, *key: int | str) -> np.random.Generator:
    """The random generator of ``(seed, *key)``.

    Streams with different keys are independent (numpy's ``SeedSequence`` and the counter-based Philox generator), so
    per-image, per-step and per-process draws can be made in any order and batch. Raises InputError for a bad seed.
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(check_seed(seed), spawn_key=_words(key))))


def key(seed: int, *words: int | str) -> int:
    """A seed derived from another one, for uses that must not share its streams."""
    return int(stream(seed, *words).integers(2**62))


def skip(rng: np.random.Generator, count: int) -> np.random.Generator:
    """The generator of :func:`stream` after ``count`` uniform numbers, without drawing them."""
    blocks, rest = divmod(count, 4)  # a step of Philox gives four 64-bit words, and a uniform number takes one
    rng.bit_generator.advance(blocks)  # type: ignore[attr-defined]
    rng.random(rest)
    return rng


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator for the initial weights of a network, and restore its state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(check_seed(seed))
        yield


class SampleNoise:
    """Standard normal noise for a batch of samples; each row has its own stream.

    Row ``r`` has the key ``(seed, image[r], sample[r])``, and ``part[r]`` too for a window of an image. ``noise()``
    draws float32 ``[B, *shape]``; ``noise(4)`` draws ``[B, 4, *shape]`` (for particles); ``uniform()`` draws ``[B]``.
    """

    def __init__(
        self,
        seed: int,
        image: ArrayLike,
        sample: ArrayLike,
        shape: tuple[int, ...],
        device: torch.device | str = "cpu",
        part: ArrayLike | None = None,
    ):
        columns = [np.asarray(key).tolist() for key in (image, sample, part) if key is not None]
        self.rows = [stream(seed, *key) for key in zip(*columns, strict=True)]
        self.shape = shape
        self.device = device

    def __call__(self, *lead: int) -> Tensor:
        out = np.empty((len(self.rows), *lead, *self.shape), np.float32)
        for row, target in zip(self.rows, out, strict=True):
            row.standard_normal(dtype=np.float32, out=target)
        return torch.from_numpy(out).to(self.device)

    def uniform(self) -> Tensor:
        """One uniform draw in [0, 1) per row: float32 ``[B]``."""
        return torch.tensor([row.random() for row in self.rows], dtype=torch.float32, device=self.device)
