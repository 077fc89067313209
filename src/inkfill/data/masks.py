"""Masks as users have them: a spec, an array, files, or the missing values of the images themselves.

True = missing, to be filled; in a file, white = fill. :func:`read_mask` parses a mask once, at the edge; :func:`fit`
makes the mask of a set of images from it.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from os.path import exists
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inkfill.core.masks import MaskSpec, as_planes, of_planes, parse
from inkfill.core.rng import skip, stream
from inkfill.data.images import Images, Mask, channels_of, of_values, opaque_of
from inkfill.data.readers import PICTURES, picture_files, read_array, read_pictures
from inkfill.errors import InputError, remark, shown

LAYER_COLOURS = 4  # at most, of a painted layer that covers more than half
OF_IMAGES = ("nan", "alpha")  # masks that the images themselves define


@dataclass(frozen=True)
class MaskOptions:
    """Changes to a mask: the colour that marks missing pixels, inversion, dilation by ``grow`` pixels."""

    colour: tuple[int, int, int] | None = None
    invert: bool = False
    grow: int = 0

    def applied(self, mask: Mask) -> Mask:
        """The changed mask ``[N, H, W]`` or ``[N, H, W, C]``."""
        mask = ~mask if self.invert else mask
        if not self.grow:
            return mask
        size, planes = 2 * self.grow + 1, torch.tensor(as_planes(mask), dtype=torch.float32)
        grown = torch.nn.functional.max_pool2d(planes, size, 1, self.grow).numpy() > 0
        return grown[:, 0] if mask.ndim == 3 else of_planes(grown)


AS_IT_IS = MaskOptions()


@dataclass(frozen=True)
class MaskInput:
    """A parsed mask. One of ``spec``, ``array`` and ``named`` is set, or ``of_images`` is one of ``OF_IMAGES``."""

    text: str = ""  # as the user wrote it
    of_images: str = ""
    spec: MaskSpec | None = None
    array: Mask | None = None  # [H, W], [N, H, W] or [N, H, W, C]
    named: dict[str, Mask] = field(default_factory=dict)  # [H, W] each: a folder of mask files
    options: MaskOptions = AS_IT_IS

    def check_count(self, count: int) -> None:
        """Raise InputError for masks of another number of images."""
        array = self.array
        masks = len(self.named) if array is None else len(array) if array.ndim > 2 else 1
        if not (self.spec or self.of_images) and masks not in (1, count):
            raise InputError(f"the mask is for {masks} images, but there are {count}: give one each, or one for all")

    def draw(self, images: Images, seed: int = 0, first: int = 0) -> Mask:
        """The mask of images number ``first`` and later of a set: bool ``[N, H, W]``, or ``[N, H, W, C]`` by channel.

        It is by channel where a given array is, or where missing values differ between channels. Raises InputError.
        A drawn mask depends on the seed, the image's number and its size, and not on the other images. Masked values
        of a numpy masked array are always missing.
        """
        if self.spec:
            height, width = images.shape[1:3]
            rng = skip(stream(seed, "mask"), first * self.spec.numbers(height, width))
            found = self.spec.draw(len(images), height, width, rng, np.ma.getdata(images))
        elif self.of_images:
            found = transparent(images) if self.of_images == "alpha" else holes_of(images)
        else:
            array = _one_array(list(self.named.values())) if self.array is None else self.array
            each = array.ndim > 2 and len(array) > 1
            found = _fitted(array[first : first + len(images)] if each else array, images)
        found = self.options.applied(found)
        if not isinstance(images, np.ma.MaskedArray):
            return found
        holes = holes_of(images)
        return np.logical_or(of_values(found, holes), of_values(holes, found))

    def draw_all(self, parts: Sequence[Images], seed: int = 0, names: Sequence[str] | None = None) -> list[Mask]:
        """The masks of arrays of images, numbered through; a folder of masks is paired with ``names``, if any.

        Raises InputError for names without a partner, and where images define their missing pixels and none is missing.
        """
        starts = np.cumsum([0, *map(len, parts)])
        if self.named and names:
            for name in sorted(self.named.keys() ^ set(names)):
                none = f"no {'image' if name in self.named else 'mask'} is called {name}"
                raise InputError(f"{self.text}: masks are paired with images by name, but {none}: rename it")
            each = (self.named[name] for name in names)
            found = [np.concatenate([_fitted(next(each), image[None]) for image in part]) for part in parts]
            return [self.options.applied(mask) for mask in found]
        self.check_count(int(starts[-1]))
        found = [self.draw(part, seed, int(first)) for part, first in zip(parts, starts, strict=False)]
        self.check_any(any(mask.any() for mask in found))
        return found

    def check_any(self, missing: bool) -> None:
        """Raise InputError where images define their missing pixels and none is missing."""
        if self.of_images and not missing:
            raise InputError(f"--mask {self.of_images}: the images have no missing values: there is nothing to fill")


def read_mask(given: Any, options: MaskOptions = AS_IT_IS) -> MaskInput:
    """Parse a mask: a spec, ``"nan"``, ``"alpha"``, None (as ``"nan"``), an array or tensor, or a file or folder.

    A text is a spec before it is a path. ``.npy`` holds bool, or 0 (keep) and 1 or 255 (fill); an image, or a folder of
    images with one for each image, is black and white (white = fill), or transparent where pixels are to be filled, or
    has ``options.colour`` there. Soft edges are cut at half. Raises InputError.
    """
    if isinstance(given, MaskInput):
        return given
    if given is None or (isinstance(given, str) and given in OF_IMAGES):
        return MaskInput(given or "", of_images=given or "nan", options=options)
    if not isinstance(given, (str, Path)):
        array = given.detach().cpu().numpy() if isinstance(given, torch.Tensor) else np.asarray(given)
        planes = array.ndim == 4 and array.shape[1] == 1  # [N, 1, H, W], as tensors of masks are
        return MaskInput(array=array[:, 0] if planes else array, options=options)
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
        found = MaskInput(text, named=_read_pictures(path, options), options=options)
    elif path.suffix.lower() in PICTURES:
        found = MaskInput(text, array=_one_array([*_read_pictures(path, options).values()]), options=options)
    else:
        values = np.asarray(read_array(path))
        levels = set(np.unique(values).tolist()) if values.dtype.kind in "biuf" else set()
        if not levels or not (levels <= {0, 1} or levels <= {0, 255}):
            raise InputError(f"{path}: the mask is empty or not binary: use 0 (keep) and 1 or 255 (fill)")
        found = MaskInput(text, array=values != 0, options=options)
    if not any(np.any(mask) for mask in (found.array, *found.named.values()) if mask is not None):
        raise InputError(f"{path}: the mask marks nothing to fill: white or True = fill")
    return found


def fit(mask: Any, images: Images, seed: int = 0, options: MaskOptions = AS_IT_IS, first: int = 0) -> Mask:
    """The mask of a set of images, bool ``[N, H, W]`` or ``[N, H, W, C]``, from anything that :func:`read_mask` takes.

    A spec is drawn with ``seed``; ``first`` is the number of the first image in the set. Raises InputError.
    """
    given = read_mask(mask, options)
    given.check_count(len(images))
    return given.draw(images, seed, first)


def fit_each(specs: Sequence[str], images: Images, seed: int = 0) -> Mask:
    """One spec per image: bool ``[N, H, W]``. Raises InputError."""
    each = zip(specs, images, strict=True)
    return np.concatenate([fit(spec, image[None], seed, first=i) for i, (spec, image) in enumerate(each)])


def _fitted(given: NDArray[Any], images: Images) -> Mask:
    """A mask array, checked against the images and broadcast to them."""
    if given.dtype != np.bool_:
        raise InputError(f"the mask has dtype {given.dtype}: give bool, True = missing")
    if given.ndim == 4 and images.ndim == 4 and given.shape[1:] == (images.shape[3], *images.shape[1:3]):
        given = np.moveaxis(given, 1, -1)  # [N, C, H, W], as tensors are
    by_channel = given.ndim == 4 and images.ndim == 4
    shape = images.shape if by_channel else images.shape[:3]
    if given.ndim not in (2, 3, images.ndim) or given.shape[1 if by_channel else -2 :] != shape[1:]:
        shapes = f"the mask has shape {list(given.shape)}, the images have {list(images.shape)}"
        raise InputError(f"{shapes}: sizes must agree, as [N, H, W] or, by channel, [N, H, W, C]")
    return np.broadcast_to(given, shape)


def _one_array(masks: list[Mask]) -> Mask:
    """Masks ``[H, W]`` as one array. Raises InputError for several sizes."""
    if len({mask.shape for mask in masks}) > 1:
        raise InputError("masks of several sizes need images of the same sizes, in a folder")
    return np.stack(masks)


def missing_values(images: Images) -> Mask:
    """Values that are NaN, or masked in a numpy masked array: bool, in the shape of the images."""
    values = np.ma.getdata(images)
    return np.asarray(np.ma.getmaskarray(images) | (values != values))  # NaN alone differs from itself


def holes_of(images: Images) -> Mask:
    """What is missing: bool ``[N, H, W]``, or ``[N, H, W, C]`` where it differs between channels."""
    missing = missing_values(images)
    alike = missing.ndim == 3 or bool((missing == missing[..., :1]).all())
    return missing[..., 0] if alike and missing.ndim == 4 else missing


def transparent(images: Images) -> Mask:
    """Pixels that are more than half transparent; none in images without an alpha channel, which are opaque."""
    if channels_of(images) not in (2, 4):
        return np.zeros(images.shape[:3], bool)
    alpha = np.ma.getdata(images)[..., -1]
    return alpha < opaque_of(alpha.dtype) / 2


def _read_pictures(path: Path, options: MaskOptions) -> dict[str, Mask]:
    """The masks ``[H, W]`` of an image file (a frame each) or of a folder of them, all read in one way, by name.

    With ``options.colour``: pixels of that colour (within 60 grey levels). With alpha: the painted pixels, if all
    images are layers painted in few colours; else the erased pixels. Otherwise: light pixels, soft edges cut at half;
    where the values are 0, 1 and perhaps 255, all but 0. Raises InputError.
    """
    pictures, names = read_pictures(picture_files(path))
    clear = [picture for picture in pictures if picture.ndim == 3 and picture.shape[2] in (2, 4)]
    painted = all(_is_layer(picture) for picture in clear)
    if clear and options.colour is None:
        remark(f"masks with alpha: {'painted (opaque)' if painted else 'erased (transparent)'} pixels are filled")
    places = [str(path / name) if path.is_dir() else str(path) for name in names]
    found = [_mask_of(picture, place, options, painted) for picture, place in zip(pictures, places, strict=True)]
    return dict(zip(names, found, strict=True))


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
    """Remark on a mask that may be inverted: more than half missing, and the whole border."""
    border = np.concatenate([mask[:, 0].ravel(), mask[:, -1].ravel(), mask[:, :, 0].ravel(), mask[:, :, -1].ravel()])
    if 0.5 < mask.mean() < 1 and border.all():
        remark(f"the mask covers {mask.mean():.0%} of the pixels and the whole border: inverted? use --invert-mask")


def parse_colour(text: str) -> tuple[int, int, int]:
    """A colour by name or as #rrggbb. Raises InputError."""
    from PIL import ImageColor

    with suppress(ValueError):
        colour = ImageColor.getrgb("lime" if text == "green" else text)  # the green of CSS is darker
        if len(colour) == 3:
            return colour
    raise InputError(f"--mask-colour {shown(text)}: unknown colour: give a name such as red, or #rrggbb")
