"""Images and masks in, samples out, as files. Outputs that cannot be written are refused before the work starts."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from inkfill.app import figures
from inkfill.data import Images, masks
from inkfill.data.images import BYTES, Mask, ValueRange, as_bytes, as_known, channels_of, without_alpha
from inkfill.data.readers import (
    MAX_BYTES,
    PICTURES,
    check_names,
    picture_files,
    read_images,
    read_pictures,
    stacked,
)
from inkfill.errors import InputError
from inkfill.files import (
    check_apart,
    check_ours,
    check_writable,
    claimed,
    folder_written_whole,
    written_whole,
)

SHEET = 100  # largest number of images in a sheet of inpainting samples
SAMPLES_SHEET = 10_000  # largest number of unconditional samples in a sheet


@dataclass(frozen=True)
class Stack:
    """Images of one size and dtype, their masks, their data range, and their samples.

    Images of several sizes are several stacks of one image.
    """

    images: Images  # [N, H, W] or [N, H, W, C]
    mask: Mask  # [N, H, W]
    values: ValueRange
    samples: Images  # [N, K, H, W] or [N, K, H, W, C]

    def as_bytes(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Images and samples as uint8, to be looked at."""
        return as_bytes(self.images, self.values), as_bytes(self.samples, self.values)


# ---- in --------------------------------------------------------------------------------------------------------------


def read_inputs(paths: Sequence[Path], knows: int, grey: bool = False) -> tuple[list[Images], list[str] | None]:
    """Read one file or folder of any kind, or several image files; returns the images and their names, if any.

    Images of one size, channels and dtype are one array ``[N, H, W]`` or ``[N, H, W, C]``; others are one array each.
    ``grey`` converts colour to grey; ``knows`` is the number of channels of the model. Raises InputError.
    """
    if len(paths) == 1 and not paths[0].is_dir() and not is_picture(paths[0]):
        array = read_images(paths[0])
        assert not isinstance(array, list)
        return [luma(array) if grey else array], None
    files = picture_files(paths[0]) if len(paths) == 1 and paths[0].is_dir() else list(paths)
    for file in files:
        if not is_picture(file):
            raise InputError(f"{file}: several files must all be pictures: give one array, or pictures alone")
    check_names([file.stem for file in files])

    def fit(file: Path, image: Images) -> Images:
        image = as_known(luma(image[None])[0] if grey else image, knows)
        try:
            without_alpha(image[None], knows)
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
        return image

    images, names = read_pictures(files, fit)
    one = stacked(images)
    return ([image[None] for image in one] if isinstance(one, list) else [one]), names


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


def fit_masks(given: masks.MaskInput, images: list[Images], names: list[str] | None, seed: int) -> list[Mask]:
    """The masks ``[N, H, W]`` of each array of images; a folder of masks is paired with named images by file name.

    Raises InputError, also for a file without a partner.
    """
    found = given.draw_all(images, seed, names)
    for mask in found:
        masks.notice(mask)
    return found


# ---- standard input and output ---------------------------------------------------------------------------------------

PIPE = Path("-")


@contextmanager
def piped(images: tuple[Path, ...], out: Path | None) -> Iterator[tuple[tuple[Path, ...], Path | None]]:
    """Temporary files in place of ``-``: standard input is copied to one, the other is copied to standard output.

    An array leaves as ``.npy``, an image as ``.png``. Raises InputError for a terminal, and for too much input.
    """
    if PIPE not in (*images, out):
        yield images, out
        return
    if PIPE in images and len(images) > 1:
        raise InputError("- is standard input, one image or one array: give it alone")
    if out == PIPE and sys.stdout.isatty():
        raise InputError("--out -: standard output is a terminal: redirect it to a file or a program")
    with TemporaryDirectory(prefix="inkfill-") as folder:
        if PIPE in images:
            images = (_from_standard_input(Path(folder)),)
        if out != PIPE:
            yield images, out
            return
        one = len(images) == 1 and not images[0].is_dir() and is_picture(images[0])
        made = Path(folder) / f"standard-output{'.png' if one else '.npy'}"
        yield images, made
        sys.stdout.buffer.write(made.read_bytes())
        sys.stdout.buffer.flush()


def _from_standard_input(folder: Path) -> Path:
    """Standard input in a file, with the suffix of its format. Raises InputError."""
    given = sys.stdin.buffer.read(MAX_BYTES + 1)
    if not 0 < len(given) <= MAX_BYTES:
        raise InputError(f"standard input: {'too long' if given else 'empty'}: give an image or an array")
    starts = {b"\x93NUMPY": ".npy", b"\x1f\x8b": ".gz", b"\0\0": ".gz"}
    suffix = next((suffix for start, suffix in starts.items() if given.startswith(start)), ".png")
    path = folder / f"standard-input{suffix}"
    path.write_bytes(given)
    return path


# ---- out -------------------------------------------------------------------------------------------------------------


def check_file(out: Path, overwrite: bool, suffixes: tuple[str, ...]) -> None:
    """Raise InputError for a file that could not be written, or must not be."""
    if out == PIPE:
        raise InputError("--out -: this output goes into a file: give a name")
    if out.suffix.lower() not in suffixes:
        raise InputError(f"{out}: cannot write {out.suffix or 'such'} files: use {' or '.join(suffixes)}")
    if out.is_dir():
        raise InputError(f"{out} is a folder: give another name")
    _check_free(out, out.exists() and not overwrite)
    check_writable(out)


def check_folder(out: Path, overwrite: bool) -> None:
    """Raise InputError for a folder that could not be written, or must not be: one with other people's files."""
    if out == PIPE:
        raise InputError("--out -: this output goes into a folder: give a name")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give the name of a folder")
    _check_free(out, out.exists() and not overwrite and any(out.iterdir()))
    check_ours(out)
    check_writable(out / "x")


def check_growing(out: Path, overwrite: bool, kind: str) -> None:
    """Raise InputError for a folder that a command adds files to, where it has files of another origin.

    With ``overwrite`` these stay, but for files of the names that the command writes.
    """
    if out.is_dir() and (overwrite or claimed(out, kind)):
        check_writable(out / "x")
        return
    locks = {f"{kind}.lock", f"{kind}.lock.lock"}  # left where the work could not begin
    others = [path.name for path in out.iterdir() if path.name not in locks] if out.is_dir() else []
    if others:
        raise InputError(f"{out} holds {others[0]}: give --overwrite, or another --out")
    if not out.is_dir():
        check_folder(out, overwrite)


def _check_free(out: Path, taken: bool) -> None:
    if taken:
        raise InputError(f"{out} exists: give --overwrite to replace it, or another --out")


def check_outputs(
    out: Path | None, sheet: Path | None, report: Path | None, overwrite: bool, inputs: Sequence[Path | str | None]
) -> None:
    """Raise InputError for outputs of ``inkfill inpaint`` that could not be written, and where there are none.

    ``inputs`` are never replaced.
    """
    places = [place.resolve() for place in (out, sheet, report) if place]
    if not places:
        raise InputError("no output: give --out, --sheet or --report")
    if len(set(places)) < len(places):
        raise InputError("--out, --sheet and --report: two have one name: give each its own")
    for place in filter(None, (out, sheet, report)):
        check_apart(place, inputs)
    if out:
        check_pictures(out, overwrite)
    if sheet:
        check_file(sheet, overwrite, (".png",))
    if report:
        check_folder(report, overwrite)


def check_pictures(out: Path, overwrite: bool) -> None:
    """Raise InputError for an array, an image or a folder of images that could not be written, or must not be."""
    if out.suffix and not out.is_dir():
        check_file(out, overwrite, (".npy", ".png"))
        return
    check_folder(out, overwrite)


def check_sheet(out: Path, count: int, most: int = SHEET) -> None:
    """Raise InputError for more images than one sheet can show."""
    if out.suffix.lower() == ".png" and count > most:
        raise InputError(f"{out}: {count} images are too many for one sheet: write a .npy or a folder")


def check_fits(out: Path, images: list[Images]) -> None:
    """Raise InputError where the output's format cannot hold images of several sizes, or their dtype."""
    if len(images) > 1 and out.suffix:
        raise InputError(f"{out}: images of several sizes do not fit one file: give a folder")
    first = images[0]
    fits = first.dtype in (np.bool_, np.uint8) or (first.dtype == np.uint16 and channels_of(first[:1]) == 1)
    if out.suffix.lower() != ".npy" and not fits:
        raise InputError(f"{out}: image files cannot hold {first.dtype} values: write a .npy")


def write_filled(out: Path, stacks: list[Stack], names: list[str] | None = None) -> str:
    """Write the samples of an inpainting; returns a line about the output.

    To ``.npy``; to ``.png``, the one sample of one image or else a sheet; or to a folder, one image file per sample.
    """
    n, k = sum(len(stack.images) for stack in stacks), stacks[0].samples.shape[1]
    if out.suffix.lower() == ".npy":
        _save_array(out, stacks[0].samples)
        return f"{out}: {n} x {k} samples"
    if out.suffix.lower() == ".png" and (n, k) == (1, 1):
        _save_image(out, stacks[0].samples[0, 0])
        return f"{out}: one sample"
    if out.suffix.lower() == ".png":
        return write_sheet(out, stacks)
    each = [samples for stack in stacks for samples in stack.samples]
    with folder_written_whole(out.resolve()) as folder:
        for name, samples in zip(names or [f"{i:05d}" for i in range(n)], each, strict=True):
            for i, sample in enumerate(samples):
                _save_image(folder / f"{name}_{i:02d}.png", sample)
    return f"the folder {out}: {n} x {k} images"


def write_sheet(out: Path, stacks: list[Stack]) -> str:
    """Write one image of masked inputs, up to 16 samples, mean and standard deviation; returns a line about it.

    Raises InputError for images of several sizes.
    """
    if len(stacks) > 1:
        raise InputError(f"{out}: images of several sizes do not fit one sheet: use --report or a folder")
    images, samples = stacks[0].as_bytes()
    figures.save_picture(figures.gallery(images, stacks[0].mask, samples, show=16, original=False).picture(), out)
    return f"{out}: a sheet of {samples.shape[0]} x {samples.shape[1]} samples"


def write_samples(out: Path, drawn: Images, values: ValueRange = BYTES) -> str:
    """Write unconditional samples ``[N, H, W]`` or ``[N, H, W, C]``; returns a line about the output.

    To ``.npy``, to ``.png`` as a sheet, or to a folder, one image file per sample.
    """
    if out.suffix.lower() == ".npy":
        _save_array(out, drawn)
        return f"{out}: {len(drawn)} images"
    if out.suffix.lower() == ".png":
        figures.save_picture(figures.grid(as_bytes(drawn, values)), out)
        return f"{out}: a sheet of {len(drawn)} images"
    with folder_written_whole(out.resolve()) as folder:
        for i, image in enumerate(drawn):
            _save_image(folder / f"{i:05d}.png", image)
    return f"the folder {out}: {len(drawn)} images"


def _save_image(out: Path, pixels: Images) -> None:
    """Write ``[H, W]`` or ``[H, W, C]``; bool as 0 and 255."""
    figures.save_picture(pixels.astype(np.uint8) * np.uint8(255) if pixels.dtype == np.bool_ else pixels, out)


def _save_array(out: Path, array: NDArray) -> None:
    with written_whole(out) as temporary, temporary.open("wb") as file:  # by name numpy would add .npy to .NPY
        np.save(file, array)


@contextmanager
def array_in_parts(out: Path, shape: tuple[int, ...], dtype: np.dtype) -> Iterator[Callable[[NDArray], None]]:
    """Write a ``.npy`` part by part, whole or not at all; each call of the yielded function appends a part."""
    with written_whole(out) as temporary, temporary.open("wb") as file:
        about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(file, about)

        def write(part: NDArray) -> None:
            file.write(np.ascontiguousarray(part, dtype).data)

        yield write
        file.flush()
