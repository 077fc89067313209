"""Images as users hold them, and their conversion to x0 and back.

Users hold ``[N, H, W]`` (grey) or ``[N, H, W, C]``, C from 1 to 32, of any dtype. The library works on x0, float32
``[N, C, H, W]`` in [-1, 1].
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inkfill.core.masks import Mask as Mask
from inkfill.core.unet import MAX_CHANNELS
from inkfill.errors import InputError

Images = NDArray[Any]
MIN_SIDE = 8  # pixels
MAX_SIDE = 16_384  # pixels
MAX_PIXELS = 2**26  # per image
CHANNELS = {1: "grey", 2: "grey with alpha", 3: "colour", 4: "colour with alpha"}
DTYPES = (
    "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64",
)  # fmt: skip

# ---- values ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ValueRange:
    """The data range: ``low`` becomes -1, ``high`` becomes 1.

    Values within ``floor`` of ``low`` become ``low``, where the training images have a background of exactly ``low``: a
    posterior mean approaches the end of the range but never reaches it, so samples would rank above the truth.
    """

    low: float = 0.0
    high: float = 255.0
    floor: float = 0.0

    def scaled(self, low: float, high: float) -> "ValueRange":
        """The same for images of another data range."""
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
        """x0 ``[..., C, H, W]`` to the dtype and layout of ``like``; by default uint8, grey without a channel axis.

        Values are clipped to the data range and to the dtype; integers are rounded to nearest.
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
    """The dtype to compute in: float32 has 24 bits, too few for larger integers and float64."""
    return np.float32 if dtype.itemsize <= 2 or dtype == np.float32 else np.float64


BYTES = ValueRange()


to_x0 = BYTES.to_x0  # of uint8 images
to_uint8 = BYTES.to_images


def natural_range(dtype: np.dtype) -> tuple[float, float] | None:
    """The data range that a dtype implies (bool, uint8, uint16); None for other dtypes."""
    return {"bool": (0.0, 1.0), "uint8": (0.0, 255.0), "uint16": (0.0, 65535.0)}.get(dtype.name)


def range_of(images: Images) -> tuple[float, float]:
    """The data range of training images: by their dtype, or else their least and largest value."""
    low, high = natural_range(images.dtype) or (float(np.nanmin(images)), float(np.nanmax(images)))
    if not low < high:
        raise InputError(f"all values are {low:g}: the data range is unknown: give --range LOW HIGH")
    return low, high


def range_of_type(dtype: np.dtype, learnt: ValueRange, learnt_type: str) -> ValueRange | None:
    """The data range of a dtype: ``learnt`` for the dtype of the training images, else the dtype's own.

    None where it depends on the values: the dtype implies no range, or ``learnt`` is in units of its own, such as
    metres, and not the range of its dtype.
    """
    if dtype.name == learnt_type or (dtype.kind == "f" and np.dtype(learnt_type).kind == "f"):
        return learnt
    natural = natural_range(dtype)
    return learnt.scaled(*natural) if natural and not has_units(learnt, learnt_type) else None


def has_units(learnt: ValueRange, learnt_type: str) -> bool:
    """Whether a data range differs from the one that its dtype implies; for floats that is 0 to 1."""
    implied = (0.0, 1.0) if np.dtype(learnt_type).kind == "f" else natural_range(np.dtype(learnt_type))
    return (learnt.low, learnt.high) != implied


def range_for(
    images: Images, missing: Mask, learnt: ValueRange, learnt_type: str, given: tuple[float, float] | None = None
) -> ValueRange:
    """The data range of images to fill, for a model trained on images of range ``learnt`` and dtype ``learnt_type``.

    In this order: ``given``; by the dtype; 0 to 1 for floats within it, unless ``learnt`` has units of its own;
    ``learnt`` if it holds the observed values. Raises InputError where none applies.
    """
    dtype, known = images.dtype, images[~missing]
    if dtype.kind == "f" and not np.isfinite(known).all():
        raise InputError("the images have NaN or infinite values outside the mask: give --mask nan, or mask them")
    if given is not None:
        try:
            low, high = map(float, given)
        except (TypeError, ValueError):
            low = high = math.nan
        if not -math.inf < low < high < math.inf:
            raise InputError(f"--range (value_range) {given}: give two numbers: LOW must be below HIGH, both finite")
        return learnt.scaled(low, high)
    if by_type := range_of_type(dtype, learnt, learnt_type):
        return by_type
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    if low >= 0 and high <= 1 and dtype.kind == "f" and not has_units(learnt, learnt_type):
        return learnt.scaled(0.0, 1.0)
    if low < learnt.low or high > learnt.high:
        raise InputError(f"{dtype} values from {low:g} to {high:g}: the data range is unknown: give --range LOW HIGH")
    holds = dtype.kind not in "iu" or np.iinfo(dtype).min <= learnt.low < learnt.high <= np.iinfo(dtype).max
    if not holds and not has_units(learnt, learnt_type):  # with units, what the dtype cannot hold is clipped
        raise InputError(f"{dtype} cannot hold values from {learnt.low:g} to {learnt.high:g}: give --range LOW HIGH")
    return learnt


def as_bytes(images: Images, values: ValueRange = BYTES) -> NDArray[np.uint8]:
    """Images of any dtype as uint8, ``low`` at 0 and ``high`` at 255, for display and scores; uint8 is unchanged."""
    if images.dtype == np.uint8 and (values.low, values.high) == (0, 255):
        return images
    scaled = (images.astype(np.float32) - values.low) * (255 / (values.high - values.low))
    return np.nan_to_num(scaled).round().clip(0, 255).astype(np.uint8)


def array_hash(array: NDArray[np.generic]) -> str:
    """SHA-256 of an array's bytes, first 16 hex digits, for provenance."""
    return hashlib.sha256(np.ascontiguousarray(array).data.cast("B")).hexdigest()[:16]


def black_floor(images: Images, levels: int = 4) -> int:
    """``levels`` for uint8 images of which 0 is ten times as frequent as 1 to ``levels`` together, else 0."""
    if images.dtype != np.uint8:
        return 0
    near = ((images > 0) & (images <= levels)).mean()
    return levels if (images == 0).mean() > 10 * near else 0


# ---- channels --------------------------------------------------------------------------------------------------------


def channel_words(count: int) -> str:
    """What images of so many channels are called."""
    return CHANNELS.get(count, f"of {count} channels")


def channels_of(images: Images) -> int:
    """Channels of images ``[N, H, W]`` or ``[N, H, W, C]``."""
    return 1 if images.ndim == 3 else images.shape[3]


def with_channels(image: Images, colour: bool, alpha: bool) -> Images:
    """An image ``[H, W]`` or ``[H, W, C]`` of an integer dtype, in colour if asked for, with or without alpha."""
    planes = image[..., None] if image.ndim == 2 else image
    has_alpha = planes.shape[2] in (2, 4)
    base = planes[..., :-1] if has_alpha else planes
    base = np.repeat(base, 3, -1) if colour and base.shape[2] == 1 else base
    if alpha:
        opaque = np.full((*planes.shape[:2], 1), np.iinfo(planes.dtype).max, planes.dtype)
        base = np.concatenate([base, planes[..., -1:] if has_alpha else opaque], -1)
    return base[..., 0] if base.shape[2] == 1 else base


def as_known(image: Images, knows: int) -> Images:
    """An image ``[H, W]`` or ``[H, W, C]`` from a file, with the colour and alpha channels that the weights expect.

    Readers drop colour where all pixels are grey, and alpha where all are opaque.
    """
    have = channels_of(image[None])
    return with_channels(image, have >= 3 or knows >= 3, have in (2, 4) or knows in (2, 4))


def without_alpha(images: Images, knows: int) -> Images:
    """The images without an alpha channel that weights for ``knows`` channels do not expect.

    Raises InputError for images that such weights cannot fill.
    """
    have = channels_of(images)
    if have == knows:
        return images
    if have not in (2, 4) or have != knows + 1:
        remedy = "convert them (--grey) or use weights for colour" if knows == 1 else "use weights for such images"
        raise InputError(f"the images are {channel_words(have)}, the weights expect {channel_words(knows)}: {remedy}")
    return images[..., 0] if knows == 1 else images[..., :-1]


def without_hidden_colour(images: Images) -> Images:
    """The images with 0 where they are wholly transparent, so that hidden colour is never read.

    Of 2 and 4 channels the last may be alpha or a band: in an image with alpha, at least half of its values are 0 or
    opaque, and a hundredth opaque.
    """
    if channels_of(images) not in (2, 4):
        return images
    last = images[..., -1]
    opaque, clear = last == opaque_of(images.dtype), last == 0
    alpha = ((opaque | clear).mean((1, 2)) >= 0.5) & (opaque.mean((1, 2)) >= 0.01)
    hidden = clear & alpha[:, None, None]
    return np.where(hidden[..., None], np.zeros((), images.dtype), images) if hidden.any() else images


def opaque_of(dtype: np.dtype) -> float:
    """The opaque value of an alpha channel, by dtype alone: the top of 8 and 16 bits, 255 of other integers, else 1."""
    natural = natural_range(dtype)
    return natural[1] if natural else 255.0 if dtype.kind in "iu" else 1.0


def of_values(mask: Mask, images: Images) -> Mask:
    """A mask ``[N, H, W]`` or ``[N, H, W, C]``, shaped to broadcast over images ``[N, H, W]`` or ``[N, H, W, C]``."""
    return mask if mask.ndim == images.ndim else mask[..., None]


def of_pixels(mask: Mask) -> Mask:
    """Pixels of which any channel is missing: ``[N, H, W]`` or ``[N, H, W, C]`` to ``[N, H, W]``."""
    return np.asarray(mask.any(-1)) if mask.ndim == 4 else mask


def size_words(images: Images) -> str:
    """The size of images ``[N, H, W]`` or ``[N, H, W, C]``, such as ``28x28``."""
    return f"{images.shape[1]}x{images.shape[2]}"


# ---- arrays, tensors, Pillow images ----------------------------------------------------------------------------------


def as_images(given: Any, name: str = "images") -> Images:
    """Images of one size as ``[N, H, W]`` or ``[N, H, W, C]``, in their own dtype.

    ``given`` is an array, a torch tensor (``[N, C, H, W]`` too), a Pillow image, or a list of them; a single image may
    come without N. Masked values of a numpy masked array stay masked (``masks.holes_of``). Raises InputError.
    """
    return joined(as_parts(given, name), name)


def joined(parts: list[Images], name: str = "images") -> Images:
    """Arrays of images of one size and dtype as one array. Raises InputError for others."""
    for i, part in enumerate(parts):
        kind, first = (f"{x.dtype} {list(x.shape[1:])}" for x in (part, parts[0]))
        if kind != first:
            raise InputError(f"{name}[{i}]: {kind}, but {name}[0] is {first}: use one size and dtype")
    if len(parts) == 1:
        return parts[0]
    join = np.ma.concatenate if any(map(np.ma.isMaskedArray, parts)) else np.concatenate  # which drops masks
    return join(parts)


def as_parts(given: Any, name: str = "images", knows: int = 0) -> list[Images]:
    """An array of images for each item of a list, or one array, as :func:`as_images` takes them.

    Pillow images get the channels that weights for ``knows`` channels expect. Raises InputError.
    """
    if isinstance(given, (list, tuple)) and not given:
        raise InputError(f"{name}: an empty list")
    if isinstance(given, (list, tuple)) and not isinstance(given[0], (list, tuple, int, float)):
        return [part for i, item in enumerate(given) for part in as_parts(item, f"{name}[{i}]", knows)]
    if hasattr(given, "getbands"):  # a Pillow image
        given = as_known(pixels_of(given, name), knows)
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        given = (given.float() if given.dtype == torch.bfloat16 else given).numpy()
        if given.ndim == 4 and _channels_first(given.shape, knows):
            given = np.moveaxis(given, 1, -1)
    try:
        array = np.asanyarray(given)
    except ValueError:
        raise InputError(f"{name}: not an array of images: give [N, H, W] or [N, H, W, C]") from None
    return [_checked(array, name)]


def _channels_first(shape: tuple[int, ...], knows: int) -> bool:
    """Whether a tensor is ``[N, C, H, W]``: by the channels that weights expect, else by the smaller of two axes."""
    if knows > 1 and (shape[1] == knows) != (shape[3] == knows):
        return shape[1] == knows
    return 1 < shape[1] <= MAX_CHANNELS and shape[1] < shape[3]


def _checked(array: NDArray[Any], name: str) -> Images:
    """An array of images with N first, checked. Raises InputError."""
    if array.dtype.name not in DTYPES:
        raise InputError(f"{name}: dtype {array.dtype} is not supported: use one of {', '.join(DTYPES)}")
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] < MIN_SIDE <= min(array.shape[:2])):
        array = array[None]
    if array.ndim == 4 and array.shape[1] == 1 and array.shape[3] >= MIN_SIDE:
        array = array[:, 0]
    channels_first = array.ndim == 4 and array.shape[1] < MIN_SIDE <= array.shape[3]
    if array.ndim not in (3, 4) or channels_first or (array.ndim == 4 and array.shape[3] > MAX_CHANNELS):
        remedy = f"give [N, H, W] or [N, H, W, C] with at most {MAX_CHANNELS} channels (numpy.moveaxis(images, 1, -1))"
        raise InputError(f"{name}: shape {array.shape}: {remedy}")
    if 0 in array.shape:
        raise InputError(f"{name}: empty: its shape is {array.shape}")
    check_size(array.shape[1], array.shape[2], name)
    if array.dtype.kind == "f" and np.isinf(array[:1000]).any():
        raise InputError(f"{name}: holds infinite values")
    return array


def check_size(height: int, width: int, name: str) -> None:
    """Raise InputError for an image that is too small or too large."""
    if min(height, width) < MIN_SIDE:
        raise InputError(f"{name}: {height}x{width} pixels: both sides must be at least {MIN_SIDE}: enlarge or pad it")
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        size = f"{height}x{width} pixels, more than inkfill reads ({MAX_PIXELS:,})"
        raise InputError(f"{name}: {size}: cut it into parts")


def pixels_of(picture: Any, name: str) -> Images:
    """The pixels of a Pillow image: uint8 ``[H, W]`` or ``[H, W, C]``, or uint16 ``[H, W]``.

    Colour is dropped where all pixels are grey, up to the chroma errors of lossy compression, and alpha where all are
    opaque. Raises InputError for pixel formats that cannot be converted without loss.
    """
    mode = picture.mode
    if mode in ("I;16", "I;16B", "I;16L"):
        return np.asarray(picture).astype(np.uint16)
    if mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        raise InputError(f"{name}: pixel format {mode} is not supported: save it as .npy, or convert it to grey or RGB")
    if mode in ("1", "L") and "transparency" not in picture.info:
        return np.asarray(picture.convert("L"))
    pixels = np.asarray(picture.convert("RGBA"))
    colour, alpha = pixels[..., :3], pixels[..., 3]
    opaque = bool((alpha == 255).all())
    apart = colour.max(-1) - colour.min(-1)
    lossy = getattr(picture, "format", None) in ("JPEG", "WEBP")
    if apart.any() and not (lossy and apart.max() <= 16 and apart.mean() <= 2):
        return colour if opaque else pixels
    return np.asarray(picture.convert("L")) if opaque else np.stack([colour[..., 1], alpha], -1)
