"""Masks as users have them: a spec, an array, files, or the missing values of the images themselves.

True = missing, to be filled; in a file, white = fill. :func:`read_mask` parses a mask once, at the edge; :func:`fit`
makes the mask of a set of images from it.
"""

import math
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
from inkfill.data.images import Images, Mask, channels_of, of_values, opaque_of, pixels_of
from inkfill.data.readers import MASK_ENDS, PICTURES, mask_files, read_array, read_pictures
from inkfill.errors import InputError, remark, shown

FEW = 8  # values of a mask that are no noise of compression
LAYER_COLOURS = 4  # at most, of a painted layer that covers more than half
OF_IMAGES = ("nan", "alpha")  # masks that the images themselves define, beside value:V
VALUE = "value:"  # begins a mask of the values that mean missing, such as value:-32768,0
NAN = (math.nan,)


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
    """A parsed mask. One of ``spec``, ``array``, ``named`` and ``of_images`` is set."""

    text: str = ""  # as the user wrote it
    of_images: str = ""  # nan, alpha or value:V
    nodata: tuple[float, ...] = NAN  # the values that mean missing, where ``of_images`` is nan or value:V
    spec: MaskSpec | None = None
    array: Mask | None = None  # [H, W], [N, H, W] or [N, H, W, C]
    named: dict[str, Mask] = field(default_factory=dict)  # [H, W] each: a folder of mask files
    options: MaskOptions = AS_IT_IS

    @property
    def count(self) -> int:
        """The number of masks in an array or in files."""
        array = self.array
        return len(self.named) if array is None else len(array) if array.ndim > 2 else 1

    def check_count(self, count: int) -> None:
        """Raise InputError for masks of another number of images."""
        if not (self.spec or self.of_images) and self.count not in (1, count):
            raise InputError(
                f"the mask is for {self.count} images, but there are {count}: give one each, or one for all"
            )

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
            found = transparent(images) if self.of_images == "alpha" else holes_of(images, self.nodata)
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

        Raises InputError for names without a partner.
        """
        starts = np.cumsum([0, *map(len, parts)])
        if self.named and names:
            each = iter(self._partners(names))
            found = [np.concatenate([_fitted(next(each), image[None]) for image in part]) for part in parts]
            return [self.options.applied(mask) for mask in found]
        self.check_count(int(starts[-1]))
        return [self.draw(part, seed, int(first)) for part, first in zip(parts, starts, strict=False)]

    def _partners(self, names: Sequence[str]) -> list[Mask]:
        """The mask of each named image. One image takes its own of many masks. Raises InputError."""
        found = {}
        for name in names:
            keys = [key for key in (name, *(name + end for end in MASK_ENDS)) if key in self.named]
            if not keys:
                raise self._unpaired(f"no mask is called {name}")
            found[name] = keys[0]
        if len(names) > 1 and (unused := sorted(self.named.keys() - found.values())):
            raise self._unpaired(f"no image is called {unused[0]}")
        return [self.named[found[name]] for name in names]

    def _unpaired(self, problem: str) -> InputError:
        return InputError(f"{self.text}: masks are paired with images by name, but {problem}: rename it")

    def check_any(self, missing: bool) -> None:
        """Raise InputError where images define their missing pixels and none is missing."""
        if self.of_images and not missing:
            none = f"no value of the images is {self.of_images.removeprefix(VALUE)}"
            none = none if self.of_images.startswith(VALUE) else "the images have no missing values"
            raise InputError(f"--mask {self.of_images}: {none}: there is nothing to fill")


def read_mask(given: Any, options: MaskOptions = AS_IT_IS) -> MaskInput:
    """Parse a mask: a spec, ``"nan"``, ``"alpha"``, ``"value:V"``, None (as ``"nan"``), an array, tensor or Pillow
    image, a file or folder, or a list of images or files.

    A text is a spec before it is a path. ``.npy`` holds bool, or 0 (keep) and 1 or 255 (fill); an image, or a folder of
    images with one for each image, is black and white (white = fill), or transparent where pixels are to be filled, or
    has ``options.colour`` there. Soft edges are cut at half. Raises InputError.
    """
    if isinstance(given, MaskInput):
        return given
    if given is None or (isinstance(given, str) and given in OF_IMAGES):
        return MaskInput(given or "", of_images=given or "nan", options=options)
    if isinstance(given, str) and given.startswith(VALUE):
        return MaskInput(given, of_images=given, nodata=_nodata(given), options=options)
    if listed := _listed(given):
        return MaskInput(array=_one_array(_read_each(listed, options)), options=options)
    if not isinstance(given, (str, Path)):
        array = given.detach().cpu().numpy() if isinstance(given, torch.Tensor) else np.asarray(given)
        if array.dtype.kind in "iu" and (marked := _marked(array)) is not None:
            array = marked
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
        named = _read_pictures(mask_files(path), options)
        found = MaskInput(text, named=named, options=options)
    elif path.suffix.lower() in PICTURES:
        found = MaskInput(text, array=_one_array([*_read_pictures([path], options).values()]), options=options)
    else:
        marked = _marked(np.asarray(read_array(path)))
        if marked is None:
            raise InputError(f"{path}: the mask is empty or not binary: use 0 (keep) and 1 or 255 (fill)")
        found = MaskInput(text, array=marked, options=options)
    if not any(np.any(mask) for mask in (found.array, *found.named.values()) if mask is not None):
        raise InputError(f"{path}: the mask marks nothing to fill: white or True = fill")
    return found


def _listed(given: Any) -> list[Any]:
    """A Pillow image as a list, or a list of Pillow images or paths; empty for anything else."""
    each = [given] if hasattr(given, "getbands") else given
    alike = isinstance(each, (list, tuple)) and all(hasattr(x, "getbands") or isinstance(x, (str, Path)) for x in each)
    return list(each) if alike else []


def _marked(values: NDArray[Any]) -> Mask | None:
    """An array of bool, of 0 and 1, or of 0 and 255, as a mask; None for others."""
    if values.dtype == np.bool_:
        return values if values.size else None
    levels = set(np.unique(values).tolist()) if values.dtype.kind in "iuf" else set()
    return values != 0 if levels and (levels <= {0, 1} or levels <= {0, 255}) else None


def fit(mask: Any, images: Images, seed: int = 0, options: MaskOptions = AS_IT_IS, first: int = 0) -> Mask:
    """The mask of a set of images, bool ``[N, H, W]`` or ``[N, H, W, C]``, from anything that :func:`read_mask` takes.

    A spec is drawn with ``seed``; ``first`` is the number of the first image in the set. Raises InputError.
    """
    given = read_mask(mask, options)
    given.check_count(len(images))
    return given.draw(images, seed, first)


def split(mask: MaskInput | None, ignore: MaskInput, missing: Mask, ignored: Mask) -> tuple[Mask, Mask]:
    """The pixels (or values) to fill and those to leave as they are, from those in ``mask`` and in ``ignore``.

    Where both have a pixel, it is left, unless ``ignore`` means the missing values of the images and ``mask`` a region.
    """
    if missing.ndim < ignored.ndim:
        missing = np.broadcast_to(missing[..., None], ignored.shape)
    elif ignored.ndim < missing.ndim:
        ignored = np.broadcast_to(ignored[..., None], missing.shape)
    if ignore.of_images and not (mask and mask.of_images):
        return missing, ignored & ~missing
    return missing & ~ignored, ignored


def fit_each(specs: Sequence[str], images: Images, seed: int = 0) -> Mask:
    """One spec per image: bool ``[N, H, W]``. Raises InputError."""
    each = zip(specs, images, strict=True)
    return np.concatenate([fit(spec, image[None], seed, first=i) for i, (spec, image) in enumerate(each)])


def _fitted(given: NDArray[Any], images: Images) -> Mask:
    """A mask array, checked against the images and broadcast to them."""
    if given.dtype != np.bool_:
        raise InputError(f"the mask has dtype {given.dtype}: give bool (True = missing), or integers 0 and 1 or 255")
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


def _nodata(text: str) -> tuple[float, ...]:
    """The values of ``value:V`` or ``value:V,V``; whole numbers stay exact. Raises InputError."""
    try:
        words = [word.strip() for word in text.removeprefix(VALUE).split(",")]
        return tuple(int(word) if word.lstrip("-").isdigit() and len(word) <= 20 else float(word) for word in words)
    except ValueError:
        raise InputError(f"{shown(text)}: not a number: write it as value:-32768, or value:-1,0 for several") from None


def missing_values(images: Images, nodata: tuple[float, ...] = NAN) -> Mask:
    """Values that are among ``nodata``, or masked in a numpy masked array: bool, in the shape of the images."""
    values, missing = np.ma.getdata(images), np.ma.getmaskarray(images)
    values = values.view(np.uint8) if values.dtype == np.bool_ else values  # numpy compares them with C longs alone
    with np.errstate(over="ignore"):  # numbers beyond the dtype
        for number in nodata:
            missing = missing | (values != values if math.isnan(number) else values == number)
    return np.asarray(missing)


def holes_of(images: Images, nodata: tuple[float, ...] = NAN) -> Mask:
    """What is missing: bool ``[N, H, W]``, or ``[N, H, W, C]`` where it differs between channels."""
    missing = missing_values(images, nodata)
    alike = missing.ndim == 3 or bool((missing == missing[..., :1]).all())
    return missing[..., 0] if alike and missing.ndim == 4 else missing


def transparent(images: Images) -> Mask:
    """Pixels that are more than half transparent; none in images without an alpha channel, which are opaque."""
    if channels_of(images) not in (2, 4):
        return np.zeros(images.shape[:3], bool)
    alpha = np.ma.getdata(images)[..., -1]
    return alpha < opaque_of(alpha.dtype) / 2


def _read_pictures(files: Sequence[Path], options: MaskOptions) -> dict[str, Mask]:
    """The masks ``[H, W]`` in image files (a frame each), all read in one way, by name. Raises InputError."""
    pictures, sources = read_pictures(files)
    found = _masks_of(pictures, [str(source.file) for source in sources], options)
    return {source.name: mask for source, mask in zip(sources, found, strict=True)}


def _read_each(given: Sequence[Any], options: MaskOptions) -> list[Mask]:
    """The masks ``[H, W]`` of Pillow images or image files. Raises InputError."""
    if isinstance(given[0], (str, Path)):
        return list(_read_pictures([Path(each) for each in given], options).values())
    names = [f"mask[{i}]" for i in range(len(given))]
    return _masks_of([pixels_of(each, name) for each, name in zip(given, names, strict=True)], names, options)


def _masks_of(pictures: Sequence[Images], places: Sequence[str], options: MaskOptions) -> list[Mask]:
    """The masks ``[H, W]`` of images, all read in one way; ``places`` are for messages.

    With ``options.colour``: pixels of that colour (within 60 grey levels). With alpha: the painted pixels, if all
    images are layers painted in few colours; else the erased pixels. Otherwise: light pixels, soft edges cut at half;
    where the values are 0, 1 and perhaps 255, all but 0. Raises InputError.
    """
    clear = [picture for picture in pictures if picture.ndim == 3 and picture.shape[2] in (2, 4)]
    painted = all(_is_layer(picture) for picture in clear)
    if clear and options.colour is None:
        remark(f"masks with alpha: {'painted (opaque)' if painted else 'erased (transparent)'} pixels are filled")
    return [_mask_of(picture, place, options, painted) for picture, place in zip(pictures, places, strict=True)]


def _is_layer(picture: Images) -> bool:
    """Whether an image with alpha is a painted layer: mostly empty, or painted in few colours."""
    opaque = picture[picture[..., -1] >= np.iinfo(picture.dtype).max / 2]
    return len(opaque) < picture[..., 0].size / 2 or len(np.unique(opaque[:, :-1], axis=0)) <= LAYER_COLOURS


def _mask_of(picture: Images, name: str, options: MaskOptions, painted: bool) -> Mask:
    """The mask in one image; ``painted``: with alpha, opaque pixels are filled. Raises InputError."""
    if picture.dtype not in (np.uint8, np.uint16):  # of a TIFF
        if picture.ndim > 2 or (marked := _marked(picture)) is None:
            raise InputError(f"{name}: the mask is not binary: use 0 (keep) and 1 or 255 (fill)")
        return marked
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
    if 1 in values and values <= {0, 1, 255, int(top)}:
        remark(f"{name}: a mask with the values {', '.join(map(str, sorted(values)))}: all but 0 is filled")
        return grey > 0
    soft = float(((grey > 0.05 * top) & (grey < 0.95 * top)).mean())
    if soft > 0.5:
        raise InputError(f"{name}: the mask is not binary: use black (keep) and white (fill)")
    if soft > 0:
        remark(f"{name}: soft edges are cut at half: lighter pixels are filled")
    few = sorted(value for value in values if 0 < value <= 0.05 * top)
    if few and len(values) <= FEW and not soft and grey.max() >= top / 2:
        remark(f"{name}: only white is filled, not {', '.join(map(str, few))}: for class numbers give 0 and 255")
    if 0 < grey.max() < top / 2:
        remark(f"{name}: values up to {grey.max()} of {top:g}: nothing is filled: use 0 (keep) and {top:g} (fill)")
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
