"""Images as users hold them, and the one way into the library's own numbers and back.

Users hold ``[N, H, W]`` (grey) or ``[N, H, W, C]``, C from 1 to 4, of any number type; the library works on x0, float32
``[N, C, H, W]`` in [-1, 1].
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inkfill.core.masks import Mask as Mask
from inkfill.errors import InputError

Images = NDArray[Any]
MIN_SIDE = 8  # pixels
MAX_SIDE = 16_384  # pixels
MAX_PIXELS = 2**26  # of one picture
CHANNELS = {1: "grey", 2: "grey with alpha", 3: "colour", 4: "colour with alpha"}

# ---- values ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ValueRange:
    """Which of the users' values is black and which is white: ``low`` becomes -1, ``high`` 1.

    ``floor``: where the training images have a background of exactly ``low``, values up to it (as a distance from
    ``low``) become ``low``. A network's mean can come near to such a value but not reach it, and completions that are 1
    or 2 where the truth is 0 are nearly always above it: ranks show that at once.
    """

    low: float = 0.0
    high: float = 255.0
    floor: float = 0.0

    def scaled(self, low: float, high: float) -> "ValueRange":
        """The same for images whose black and white are other numbers."""
        if (low, high) == (self.low, self.high):
            return self
        return ValueRange(low, high, self.floor / (self.high - self.low) * (high - low))

    def to_x0(self, images: Images) -> Tensor:
        """``[N, H, W]`` or ``[N, H, W, C]`` to x0, float32 ``[N, C, H, W]``; NaN stays NaN."""
        exact = _exact(images.dtype)
        planes = images[:, None] if images.ndim == 3 else np.moveaxis(images, -1, 1)
        x0 = (planes.astype(exact) - exact(self.low)) / exact((self.high - self.low) / 2) - 1
        return torch.from_numpy(x0.astype(np.float32, copy=False))

    def to_images(self, x0: Tensor, like: Images | None = None) -> Images:
        """x0 back to the number type and the layout of ``like`` (without it: uint8, grey without a channel axis).

        Clipped to the range, and to what the type can hold; whole numbers are rounded to nearest.
        """
        dtype, low, high = np.dtype(np.uint8) if like is None else like.dtype, self.low, self.high
        if dtype.kind in "iu":
            top = np.iinfo(dtype).max if dtype.itemsize < 8 else np.nextafter(float(np.iinfo(dtype).max), 0)
            low, high = max(low, float(np.iinfo(dtype).min)), min(high, float(top))
        exact = _exact(dtype)
        x0 = x0.float() if exact is np.float32 else x0.cpu().double()
        values = (x0 + 1) * ((self.high - self.low) / 2) + self.low
        values = (values.round() if dtype.kind in "iu" else values).clamp(low, high).cpu()
        array = values.numpy()
        array = np.where(array - self.low <= self.floor, exact(low), array)
        grey = array.shape[-3] == 1 and (like is None or like.ndim == 3)
        array = array.squeeze(-3) if grey else np.moveaxis(array, -3, -1)
        return array > (self.low + self.high) / 2 if dtype.kind == "b" else array.astype(dtype)


def _exact(dtype: np.dtype) -> Any:
    """What the numbers of a type are computed in: float32 cannot tell all whole numbers of over 24 bits apart."""
    return np.float32 if dtype.itemsize <= 2 or dtype == np.float32 else np.float64


BYTES = ValueRange()


def to_x0(images: Images) -> Tensor:
    """uint8 ``[N, H, W]`` or ``[N, H, W, C]`` to the library's x0: float32 ``[N, C, H, W]`` in [-1, 1]."""
    return BYTES.to_x0(images)


def to_uint8(x0: Tensor) -> Images:
    """x0 back to uint8 ``[..., H, W]`` (grey) or ``[..., H, W, C]``, clipped and rounded to nearest."""
    return BYTES.to_images(x0)


def natural_range(dtype: np.dtype) -> tuple[float, float] | None:
    """The range that a number type has by itself: that of bool, 8 and 16 bits; None for the others."""
    return {"bool": (0.0, 1.0), "uint8": (0.0, 255.0), "uint16": (0.0, 65535.0)}.get(dtype.name)


def range_of(images: Images) -> tuple[float, float]:
    """The range of a set of images: of its number type, or else the least and the largest value that it has.

    Raises InputError for images that are all of one value.
    """
    found = natural_range(images.dtype)
    if found is None:
        found = float(np.nanmin(images)), float(np.nanmax(images))
        if not found[0] < found[1]:
            raise InputError(f"all values are {found[0]:g}: say what black and white are, with --range LOW HIGH")
    return found


def range_of_type(dtype: np.dtype, learnt: ValueRange, learnt_type: str) -> ValueRange | None:
    """What black and white are in images of a type: as a model learnt from images of that type, or by the type itself.

    None where that depends on the images.
    """
    if dtype.name == learnt_type or (dtype.kind == "f" and np.dtype(learnt_type).kind == "f"):
        return learnt
    natural = natural_range(dtype)
    return learnt.scaled(*natural) if natural else None


def range_for(
    images: Images, missing: Mask, learnt: ValueRange, learnt_type: str, given: tuple[float, float] | None = None
) -> ValueRange:
    """What black and white are in images that a model is to fill, which learnt from images of another type perhaps.

    ``given``, or what the type says, or for fractions from 0 to 1 just that, or the range that was learnt. Raises
    InputError where none of them can be, and for known values that are no numbers.
    """
    if images.dtype.kind == "f" and not np.isfinite(images[~missing]).all():
        raise InputError(
            "the images have NaN or infinite values outside the mask: give --mask nan, or a mask over them"
        )
    if given is not None:
        if not (np.isfinite(given).all() and given[0] < given[1]):
            raise InputError(f"a range from {given[0]:g} to {given[1]:g}: LOW must be under HIGH")
        return learnt.scaled(*given)
    by_type = range_of_type(images.dtype, learnt, learnt_type)
    if by_type:
        return by_type
    known = images[~missing]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    if low >= 0 and high <= 1 and images.dtype.kind == "f":
        return learnt.scaled(0.0, 1.0)
    if low >= learnt.low and high <= learnt.high:
        return _held(learnt, images.dtype)
    raise InputError(f"{images.dtype} values from {low:g} to {high:g}: say what black and white are (--range LOW HIGH)")


def _held(values: ValueRange, dtype: np.dtype) -> ValueRange:
    """Black and white, which numbers of a type must be able to be. Raises InputError."""
    if dtype.kind in "iu" and not np.iinfo(dtype).min <= values.low < values.high <= np.iinfo(dtype).max:
        raise InputError(
            f"{dtype} cannot hold values from {values.low:g} to {values.high:g}: say what black and white are (--range "
            "LOW HIGH)"
        )
    return values


def as_bytes(images: Images, values: ValueRange = BYTES) -> NDArray[np.uint8]:
    """Images of any type as uint8, black 0 and white 255, to be looked at or scored; uint8 stays as it is."""
    if images.dtype == np.uint8 and (values.low, values.high) == (0, 255):
        return images
    scaled = (images.astype(np.float32) - values.low) * (255 / (values.high - values.low))
    return np.nan_to_num(scaled).round().clip(0, 255).astype(np.uint8)


def array_hash(array: NDArray[np.generic]) -> str:
    """SHA-256 of an array's bytes, first 16 hex digits, for provenance."""
    return hashlib.sha256(np.ascontiguousarray(array).data.cast("B")).hexdigest()[:16]


def black_floor(images: Images, levels: int = 4) -> int:
    """``levels`` for images of bytes whose background is exactly 0, else 0: 0 is ten times as frequent as all of 1 to
    ``levels``."""
    if images.dtype != np.uint8:
        return 0
    near = ((images > 0) & (images <= levels)).mean()
    return levels if (images == 0).mean() > 10 * near else 0


# ---- forms -----------------------------------------------------------------------------------------------------------


def channels_of(images: Images) -> int:
    """Channels of images ``[N, H, W]`` or ``[N, H, W, C]``."""
    return 1 if images.ndim == 3 else images.shape[3]


def with_channels(picture: Images, colour: bool, alpha: bool) -> Images:
    """A picture of bytes ``[H, W]`` or ``[H, W, C]`` with colour if it is to have it, and with alpha or without."""
    planes = picture[..., None] if picture.ndim == 2 else picture
    has_alpha = planes.shape[2] in (2, 4)
    base = planes[..., :-1] if has_alpha else planes
    base = np.repeat(base, 3, -1) if colour and base.shape[2] == 1 else base
    if alpha:
        opaque = np.full((*planes.shape[:2], 1), np.iinfo(planes.dtype).max, planes.dtype)
        base = np.concatenate([base, planes[..., -1:] if has_alpha else opaque], -1)
    return base[..., 0] if base.shape[2] == 1 else base


def as_known(picture: Images, knows: int) -> Images:
    """A picture ``[H, W]`` or ``[H, W, C]`` with what weights know of and a file need not say: grey in colour, opaque.

    Pictures are read as grey where all their colours are, and without alpha where all of it is opaque.
    """
    have = channels_of(picture[None])
    return with_channels(picture, have >= 3 or knows >= 3, have in (2, 4) or knows in (2, 4))


def can_be_filled(have: int, knows: int) -> bool:
    """Whether images of so many channels are what weights know, or have nothing more than an alpha channel."""
    return have == knows or (have in (2, 4) and have == knows + 1)


def other_channels(have: int, knows: int) -> str:
    """What to say and to do about images of other channels than weights know."""
    do = (
        "make them grey (--grey), or use weights trained on colour"
        if knows == 1
        else "use weights trained on such images"
    )
    return f"the images are {CHANNELS[have]}, and the weights know images that are {CHANNELS[knows]}: {do}"


def without_alpha(images: Images, knows: int) -> Images:
    """Images as weights of so many channels know them: without the alpha channel that these do not have."""
    have = channels_of(images)
    if have == knows or not can_be_filled(have, knows):
        return images
    return images[..., 0] if knows == 1 else images[..., :-1]


def opaque_of(dtype: np.dtype) -> float:
    """What opaque is in an alpha channel: of 8 and 16 bits the most that there is, 255 of other whole numbers, else 1.

    A matter of the type alone, so that no part of a set of images can differ from another.
    """
    natural = natural_range(dtype)
    return natural[1] if natural else 255.0 if dtype.kind in "iu" else 1.0


def of_values(mask: Mask, images: Images) -> Mask:
    """A mask ``[N, H, W]``, shaped to choose among the values of images ``[N, H, W]`` or ``[N, H, W, C]``."""
    return mask if images.ndim == 3 else mask[..., None]


def size_words(images: Images) -> str:
    """Height and width of images ``[N, H, W]`` or ``[N, H, W, C]``, in words."""
    return f"{images.shape[1]}x{images.shape[2]}"


def as_images(given: Any, name: str = "images") -> Images:
    """Whatever holds images of one size, as ``[N, H, W]`` or ``[N, H, W, C]``, in its own number type.

    An array, a torch tensor (``[N, C, H, W]`` too), a Pillow picture, or a list of such. One picture may come without
    N. Values that are masked in a numpy masked array become holes: see ``masks.holes_of``. Raises InputError.
    """
    if isinstance(given, (list, tuple)) and not given:
        raise InputError(f"{name}: an empty list")
    if isinstance(given, (list, tuple)) and not isinstance(given[0], (list, tuple, int, float)):
        parts = [as_images(item, f"{name}[{i}]") for i, item in enumerate(given)]
        for i, part in enumerate(parts):
            if (part.shape[1:], part.dtype) != (parts[0].shape[1:], parts[0].dtype):
                raise InputError(
                    f"{name}[{i}]: {part.dtype} {list(part.shape[1:])}, but {name}[0] is {parts[0].dtype} "
                    f"{list(parts[0].shape[1:])}: use one size and number type"
                )
        joined = np.ma.concatenate if any(map(np.ma.isMaskedArray, parts)) else np.concatenate  # which drops masks
        return joined(parts)
    if hasattr(given, "getbands"):  # a Pillow picture
        given = pixels_of(given, name)
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        given = (given.float() if given.dtype == torch.bfloat16 else given).numpy()
        if given.ndim == 4 and given.shape[1] <= 4 < given.shape[3]:
            given = np.moveaxis(given, 1, -1) if given.shape[1] > 1 else given[:, 0]
    try:
        array = np.asanyarray(given)
    except ValueError:
        raise InputError(f"{name}: {type(given).__name__} holds no array of images") from None
    return _checked(array, name)


def _checked(array: NDArray[Any], name: str) -> Images:
    """An array of images with its axes in order. Raises InputError."""
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name}: {array.dtype} values; images are numbers or booleans")
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] <= 4 < min(array.shape[:2])):
        array = array[None]
    if array.ndim == 4 and array.shape[1] == 1 and array.shape[3] > 4:
        array = array[:, 0]
    if array.ndim == 4 and array.shape[1] <= 4 < array.shape[3]:
        raise InputError(
            f"{name}: shape {array.shape} looks like [N,C,H,W]: turn it with numpy.moveaxis(images, 1, -1)"
        )
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] > 4):
        raise InputError(f"{name}: shape {array.shape}; images are [N, H, W] or [N, H, W, C] with at most 4 channels")
    if 0 in array.shape:
        raise InputError(f"{name}: empty, its shape is {array.shape}")
    check_size(array.shape[1], array.shape[2], name)
    if array.dtype.kind == "f" and np.isinf(array[:1000]).any():
        raise InputError(f"{name}: holds infinite values")
    return array


def check_size(height: int, width: int, name: str) -> None:
    """Raise InputError for a picture that is too small to mean anything, or too large."""
    if min(height, width) < MIN_SIDE:
        raise InputError(f"{name}: {height}x{width} pixels; both sides must be at least {MIN_SIDE}: enlarge or pad it")
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        raise InputError(f"{name}: {height}x{width} pixels, more than inkfill reads ({MAX_PIXELS:,})")


def pixels_of(picture: Any, name: str) -> Images:
    """The pixels of a Pillow picture: uint8 ``[H, W]`` or ``[H, W, C]``, or uint16 ``[H, W]``. Raises InputError.

    Nothing is converted that could not be given back: pixels that are known must come back bit for bit.
    """
    mode = picture.mode
    if mode in ("I;16", "I;16B", "I;16L"):
        return np.asarray(picture).astype(np.uint16)
    if mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        raise InputError(f"{name}: its colours are {mode}: convert it to grey or RGB first")
    clear = mode in ("LA", "PA", "RGBA") or "transparency" in picture.info
    if mode in ("1", "L", "LA") and not clear:
        return np.asarray(picture.convert("L"))
    pixels = np.asarray(picture.convert("RGBA" if clear else "RGB"))
    if clear and (pixels[..., 3] == 255).all():
        pixels = pixels[..., :3]
    colour, alpha = pixels[..., :3], pixels[..., 3:]
    if not is_grey(colour, lossy=getattr(picture, "format", None) in ("JPEG", "WEBP")):
        return pixels
    grey = np.asarray(picture.convert("L")) if alpha.shape[-1] == 0 else colour[..., 1]
    return np.stack([grey, alpha[..., 0]], -1) if alpha.shape[-1] else grey


def is_grey(colour: Images, lossy: bool) -> bool:
    """Whether pixels ``[..., 3]`` are grey: exactly, or within what lossy compression does to chroma."""
    apart = colour.max(-1).astype(np.int16) - colour.min(-1)
    return bool(apart.max() == 0) or (lossy and bool(apart.max() <= 16 and apart.mean() <= 2))
