"""Images as users hold them, and the one way into the library's own numbers and back.

Users hold uint8 ``[N, H, W]``; the library works on x0, float32 ``[N, 1, H, W]`` in [-1, 1].
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inkfill.errors import InputError

Images = NDArray[np.uint8]
MAX_SIDE = 1024  # pixels


@dataclass(frozen=True)
class ValueRange:
    """Which of the users' values is black and which is white: ``low`` becomes -1, ``high`` 1.

    ``floor``: where the training images have a background of exactly ``low``, grey levels up to it become ``low``. A
    network's mean can come near to such a value but not reach it, and completions that are 1 or 2 where the truth is 0
    are nearly always above it: ranks show that at once.
    """

    low: float = 0.0
    high: float = 255.0
    floor: float = 0.0

    def to_x0(self, images: Images) -> Tensor:
        """``[N, H, W]`` to x0, float32 ``[N, 1, H, W]``."""
        half = np.float32((self.high - self.low) / 2)
        return torch.from_numpy((images[:, None] - np.float32(self.low)) / half - 1)

    def to_images(self, x0: Tensor) -> Images:
        """x0 back to uint8 ``[..., H, W]`` (the channel is dropped), clipped and rounded to nearest."""
        values = ((x0.float() + 1) * ((self.high - self.low) / 2) + self.low).round().clamp(self.low, self.high)
        pixels = values.to(torch.uint8).squeeze(-3).cpu().numpy()
        return np.where(pixels <= self.floor, np.uint8(self.low), pixels)


BYTES = ValueRange()


def to_x0(images: Images) -> Tensor:
    """uint8 ``[N, H, W]`` to the library's x0: float32 ``[N, 1, H, W]`` in [-1, 1]."""
    return BYTES.to_x0(images)


def to_uint8(x0: Tensor) -> Images:
    """x0 back to uint8 ``[..., H, W]`` (the channel is dropped), clipped and rounded to nearest."""
    return BYTES.to_images(x0)


def array_hash(array: NDArray[np.generic]) -> str:
    """SHA-256 of an array's bytes, first 16 hex digits, for provenance."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()[:16]


def black_floor(images: Images, levels: int = 4) -> int:
    """``levels`` for images whose background is exactly 0, else 0: 0 is ten times as frequent as all of 1 to
    ``levels``."""
    near = ((images > 0) & (images <= levels)).mean()
    return levels if (images == 0).mean() > 10 * near else 0


def as_images(given: Any, name: str = "images") -> Images:
    """Whatever holds images, as uint8 ``[N, H, W]``: an array, a torch tensor, a Pillow picture, or a list of them.

    Raises InputError, in one line, for what is no set of grey images with values from 0 to 255.
    """
    if isinstance(given, Tensor):
        given = given.detach().cpu().numpy()
    if isinstance(given, (list, tuple)) and not given:
        raise InputError(f"{name}: an empty list")
    if isinstance(given, (list, tuple)) and not isinstance(given[0], (list, tuple, int, float)):
        parts = [as_images(item, f"{name}[{i}]") for i, item in enumerate(given)]
        for i, part in enumerate(parts):
            if part.shape[1:] != parts[0].shape[1:]:
                raise InputError(
                    f"{name}[{i}]: {size_words(part)}, but {name}[0] is {size_words(parts[0])}: use one size"
                )
        return np.concatenate(parts)
    if hasattr(given, "getbands"):  # a Pillow picture
        if given.getbands() not in (("L",), ("1",)):
            raise InputError(f"{name}: a picture of mode {given.mode}: convert it to 8-bit grey first")
        given = np.asarray(given.convert("L"))
    try:
        array = np.asarray(given)
    except ValueError:
        raise InputError(f"{name}: {type(given).__name__} holds no array of images") from None
    return _grey(array, name)


def _grey(array: NDArray[np.generic], name: str) -> Images:
    if array.ndim == 4 and 1 in (array.shape[1], array.shape[3]):
        array = array[:, 0] if array.shape[1] == 1 else array[..., 0]
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3:
        raise InputError(f"{name}: shape {array.shape}; images are uint8 [N, H, W] in one grey channel")
    if 0 in array.shape:
        raise InputError(f"{name}: empty, its shape is {array.shape}")
    if max(array.shape[1:]) > MAX_SIDE:
        raise InputError(f"{name}: {size_words(array)} is larger than {MAX_SIDE} pixels a side")
    if array.dtype != np.uint8:
        _check_values(array, name)
    return np.ascontiguousarray(array, np.uint8)


def _check_values(array: NDArray[np.generic], name: str) -> None:
    """Raise InputError for values that are no uint8 in another type."""
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name}: {array.dtype} values; images are uint8 from 0 to 255")
    if not np.isfinite(array).all():
        raise InputError(f"{name}: holds NaN or infinite values; images are uint8 from 0 to 255")
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 255 or not np.array_equal(array, np.round(array)):
        raise InputError(f"{name}: {array.dtype} values from {low:g} to {high:g}; images are uint8 from 0 to 255")
    if high <= 1 and np.issubdtype(array.dtype, np.floating):
        raise InputError(f"{name}: {array.dtype} values from {low:g} to {high:g}: multiply by 255 and save as uint8")


def size_words(images: NDArray[np.generic]) -> str:
    """Height and width of images ``[..., H, W]``, in words."""
    return f"{images.shape[-2]}x{images.shape[-1]}"


def check_size(images: NDArray[np.generic] | Tensor, name: str) -> None:
    """Raise InputError for a size ``[..., H, W]`` that the network cannot take: a side under 16 or no multiple of 4."""
    h, w = images.shape[-2:]
    if h % 4 or w % 4 or min(h, w) < 16:
        raise InputError(f"{name}: {h}x{w} pixels; both sides must be multiples of 4 and at least 16: crop or pad it")
