"""Images and masks in, samples out, as files. Outputs that cannot be written are refused before the work starts."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inkfill.app import figures
from inkfill.data import Images, deep_png, masks, tiff
from inkfill.data.details import Details, save_png
from inkfill.data.images import BYTES, Mask, ValueRange, as_bytes, as_known, channels_of, without_alpha
from inkfill.data.readers import (
    PICTURES,
    Source,
    check_names,
    image_files,
    read_details,
    read_images,
    read_pictures,
    stacked,
)
from inkfill.errors import InputError, remark
from inkfill.files import check_apart, check_ours, check_writable, claimed, folder_written_whole, written_whole

Pictures = Images | list[Images]  # a list where images differ in size
Inputs = Sequence[Path | str | None]
OF_ARRAYS = "%05d"  # names of images of an array
ONE_IMAGE = (".png", *tiff.SUFFIXES)  # files that may hold one sample of one image
SHEET = 100  # largest number of images in a sheet of inpainting samples
SAMPLES_SHEET = 10_000  # largest number of unconditional samples in a sheet


@dataclass(frozen=True)
class Filled:
    """An image, its mask, its samples, and its data range."""

    image: Images  # [H, W] or [H, W, C]
    mask: Mask  # [H, W]
    samples: Images  # [K, H, W] or [K, H, W, C]
    values: ValueRange

    def as_bytes(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The image and its samples as uint8, to be looked at."""
        return as_bytes(self.image, self.values), as_bytes(self.samples, self.values)


# ---- in --------------------------------------------------------------------------------------------------------------


def read_inputs(paths: Sequence[Path], knows: int, grey: bool = False) -> tuple[Pictures, list[Source] | None]:
    """Read one file or folder of any kind, or several image files; returns the images and the sources of image files.

    Images of one size, channels and dtype are one array ``[N, H, W]`` or ``[N, H, W, C]``, others a list. ``grey``
    converts colour to grey; ``knows`` is the number of channels of the model. Raises InputError.
    """
    if len(paths) == 1 and not paths[0].is_dir() and not is_picture(paths[0]):
        array = read_images(paths[0])
        assert not isinstance(array, list)
        return luma(array) if grey else array, None
    files = image_files(paths[0]) if len(paths) == 1 else list(paths)
    check_names([file.stem for file in files])

    def fit(file: Path, image: Images) -> Images:
        image = as_known(luma(image[None])[0] if grey else image, knows)
        try:
            without_alpha(image[None], knows)
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
        return image

    images, sources = read_pictures(files, fit)
    return stacked(images), sources


def is_picture(path: Path) -> bool:
    """Whether the suffix is that of an image file."""
    return path.suffix.lower() in PICTURES


def luma(images: Images) -> Images:
    """Colour ``[N, H, W, C]`` to grey (ITU-R BT.601), with its alpha channel; grey images stay as they are."""
    if images.ndim == 3 or images.shape[3] < 3:
        return images
    mixed = np.ma.getdata(images)[..., :3] @ np.array([0.299, 0.587, 0.114])
    grey = (mixed.round() if images.dtype.kind in "iu" else mixed).astype(images.dtype)
    return np.stack([grey, images[..., 3]], -1) if images.shape[3] == 4 else grey


def names_of(sources: Sequence[Source] | None) -> list[str] | None:
    """The names of images from image files."""
    return [source.name for source in sources] if sources else None


def paired(given: masks.MaskInput, images: Pictures, names: list[str] | None) -> masks.MaskInput | Mask | list[Mask]:
    """The masks in a folder, paired with named images: an array, or a list where images are one; other masks as given.

    Raises InputError for a name without a partner, or masks of another size or number.
    """
    if not (given.named and names):
        given.check_count(len(images))
        return given
    found = [mask[0] for mask in given.draw_all([image[None] for image in images], names=names)]
    return found if isinstance(images, list) else np.stack(found)


def number_of(only: str, count: int, names: list[str] | None) -> int:
    """The number of an image, from its name (with or without suffix) or its number from 0. Raises InputError."""
    for name in (only, Path(only).stem):
        if names and name in names:
            return names.index(name)
    if only.isdecimal() and len(only) < 19 and int(only) < count:
        return int(only)
    raise InputError(f"--only {only}: no such image: give a file's name, or a number from 0 to {count - 1}")


# ---- out -------------------------------------------------------------------------------------------------------------


def check_file(out: Path, overwrite: bool, suffixes: tuple[str, ...], inputs: Inputs = ()) -> None:
    """Raise InputError for a file that could not be written, or must not be. ``inputs`` are never replaced."""
    check_apart(out, inputs)
    if out.suffix.lower() not in suffixes:
        raise InputError(f"{out}: cannot write {out.suffix or 'such'} files: use {' or '.join(suffixes)}")
    if out.is_dir():
        raise InputError(f"{out} is a folder: give another name")
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists: give --overwrite to replace it, or another --out")
    check_writable(out)


def check_folder(out: Path, overwrite: bool, inputs: Inputs = ()) -> None:
    """Raise InputError for a folder that could not be written, or must not be: one with other people's files."""
    check_apart(out, inputs)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give the name of a folder")
    if out.exists() and any(out.iterdir()) and not overwrite:
        raise InputError(f"{out} exists: give --overwrite to replace it, or another --out")
    check_ours(out)
    check_writable(out / "x")


def check_growing(out: Path, overwrite: bool, kind: str, inputs: Inputs) -> None:
    """Raise InputError for a folder that a command adds files to, where it has files of another origin.

    With ``overwrite`` these stay, but for files of the names that the command writes.
    """
    check_apart(out, inputs)
    locks = {f"{kind}.lock", f"{kind}.lock.lock"}  # left where the work could not begin
    others = {path.name for path in out.iterdir()} - locks if out.is_dir() else set()
    if others and not overwrite and not claimed(out, kind):
        raise InputError(f"{out} holds {min(others)}: give --overwrite, or another --out")
    check_writable(out / "x")


def check_outputs(out: Path | None, sheet: Path | None, report: Path | None, overwrite: bool, inputs: Inputs) -> None:
    """Raise InputError for outputs of samples that could not be written, and where there are none."""
    places = [place for place in (out, sheet, report) if place]
    if not places:
        raise InputError("no output: give --out, --sheet or --report")
    if len({place.resolve() for place in places}) < len(places):
        raise InputError("--out, --sheet and --report: two have one name: give each its own")
    if out and out.suffix and not out.is_dir():
        check_file(out, overwrite, (".npy", *ONE_IMAGE), inputs)
        if out.suffix.lower() in tiff.SUFFIXES:
            tiff.library(out)
    elif out:
        check_folder(out, overwrite, inputs)
    if sheet:
        check_file(sheet, overwrite, (".png",), inputs)
    if report:
        check_folder(report, overwrite, inputs)


def check_sheet(out: Path, count: int, most: int = SHEET) -> None:
    """Raise InputError for more images than one sheet can show."""
    if out.suffix.lower() == ".png" and count > most:
        raise InputError(f"{out}: {count} images are too many for one sheet: write a .npy or a folder")


def check_only(out: Path | None) -> None:
    """Raise InputError for a folder with results that those of one image would replace."""
    if out and out.is_dir() and any(out.iterdir()):
        raise InputError(f"--only: the folder {out} holds other results, which would be removed: give another --out")


def check_fits(out: Path | None, sheet: Path | None, images: Pictures, sources: Sequence[Source] | None) -> None:
    """Raise InputError where outputs cannot hold so many images, images of several sizes, or their dtype."""
    for place in filter(None, (out, sheet)):
        check_sheet(place, len(images))
        if isinstance(images, list) and place.suffix and place.suffix.lower() not in tiff.SUFFIXES:
            raise InputError(f"{place}: images of several sizes do not fit one file: give a folder")
    if out and out.suffix.lower() != ".npy":
        for i, image in enumerate(images if isinstance(images, list) else images[:1]):
            if _suffix(out, sources[i] if sources else None) == ".png":
                _check_png(out, image)


def _suffix(out: Path, source: Source | None) -> str:
    """The suffix of the image files that are written: ``.tif`` for images from TIFF files, if tifffile is there."""
    if out.suffix and not out.is_dir():
        return out.suffix.lower()
    return ".tif" if source and source.file.suffix.lower() in tiff.SUFFIXES and tiff.available() else ".png"


def _check_png(out: Path, image: Images) -> None:
    """Raise InputError for an image ``[H, W]`` or ``[H, W, C]`` that PNG cannot hold, or not here."""
    channels = channels_of(image[None])
    if image.dtype not in (np.bool_, np.uint8, np.uint16) or channels > 4:
        raise InputError(f"{out}: PNG cannot hold {channels} channels of {image.dtype} values: write a .npy or .tif")
    if image.dtype == np.uint16 and channels > 1:
        deep_png.library(out)


def write_filled(
    out: Path,
    filled: Iterable[Filled],
    images: Pictures,
    k: int,
    sources: Sequence[Source] | None,
    keep_palette: bool = False,
    first: int = 0,
) -> str:
    """Write ``k`` samples of each image, one image after another; returns a line about the output.

    ``first`` is the number of the first sample. To ``.npy``; to ``.tif``, a page each; to ``.png``, the one sample of
    one image or else a sheet; or to a folder, one image file per sample, like the file of the image.
    """
    n = len(images)
    suffix = out.suffix.lower()
    if suffix == ".npy":
        assert not isinstance(images, list)
        _write_array(out, (n, k, *images.shape[1:]), images.dtype, (each.samples for each in filled))
        return f"{out}: {n} x {k} samples"
    if suffix == ".png" and (n, k) != (1, 1):
        return write_sheet(out, list(filled))
    each_source = sources or [Source(OF_ARRAYS % i, Path()) for i in range(n)]
    samples = _with_details(each_source, filled, first)
    if suffix in tiff.SUFFIXES:
        with written_whole(out) as temporary:
            pages = (each.page(keep_palette) for each in samples)
            tiff.write(temporary, pages, k * sum(image.nbytes for image in images))
        return f"{out}: {n} x {k} samples, a page each"
    if suffix == ".png":
        with written_whole(out) as temporary:
            _remark_all(set().union(*(each.save(temporary, ".png", keep_palette) for each in samples)))
        return f"{out}: one sample"
    said: set[str] = set()
    with folder_written_whole(out.resolve()) as folder:
        for each in samples:
            name = each.source.name if (k, first) == (1, 0) else f"{each.source.name}_{each.number:02d}"
            suffix = _suffix(out, each.source)
            said |= each.save(folder / (name + suffix), suffix, keep_palette)
    _remark_all(said)
    return f"the folder {out}: {n} x {k} images"


@dataclass(frozen=True)
class _Sample:
    """One sample of an image, and what the file of the image says."""

    pixels: Images
    missing: Mask  # [H, W]
    number: int
    source: Source
    details: Details

    def page(self, keep_palette: bool) -> tiff.Page:
        """The sample as a page like the one that its image was read from."""
        file = self.source.file if self.source.file.suffix.lower() in tiff.SUFFIXES else None
        if keep_palette and (palette := self.details.palette):
            return tiff.Page(palette.nearest(self.pixels, self.missing), file, self.source.frame, palette.colours)
        return tiff.Page(self.details.depth(self.pixels), file, self.source.frame)

    def save(self, out: Path, suffix: str, keep_palette: bool) -> set[str]:
        """Write a PNG or TIFF file; returns what users must know."""
        said, kind = set(), self.details.format
        if suffix == ".png":
            save_png(out, self.pixels, self.details, self.missing, keep_palette)
            if kind in ("JPEG", "MPO"):
                said.add("JPEG images are written as PNG: JPEG would change observed pixels")
            if kind == "TIFF" and not tiff.available():
                said.add(f"TIFF images are written as PNG, without their tags: pip install {tiff.INSTALL} writes TIFF")
        else:
            tiff.write(out, [self.page(keep_palette)], self.pixels.nbytes)
        if self.details.palette and not keep_palette:
            said.add("images with a palette are written as grey or RGB: --palette keep writes their palette")
        return said


def _with_details(sources: Sequence[Source], filled: Iterable[Filled], first: int) -> Iterator[_Sample]:
    """The samples of each image, from number ``first``, one image after another."""
    for source, each in zip(sources, filled, strict=True):
        details = read_details(source) if source.file.name else Details()
        missing = np.asarray(each.mask.any(-1)) if each.mask.ndim > 2 else each.mask
        for number, pixels in enumerate(each.samples, first):
            yield _Sample(pixels, missing, number, source, details)


def _remark_all(said: Iterable[str]) -> None:
    for text in sorted(said):
        remark(text)


def write_sheet(out: Path, filled: Sequence[Filled]) -> str:
    """Write one image of masked inputs, up to 16 samples, mean and standard deviation; returns a line about it."""
    images, samples = (np.stack(each) for each in zip(*(each.as_bytes() for each in filled), strict=True))
    mask = np.stack([each.mask for each in filled])
    figures.save_picture(figures.gallery(images, mask, samples, show=16, original=False), out)
    return f"{out}: a sheet of {samples.shape[0]} x {samples.shape[1]} samples"


def write_samples(out: Path, drawn: Images, values: ValueRange = BYTES) -> str:
    """Write unconditional samples ``[N, H, W]`` or ``[N, H, W, C]``; returns a line about the output.

    To ``.npy``, to ``.tif``, a page each, to ``.png`` as a sheet, or to a folder, one image file per sample.
    """
    if out.suffix.lower() in tiff.SUFFIXES:
        with written_whole(out) as temporary:
            tiff.write(temporary, map(tiff.Page, drawn), drawn.nbytes)
        return f"{out}: {len(drawn)} images, a page each"
    if out.suffix.lower() == ".npy":
        _write_array(out, drawn.shape, drawn.dtype, [drawn])
        return f"{out}: {len(drawn)} images"
    if out.suffix.lower() == ".png":
        figures.save_picture(figures.grid(as_bytes(drawn, values)), out)
        return f"{out}: a sheet of {len(drawn)} images"
    with folder_written_whole(out.resolve()) as folder:
        for i, image in enumerate(drawn):
            save_png(folder / f"{OF_ARRAYS % i}.png", image, Details(), np.zeros(image.shape[:2], bool))
    return f"the folder {out}: {len(drawn)} images"


def _write_array(out: Path, shape: tuple[int, ...], dtype: np.dtype, parts: Iterable[NDArray]) -> None:
    """Write a ``.npy`` part by part, whole or not at all."""
    about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with written_whole(out) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, about)
        for part in parts:
            file.write(np.ascontiguousarray(part, dtype).data)
