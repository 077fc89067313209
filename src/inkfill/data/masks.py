"""Masks as people have them: files of many kinds, holes that are already in the images, and what is to be done to them.

True = missing, to be filled; in a file, white = fill.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inkfill.data.families import FAMILIES, PART, TRAINING, MaskSpec, half, parse, pixels
from inkfill.data.images import Images, Mask, channels_of, opaque_of
from inkfill.data.readers import PICTURES, picture_files, read_array, read_frames
from inkfill.errors import InputError, remark, shown
from inkfill.rng import stream

__all__ = [
    "FAMILIES",
    "PART",
    "TRAINING",
    "MaskOptions",
    "MaskSpec",
    "fit",
    "fit_each",
    "half",
    "parse",
    "pixels",
    "read_mask",
]

NO_HOLES = "the images have no holes of their own (NaN or masked values): give a mask (--mask)"
NOTHING = "no pixel is missing by {}: there is nothing to fill"
IN_IMAGES = ("nan", "alpha")  # specs of holes that are already there


@dataclass(frozen=True)
class MaskOptions:
    """What is done to a mask after it was read: a colour that marks the holes, inverted, grown by so many pixels."""

    colour: tuple[int, int, int] | None = None
    invert: bool = False
    grow: int = 0

    def applied(self, mask: Mask) -> Mask:
        """The mask ``[N, H, W]`` that is meant."""
        mask = ~mask if self.invert else mask
        if not self.grow:
            return mask
        size = 2 * self.grow + 1
        grown = torch.nn.functional.max_pool2d(torch.tensor(mask[:, None], dtype=torch.float32), size, 1, self.grow)
        return grown[:, 0].numpy() > 0


AS_IT_IS = MaskOptions()


def fit(mask: Any, images: Images, seed: int = 0, options: MaskOptions = AS_IT_IS) -> Mask:
    """The mask for these images, bool ``[N, H, W]``: drawn from a spec, read from a file, or an array or tensor.

    ``"nan"``: values that are NaN; ``"alpha"``: pixels that are more than half transparent. None: the holes that are
    in the images, NaN or masked in a numpy masked array. Holes of a masked array always count. Raises InputError.
    """
    n, height, width = images.shape[:3]
    if mask is None:
        found = holes_of(images)
        if not found.any():
            raise InputError(NO_HOLES)
    elif isinstance(mask, str) and mask in IN_IMAGES:
        found = holes_of(images) if mask == "nan" else transparent(images)
    elif isinstance(mask, (str, Path)):
        read = read_mask(mask, options)
        if isinstance(read, str):
            found = parse(read).draw(n, height, width, stream(seed, "mask"), images)
        else:
            found = _fitted(read, images)
    else:
        found = _fitted(mask.detach().cpu().numpy() if isinstance(mask, torch.Tensor) else np.asarray(mask), images)
    found = options.applied(found)
    return np.logical_or(found, holes_of(images)) if isinstance(images, np.ma.MaskedArray) else found


def _fitted(given: NDArray[Any], images: Images) -> Mask:
    """A mask array, checked against the images and spread over them."""
    if given.dtype != np.bool_:
        raise InputError(f"the mask holds {given.dtype} values: give bool, True = missing")
    if given.ndim == 4 and given.shape[1] == 1:  # as tensors of images are
        given = given[:, 0]
    if given.ndim == 3 and len(given) == 1:
        given = given[0]
    if given.ndim not in (2, 3) or given.shape[-2:] != images.shape[1:3]:
        raise InputError(
            f"the mask has shape {list(given.shape)}, the images have {list(images.shape)}: sizes must agree"
        )
    if given.ndim == 3 and len(given) != len(images):
        raise InputError(
            f"the mask is for {len(given)} images, but there are {len(images)}: give one each, or one for all"
        )
    return np.broadcast_to(given, images.shape[:3])


def fit_each(specs: Sequence[str], images: Images, seed: int = 0) -> Mask:
    """A spec an image, drawn with the seeds ``seed``, ``seed`` + 1, ...: bool ``[N, H, W]``. Raises InputError."""
    each = zip(specs, images, strict=True)
    return np.concatenate([fit(spec, image[None], seed + i) for i, (spec, image) in enumerate(each)])


def in_parts(
    mask: str | None, shape: tuple[int, ...], seed: int, options: MaskOptions = AS_IT_IS
) -> Callable[[Images, int], Mask]:
    """``draw(images, start)``: the masks of a part of a long set, as :func:`fit` would give them for the whole.

    Parts must be asked for in order; one may have no holes of its own where others have. Raises InputError.
    """
    if mask is None:
        return lambda images, start: options.applied(holes_of(images))
    read = mask if mask in IN_IMAGES else read_mask(mask, options)
    if isinstance(read, str) and read not in IN_IMAGES:
        spec, rng = parse(read), stream(seed, "mask")

        def drawn(images: Images, start: int) -> Mask:
            return options.applied(spec.draw(len(images), images.shape[1], images.shape[2], rng, images))

        return drawn
    if isinstance(read, np.ndarray) and read.ndim == 3 and len(read) not in (1, shape[0]):
        raise InputError(f"the mask is for {len(read)} images, but there are {shape[0]}: give one each, or one for all")

    def draw(images: Images, start: int) -> Mask:
        each = isinstance(read, np.ndarray) and read.ndim == 3 and len(read) > 1
        return fit(read[start : start + len(images)] if each else read, images, seed, options)

    return draw


# ---- holes that are already there ------------------------------------------------------------------------------------


def holes_of(images: Images) -> Mask:
    """Pixels of which a value is NaN, or masked in a numpy masked array: bool ``[N, H, W]``."""
    holes = np.isnan(np.ma.getdata(images)) if images.dtype.kind == "f" else np.zeros(images.shape, bool)
    if isinstance(images, np.ma.MaskedArray):
        holes = holes | np.ma.getmaskarray(images)
    return np.asarray(holes.any(-1) if holes.ndim == 4 else holes)


def transparent(images: Images) -> Mask:
    """Pixels that are more than half transparent. Raises InputError for images without an alpha channel."""
    if channels_of(images) not in (2, 4):
        raise InputError(f"--mask alpha needs an alpha channel, and these images have {channels_of(images)} channels")
    alpha = np.ma.getdata(images)[..., -1]
    return alpha < opaque_of(alpha.dtype) / 2


# ---- files -----------------------------------------------------------------------------------------------------------


def read_mask(given: str | Path, options: MaskOptions = AS_IT_IS) -> Mask | str:
    """A mask from a file (bool ``[H, W]`` or ``[N, H, W]``, True = missing), or the checked spec as it is.

    A spec wins over a file or a folder of its name. ``.npy`` holds bool, or numbers that are low where pixels are kept
    and high where they are filled; a picture, or a folder of pictures with one for each image, is black and white
    (white = fill), or transparent where pixels are to be filled, or has the holes in ``options.colour``. Soft edges
    are cut at half. Raises InputError.
    """
    if isinstance(given, str) and is_spec(given):
        return given
    path = Path(given)
    if not exists(path):
        if isinstance(given, Path) or path.suffix.lower() in PICTURES | {".npy", ".npz"}:
            raise InputError(f"{path}: no such mask file")
        try:
            parse(str(given))
        except InputError as error:
            raise InputError(f"{error}; or name a mask file") from None
    if path.is_dir() or path.suffix.lower() in PICTURES:
        parts = [mask_of(frame, str(f), options) for f in mask_files(path) for frame in read_frames(f)]
        if len({part.shape for part in parts}) > 1:
            raise InputError(f"{path}: masks of several sizes go with a folder of pictures of these sizes alone")
        found: Mask = np.stack(parts)
    else:
        found = _mask_array(np.asarray(read_array(path)), str(path))
    if not found.any():
        raise InputError(f"{path}: the mask marks nothing to fill (white or True = fill)")
    return found


def mask_files(path: Path) -> list[Path]:
    """The pictures of a folder of masks, or the one that is given. Raises InputError."""
    return picture_files(path) if path.is_dir() else [path]


def is_spec(text: str) -> bool:
    """Whether a text is a spec of a mask."""
    try:
        parse(text)
    except InputError:
        return False
    return True


def is_folder(given: Any) -> bool:
    """Whether a mask is a folder, and no spec of its name."""
    if not isinstance(given, (str, Path)) or (isinstance(given, str) and is_spec(given)):
        return False
    return exists(Path(given)) and Path(given).is_dir()


def exists(path: Path) -> bool:
    """Whether a path is there; what cannot be a path is not."""
    try:
        return path.exists()
    except (OSError, ValueError):  # a spec can be longer than any name, or hold what no name can
        return False


def _mask_array(values: NDArray[Any], name: str) -> Mask:
    if values.size == 0:
        raise InputError(f"{name}: the mask is empty, its shape is {list(values.shape)}")
    if values.dtype.kind not in "biuf" or (values.dtype.kind == "f" and np.isnan(values).any()):
        raise InputError(f"{name}: the mask is not binary: use 0 (keep) and 1 or 255 (fill) alone")
    levels = np.unique(values)
    if values.dtype != np.bool_ and (len(levels) > 2 or not set(levels.tolist()) <= {0, 1, 255}):
        raise InputError(f"{name}: the mask is not binary: use 0 (keep) and 1 or 255 (fill) alone")
    return values != 0


def mask_of(picture: Images, name: str, options: MaskOptions = AS_IT_IS) -> Mask:
    """The mask ``[H, W]`` that a picture ``[H, W]`` or ``[H, W, C]`` means. Raises InputError.

    With ``options.colour``, where the picture has that colour (within 60 levels). With alpha: what is painted on a
    layer that is mostly empty, or else what was erased from a picture. Else where it is light; soft edges are cut at
    half.
    """
    top = float(np.iinfo(picture.dtype).max)
    if options.colour is not None:
        if picture.ndim != 3 or picture.shape[2] < 3:
            raise InputError(f"{name}: has no colour, and --mask-colour looks for one")
        apart = np.abs(picture[..., :3].astype(np.int32) - np.array(options.colour)).max(-1)
        return apart <= 60
    if picture.ndim == 3 and picture.shape[2] in (2, 4):
        opaque = picture[..., -1] >= top / 2
        return opaque if opaque.mean() < 0.5 else ~opaque
    grey = picture.max(-1) if picture.ndim == 3 else picture
    soft = float(((grey > 0.05 * top) & (grey < 0.95 * top)).mean())
    if soft > 0.5:
        raise InputError(f"{name}: the mask is not binary: it looks like a picture; use black (keep) and white (fill)")
    if soft > 0:
        remark(f"{name}: soft edges are cut at half: lighter is filled, darker is kept")
    return grey >= top / 2


def notice(mask: Mask) -> None:
    """Say what is odd about a mask ``[N, H, W]``: more than half missing, and all of the border, may be an inverse."""
    border = np.concatenate([mask[:, 0].ravel(), mask[:, -1].ravel(), mask[:, :, 0].ravel(), mask[:, :, -1].ravel()])
    if 0.5 < mask.mean() < 1 and border.all():
        remark(f"{mask.mean():.0%} of the pixels are missing, all of the border too: if that is wrong, --invert-mask")


COLOURS = {
    "red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "magenta": (255, 0, 255), "yellow": (255, 255, 0),
    "cyan": (0, 255, 255), "white": (255, 255, 255), "black": (0, 0, 0),
}  # fmt: skip


def parse_colour(text: str) -> tuple[int, int, int]:
    """A colour by name or as #rrggbb. Raises InputError."""
    if text in COLOURS:
        return COLOURS[text]
    digits = text.removeprefix("#")
    try:
        if len(digits) != 6:
            raise ValueError
        return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)
    except ValueError:
        raise InputError(f"unknown colour {shown(text)!r}: give {', '.join(COLOURS)} or #rrggbb") from None
