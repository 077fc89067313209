"""Masks as users have them: a spec, an array, files, or the missing values of the images themselves.

True = missing, to be filled; in a file, white = fill. :func:`read_mask` parses a mask once, at the edge; :func:`fit`
makes the mask of a set of images from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inkfill.core.masks import MaskSpec, parse
from inkfill.core.rng import skip, stream
from inkfill.data.images import Images, Mask, channels_of, opaque_of
from inkfill.data.readers import PICTURES, picture_files, read_array, read_frames
from inkfill.errors import InputError, remark, shown
from inkfill.files import exists

NO_HOLES = "the images have no missing values (NaN or masked): give a mask (--mask)"
NOTHING = "--mask {}: no pixel is missing: there is nothing to fill"
LAYER_COLOURS = 4  # at most, of a painted layer that covers more than half
OF_IMAGES = ("nan", "alpha")  # masks that the images themselves define


@dataclass(frozen=True)
class MaskOptions:
    """Changes to a mask: the colour that marks missing pixels, inversion, dilation by ``grow`` pixels."""

    colour: tuple[int, int, int] | None = None
    invert: bool = False
    grow: int = 0

    def applied(self, mask: Mask) -> Mask:
        """The changed mask ``[N, H, W]``."""
        mask = ~mask if self.invert else mask
        if not self.grow:
            return mask
        size = 2 * self.grow + 1
        grown = torch.nn.functional.max_pool2d(torch.tensor(mask[:, None], dtype=torch.float32), size, 1, self.grow)
        return grown[:, 0].numpy() > 0


AS_IT_IS = MaskOptions()


@dataclass(frozen=True)
class MaskInput:
    """A parsed mask. One of ``spec``, ``array`` and ``folder`` is set, or ``of_images`` names one of ``OF_IMAGES``.

    With none of them, the mask is the missing values of the images, of which there must be some.
    """

    text: str = ""  # as the user wrote it
    of_images: str = ""
    spec: MaskSpec | None = None
    array: Mask | None = None  # [H, W] or [N, H, W]
    folder: Path | None = None  # of pictures, one an image
    options: MaskOptions = AS_IT_IS

    @property
    def unspecified(self) -> bool:
        """Whether no mask was given."""
        return not (self.of_images or self.spec or self.folder or self.array is not None)

    def check_count(self, count: int) -> None:
        """Raise InputError for an array of masks for another number of images."""
        if self.array is not None:
            _check_count(self.array, count)

    def draw(self, images: Images, seed: int = 0, first: int = 0) -> Mask:
        """The mask bool ``[N, H, W]`` of images number ``first`` and later of a set. Raises InputError.

        A drawn mask depends on the seed, the image's number and its size, and not on the other images.
        """
        if self.spec:
            height, width = images.shape[1:3]
            rng = skip(stream(seed, "mask"), first * self.spec.numbers(height, width))
            found = self.spec.draw(len(images), height, width, rng, np.ma.getdata(images))
        elif self.folder:
            found = _fitted(_stacked(self.folder, self.options), images)
        elif self.array is not None:
            each = self.array.ndim == 3 and len(self.array) > 1
            found = _fitted(self.array[first : first + len(images)] if each else self.array, images)
        else:
            found = transparent(images) if self.of_images == "alpha" else holes_of(images)
        return self.options.applied(found)


def read_mask(given: Any, options: MaskOptions = AS_IT_IS) -> MaskInput:
    """Parse a mask: a spec, ``"nan"``, ``"alpha"``, None, an array or tensor, or a file or folder.

    A text is a spec before it is a path. ``.npy`` holds bool, or 0 (keep) and 1 or 255 (fill); an image, or a folder of
    images with one for each image, is black and white (white = fill), or transparent where pixels are to be filled, or
    has ``options.colour`` there. Soft edges are cut at half. Raises InputError.
    """
    if isinstance(given, MaskInput):
        return given
    if given is None:
        return MaskInput(options=options)
    if isinstance(given, str) and given in OF_IMAGES:
        return MaskInput(given, of_images=given, options=options)
    if not isinstance(given, (str, Path)):
        array = given.detach().cpu().numpy() if isinstance(given, torch.Tensor) else np.asarray(given)
        return MaskInput(array=array, options=options)
    text, path = str(given), Path(given)
    try:
        if isinstance(given, str):
            return MaskInput(text, spec=parse(given), options=options)
    except InputError as error:
        if not exists(path) and path.suffix.lower() not in PICTURES | {".npy", ".npz"}:
            raise InputError(f"{error}; or name a mask file") from None
    if not exists(path):
        raise InputError(f"{path}: no such mask file")
    if path.is_dir():
        return MaskInput(text, folder=path, options=options)
    if path.suffix.lower() in PICTURES:
        found = _stacked(path, options)
    else:
        found = _marking(_mask_array(np.asarray(read_array(path)), str(path)), path)
    return MaskInput(text, array=found, options=options)


def fit(mask: Any, images: Images, seed: int = 0, options: MaskOptions = AS_IT_IS, first: int = 0) -> Mask:
    """The mask of a set of images, bool ``[N, H, W]``, from anything that :func:`read_mask` takes.

    A spec is drawn with ``seed``; ``first`` is the number of the first image in the set. Masked values of a numpy
    masked array are always missing. Raises InputError.
    """
    given = read_mask(mask, options)
    given.check_count(len(images))
    if given.unspecified and not holes_of(images).any():
        raise InputError(NO_HOLES)
    found = given.draw(images, seed, first)
    return np.logical_or(found, holes_of(images)) if isinstance(images, np.ma.MaskedArray) else found


def check_any(given: Any, found: Sequence[Mask]) -> None:
    """Raise InputError where images define their missing pixels and none is missing."""
    if isinstance(given, MaskInput) and given.of_images and not any(mask.any() for mask in found):
        raise InputError(NOTHING.format(given.of_images))


def fit_each(specs: Sequence[str], images: Images, seed: int = 0) -> Mask:
    """One spec per image: bool ``[N, H, W]``. Raises InputError."""
    each = zip(specs, images, strict=True)
    return np.concatenate([fit(spec, image[None], seed, first=i) for i, (spec, image) in enumerate(each)])


def _fitted(given: NDArray[Any], images: Images) -> Mask:
    """A mask array, checked against the images and broadcast to them."""
    if given.dtype != np.bool_:
        raise InputError(f"the mask has dtype {given.dtype}: give bool, True = missing")
    if given.ndim == 4 and given.shape[1] == 1:  # [N, 1, H, W], as tensors of masks are
        given = given[:, 0]
    if given.ndim == 3 and len(given) == 1:
        given = given[0]
    if given.ndim == 4 and given.shape == images.shape:
        raise InputError(f"the mask has shape {list(given.shape)}: masks per channel are not supported: give [N, H, W]")
    if given.ndim not in (2, 3) or given.shape[-2:] != images.shape[1:3]:
        raise InputError(
            f"the mask has shape {list(given.shape)}, the images have {list(images.shape)}: sizes must agree"
        )
    _check_count(given, len(images))
    return np.broadcast_to(given, images.shape[:3])


def _check_count(mask: NDArray[Any], count: int) -> None:
    if mask.ndim == 3 and len(mask) not in (1, count):
        raise InputError(f"the mask is for {len(mask)} images, but there are {count}: give one each, or one for all")


# ---- missing values of the images ------------------------------------------------------------------------------------


def holes_of(images: Images) -> Mask:
    """Pixels with a NaN, or with a masked value of a numpy masked array: bool ``[N, H, W]``."""
    holes = np.isnan(np.ma.getdata(images)) if images.dtype.kind == "f" else np.zeros(images.shape, bool)
    if isinstance(images, np.ma.MaskedArray):
        holes = holes | np.ma.getmaskarray(images)
    return np.asarray(holes.any(-1) if holes.ndim == 4 else holes)


def transparent(images: Images) -> Mask:
    """Pixels that are more than half transparent; none in images without an alpha channel, which are opaque."""
    if channels_of(images) not in (2, 4):
        return np.zeros(images.shape[:3], bool)
    alpha = np.ma.getdata(images)[..., -1]
    return alpha < opaque_of(alpha.dtype) / 2


# ---- files -----------------------------------------------------------------------------------------------------------


def _stacked(path: Path, options: MaskOptions) -> Mask:
    """The masks ``[N, H, W]`` of an image file (a frame each) or of a folder of them. Raises InputError."""
    files = picture_files(path) if path.is_dir() else [path]
    parts = masks_of([(frame, str(file)) for file in files for frame in read_frames(file)], options)
    if len({part.shape for part in parts}) > 1:
        raise InputError(f"{path}: masks of several sizes need images of the same sizes, in a folder")
    return _marking(np.stack(parts), path)


def _marking(mask: Mask, path: Path) -> Mask:
    """The mask itself. Raises InputError for one without a missing pixel."""
    if not mask.any():
        raise InputError(f"{path}: the mask marks nothing to fill: white or True = fill")
    return mask


def _mask_array(values: NDArray[Any], name: str) -> Mask:
    """Values of a file as bool. Raises InputError."""
    if values.size == 0:
        raise InputError(f"{name}: the mask is empty: its shape is {list(values.shape)}")
    levels = set(np.unique(values).tolist()) if values.dtype.kind in "biuf" else set()
    if not (levels <= {0, 1} or levels <= {0, 255}) or not levels:
        raise InputError(f"{name}: the mask is not binary: use 0 (keep) and 1 or 255 (fill)")
    return values != 0


def masks_of(pictures: Sequence[tuple[Images, str]], options: MaskOptions = AS_IT_IS) -> list[Mask]:
    """The masks ``[H, W]`` in images ``[H, W]`` or ``[H, W, C]`` with their names, all read in one way.

    With ``options.colour``: pixels of that colour (within 60 grey levels). With alpha: the painted pixels, if all
    images are layers painted in few colours; else the erased pixels. Otherwise: light pixels, soft edges cut at half;
    where the values are 0, 1 and perhaps 255, all but 0. Raises InputError.
    """
    clear = [picture for picture, _ in pictures if picture.ndim == 3 and picture.shape[2] in (2, 4)]
    painted = all(_is_layer(picture) for picture in clear)
    if clear and options.colour is None:
        remark(f"masks with alpha: {'painted (opaque)' if painted else 'erased (transparent)'} pixels are filled")
    return [_mask_of(picture, name, options, painted) for picture, name in pictures]


def _is_layer(picture: Images) -> bool:
    """Whether an image with alpha is a painted layer: mostly empty, or painted in few colours."""
    opaque = picture[picture[..., -1] >= np.iinfo(picture.dtype).max / 2]
    return len(opaque) < picture[..., 0].size / 2 or len(np.unique(opaque[:, :-1], axis=0)) <= LAYER_COLOURS


def _mask_of(picture: Images, name: str, options: MaskOptions, painted: bool) -> Mask:
    """The mask in one image; ``painted``: with alpha, opaque pixels are filled. Raises InputError."""
    top = float(np.iinfo(picture.dtype).max)
    if options.colour is not None:
        if picture.ndim != 3 or picture.shape[2] < 3:
            raise InputError(f"{name}: a grey image has no --mask-colour: use black (keep) and white (fill)")
        apart = np.abs(picture[..., :3].astype(np.int32) - np.array(options.colour)).max(-1)
        return apart <= 60
    if picture.ndim == 3 and picture.shape[2] in (2, 4):
        opaque = picture[..., -1] >= top / 2
        return opaque if painted else ~opaque
    grey = picture.max(-1) if picture.ndim == 3 else picture
    values = set(np.unique(grey).tolist())
    if 1 in values and values <= {0, 1, int(top)}:
        remark(f"{name}: a mask with the values {', '.join(map(str, sorted(values)))}: all but 0 is filled")
        return grey > 0
    soft = float(((grey > 0.05 * top) & (grey < 0.95 * top)).mean())
    if soft > 0.5:
        raise InputError(f"{name}: the mask is not binary: use black (keep) and white (fill)")
    if soft > 0:
        remark(f"{name}: soft edges are cut at half: lighter pixels are filled")
    return grey >= top / 2


def notice(mask: Mask) -> None:
    """Remark on a mask ``[N, H, W]`` that may be inverted: more than half missing, and the whole border."""
    border = np.concatenate([mask[:, 0].ravel(), mask[:, -1].ravel(), mask[:, :, 0].ravel(), mask[:, :, -1].ravel()])
    if 0.5 < mask.mean() < 1 and border.all():
        remark(f"the mask covers {mask.mean():.0%} of the pixels and the whole border: inverted? use --invert-mask")


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
        raise InputError(f"--mask-colour {shown(text)}: unknown colour: give {', '.join(COLOURS)} or #rrggbb") from None
