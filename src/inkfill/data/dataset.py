"""A data set in memory: images in three splits."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from inkfill.data.images import Images, array_hash
from inkfill.errors import InputError


@dataclass(frozen=True)
class Dataset:
    """Three splits of images, ``[N, H, W]`` or ``[N, H, W, C]``, under a name."""

    name: str
    train: Images
    validation: Images
    test: Images
    labels: dict[str, NDArray[np.uint8]]  # by split, [N]; empty without labels
    other_sizes: tuple[Images, ...] = ()  # more training images, an array per size
    holes: dict[str, NDArray[np.bool_]] = field(default_factory=dict)  # by split: missing pixels [N, H, W], or values

    @property
    def groups(self) -> tuple[Images, ...]:
        """The training images, an array per size."""
        return (self.train, *self.other_sizes)

    def split(self, name: str) -> Images:
        """``train``, ``validation`` or ``test``. Raises InputError for another name."""
        if name not in ("train", "validation", "test"):
            raise InputError(f"unknown split {name!r}: choose train, validation or test")
        images: Images = getattr(self, name)
        return images

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (first 16 hex digits) of the training images, for provenance."""
        hashes = [array_hash(images) for images in self.groups]
        return hashes[0] if len(hashes) == 1 else array_hash(np.array(hashes))
