"""What a data set is."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from inkfill.data.images import Images, array_hash
from inkfill.errors import InputError


@dataclass(frozen=True)
class Dataset:
    """Three splits of images, uint8 ``[N, H, W]``, and where they came from."""

    name: str
    train: Images
    validation: Images
    test: Images
    labels: dict[str, NDArray[np.uint8]]  # by split, ``[N]``; empty where there are none

    def split(self, name: str) -> Images:
        """``train``, ``validation`` or ``test``. Raises InputError for another name."""
        if name not in ("train", "validation", "test"):
            raise InputError(f"unknown split {name!r}: choose train, validation or test")
        images: Images = getattr(self, name)
        return images

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (first 16 hex digits) of the training images, for provenance."""
        return array_hash(self.train)
