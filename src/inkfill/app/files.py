"""Images and masks in, completions out, as files; refusing early what could not be written."""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from inkfill.app import figures
from inkfill.data import Images, masks
from inkfill.data.images import BYTES, Mask, ValueRange, as_bytes, as_known, can_be_filled, channels_of, other_channels
from inkfill.data.readers import (
    MAX_BYTES,
    PICTURES,
    check_names,
    picture_files,
    read_images,
    read_picture,
    read_pictures,
    stacked,
)
from inkfill.errors import InputError
from inkfill.files import check_writable, folder_written_whole, written_whole

OURS = re.compile(r"(.+_)?\d\d+\.png")  # what a folder of completions or samples holds
SHEET = 100  # images at most in one sheet of completions
SAMPLES_SHEET = 10_000  # and in one of samples

# ---- in --------------------------------------------------------------------------------------------------------------


def read_inputs(
    paths: Sequence[Path], knows: int, grey: bool = False
) -> tuple[Images | list[Images], list[str] | None]:
    """Images from one path of any kind or from several pictures, and their names, if any.

    ``[N, H, W]`` or ``[N, H, W, C]``; a list of ``[1, ...]`` where pictures differ in size, channels or type. ``grey``
    makes grey of colour; ``knows`` is how many channels the weights know. Raises InputError.
    """
    if len(paths) == 1 and not paths[0].is_dir() and paths[0].suffix.lower() not in PICTURES:
        array = read_images(paths[0])
        assert not isinstance(array, list)
        return (luma(array) if grey else array), None
    files = picture_files(paths[0]) if len(paths) == 1 and paths[0].is_dir() else list(paths)
    for file in files:
        if file.suffix.lower() not in PICTURES:
            raise InputError(f"{file}: several files must all be pictures: give one array, or pictures alone")
    check_names(files)

    def fit(file: Path, picture: Images) -> Images:
        picture = as_known(luma(picture[None])[0] if grey else picture, knows)
        have = channels_of(picture[None])
        if not can_be_filled(have, knows):
            raise InputError(f"{file}: {other_channels(have, knows)}")
        return picture

    pictures, names = read_pictures(files, fit)
    one = stacked(pictures)
    return ([picture[None] for picture in one] if isinstance(one, list) else one), names


def is_picture(path: Path) -> bool:
    """Whether a path is a picture by its name."""
    return path.suffix.lower() in PICTURES


def luma(images: Images) -> Images:
    """Grey of colour ``[N, H, W, C]``, by the weights of ITU-R BT.601; alpha is kept, grey images stay as they are."""
    if images.ndim == 3 or images.shape[3] < 3:
        return images
    weights = np.array([0.299, 0.587, 0.114])
    mixed = np.ma.getdata(images)[..., :3] @ weights
    grey = (mixed.round() if images.dtype.kind in "iu" else mixed).astype(images.dtype)
    return np.stack([grey, images[..., 3]], -1) if images.shape[3] == 4 else grey


def fit_masks(
    given: masks.MaskInput, pictures: Images | list[Images], names: list[str] | None, seed: int
) -> Mask | list[Mask]:
    """The masks of these images: one array, or a list for a list.

    A folder of masks is paired with named images by file name. Raises InputError, also for a file without a partner.
    """
    if names and given.folder:
        each = _paired(given, names)
        options = replace(given.options, colour=None)
        parts = pictures if isinstance(pictures, list) else list(pictures[:, None])
        list_ = [masks.fit(mask, picture, seed, options) for mask, picture in zip(each, parts, strict=True)]
        found: Mask | list[Mask] = list_ if isinstance(pictures, list) else np.concatenate(list_)
    elif isinstance(pictures, list):
        found = [masks.fit(given, picture, seed + i) for i, picture in enumerate(pictures)]
    else:
        found = masks.fit(given, pictures, seed)
    each = found if isinstance(found, list) else [found]
    if given.of_images and not any(mask.any() for mask in each):
        raise InputError(masks.NOTHING.format(given.of_images))
    for mask in each:
        masks.notice(mask)
    return found


def _paired(given: masks.MaskInput, names: list[str]) -> list[Mask]:
    """The masks of a folder in the order of the images' names. Raises InputError for one without a partner."""
    folder = given.folder
    assert folder is not None
    files = {file.stem: file for file in picture_files(folder)}
    for name in names:
        if name not in files:
            raise InputError(
                f"{folder}: no mask is called {name}, as one of the pictures is: give each picture its own"
            )
    for stem, file in files.items():
        if stem not in names:
            raise InputError(f"{file}: no picture is called {stem}: give each mask its picture")
    return [masks.mask_of(read_picture(files[name]), str(files[name]), given.options) for name in names]


# ---- standard input and output ---------------------------------------------------------------------------------------

PIPE = Path("-")


@contextmanager
def piped(images: tuple[Path, ...], out: Path | None) -> Iterator[tuple[tuple[Path, ...], Path | None]]:
    """Files that stand for ``-``: one has what comes in by standard input, and what is written goes to standard output.

    An array goes out as ``.npy``, a picture as ``.png``. Raises InputError for a terminal, and for too much.
    """
    if PIPE not in (*images, out):
        yield images, out
        return
    if PIPE in images and len(images) > 1:
        raise InputError("- is standard input, which is one picture or one array: give it alone")
    if out == PIPE and sys.stdout.isatty():
        raise InputError("--out - writes to standard output, which is a terminal: send it to a file or a program")
    with TemporaryDirectory(prefix="inkfill-") as folder:
        if PIPE in images:
            given = sys.stdin.buffer.read(MAX_BYTES + 1)
            if not 0 < len(given) <= MAX_BYTES:
                raise InputError(f"standard input: {'too long' if given else 'empty'}: give a picture or an array")
            kind = (
                ".npy" if given.startswith(b"\x93NUMPY") else ".gz" if given[:2] in (b"\x1f\x8b", b"\0\0") else ".png"
            )
            images = (Path(folder) / f"standard-input{kind}",)
            images[0].write_bytes(given)
        if out != PIPE:
            yield images, out
            return
        one = len(images) == 1 and not images[0].is_dir() and is_picture(images[0])
        made = Path(folder) / f"standard-output{'.png' if one else '.npy'}"
        yield images, made
        sys.stdout.buffer.write(made.read_bytes())
        sys.stdout.buffer.flush()


# ---- out -------------------------------------------------------------------------------------------------------------


def check_file(out: Path, overwrite: bool, suffixes: tuple[str, ...]) -> None:
    """Refuse now a file that could not be written after minutes of work. Raises InputError."""
    if str(out) == "-":
        raise InputError("--out -: pictures and arrays go into files: give a name")
    if out.suffix.lower() not in suffixes:
        raise InputError(f"{out}: cannot write {out.suffix or 'such'} files: use {' or '.join(suffixes)}")
    if out.is_dir():
        raise InputError(f"{out} is a folder: give another name")
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists: give --overwrite to replace it, or another --out")
    check_writable(out)


def check_folder(out: Path, overwrite: bool) -> None:
    """Refuse now a folder that could not be written, or that holds anything. Raises InputError."""
    if str(out) == "-":
        raise InputError("--out -: a folder is to be written: give a name")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, and a folder is to be written: give another --out")
    if out.exists() and not overwrite and any(out.iterdir()):
        raise InputError(f"{out} exists: give --overwrite to replace it, or another --out")
    check_writable(out / "x")


def check_outputs(out: Path | None, sheet: Path | None, report: Path | None, overwrite: bool) -> None:
    """Refuse now whatever of a command's outputs could not be written, or that there is none. Raises InputError."""
    if not (out or sheet or report):
        raise InputError("say where the completions should go: give --out, --sheet or --report")
    given = [place.resolve() for place in (out, sheet, report) if place]
    if len(set(given)) < len(given):
        raise InputError("two outputs have one name: give each its own")
    if out:
        check_pictures(out, overwrite)
    if sheet:
        check_file(sheet, overwrite, (".png",))
    if report:
        check_folder(report, overwrite)


def check_pictures(out: Path, overwrite: bool) -> None:
    """Refuse now an array, a picture or a folder of pictures that could not be written. Raises InputError.

    A folder is replaced as a whole, so it may hold nothing but pictures as inkfill writes them.
    """
    if out.suffix and not out.is_dir():
        check_file(out, overwrite, (".npy", ".png"))
        return
    check_folder(out, overwrite)
    others = [p.name for p in out.iterdir() if not OURS.fullmatch(p.name)] if out.exists() else []
    if others:
        raise InputError(f"{out} holds {others[0]}, which inkfill did not write: give another --out")


def check_sheet(out: Path, count: int, most: int = SHEET) -> None:
    """Raise InputError for more images than one picture can show."""
    if out.suffix.lower() == ".png" and count > most:
        raise InputError(f"{count} images are too many for one sheet: write a .npy or a folder")


def write_completions(
    out: Path,
    images: Images | list[Images],
    mask: Mask | list[Mask],
    filled: Images | list[Images],
    values: ValueRange,
    names: list[str] | None = None,
) -> str:
    """Write ``filled``, ``[N, K, ...]`` or a list of ``[K, ...]``, and say what was written.

    As ``.npy``; as ``.png``: the one completion of one image, or else a sheet; or into a folder, a picture each.
    """
    n, k = len(filled), len(filled[0])
    if out.suffix.lower() == ".npy":
        _save_array(out, np.asarray(filled))
        return f"{out}: {n} x {k} completions"
    if out.suffix.lower() == ".png" and (n, k) == (1, 1):
        figures.save_picture(_for_picture(filled[0][0]), out)
        return f"{out}: the picture, filled"
    if out.suffix.lower() == ".png":
        return write_sheet(out, images, mask, filled, values)
    names = names or [f"{i:05d}" for i in range(n)]
    with folder_written_whole(out.resolve()) as folder:
        for name, completions in zip(names, filled, strict=True):
            for i, completion in enumerate(completions):
                figures.save_picture(_for_picture(completion), folder / f"{name}_{i:02d}.png")
    return f"the folder {out}: {n} x {k} pictures"


def check_fits(out: Path, images: Images | list[Images]) -> None:
    """Raise InputError where what is to be written cannot hold these images: their numbers, or their several sizes."""
    if isinstance(images, list) and out.suffix:
        raise InputError(f"{out}: pictures of several sizes do not fit one file: give a folder")
    first = images[0] if isinstance(images, list) else images
    fits = first.dtype in (np.bool_, np.uint8) or (first.dtype == np.uint16 and channels_of(first[:1]) == 1)
    if out.suffix.lower() != ".npy" and not fits:
        raise InputError(f"{out}: pictures cannot hold {first.dtype} values as they are: write a .npy")


def _for_picture(pixels: Images) -> Images:
    """Pixels ``[H, W]`` or ``[H, W, C]`` as Pillow writes them."""
    return pixels.astype(np.uint8) * np.uint8(255) if pixels.dtype == np.bool_ else pixels


def write_sheet(
    out: Path, images: Images | list[Images], mask: Mask | list[Mask], filled: Images | list[Images], values: ValueRange
) -> str:
    """Write one picture of all (masked images, their completions, 16 at most, mean and spread); says what it wrote.

    Raises InputError for pictures of several sizes.
    """
    if isinstance(images, list) or isinstance(mask, list) or isinstance(filled, list):
        raise InputError(f"{out}: pictures of several sizes do not fit one sheet: use --report or a folder")
    shown, completions = as_bytes(images, values), as_bytes(filled, values)
    figures.save_picture(figures.gallery(shown, mask, completions, show=16, original=False).picture(), out)
    return f"{out}: a sheet of {filled.shape[0]} x {filled.shape[1]} completions"


def write_samples(out: Path, drawn: Images, values: ValueRange = BYTES) -> str:
    """Write new images, ``[N, H, W]`` or ``[N, H, W, C]``: a ``.npy``, a ``.png`` sheet, or a folder; says which."""
    if out.suffix.lower() == ".npy":
        _save_array(out, drawn)
        return f"{out}: {len(drawn)} images"
    if out.suffix.lower() == ".png":
        figures.save_picture(figures.grid(as_bytes(drawn, values)), out)
        return f"{out}: a sheet of {len(drawn)} images"
    with folder_written_whole(out.resolve()) as folder:
        for i, image in enumerate(drawn):
            figures.save_picture(_for_picture(image), folder / f"{i:05d}.png")
    return f"the folder {out}: {len(drawn)} pictures"


def _save_array(out: Path, array: NDArray) -> None:
    with written_whole(out) as temporary, temporary.open("wb") as file:  # by name numpy would add .npy to .NPY
        np.save(file, array)


@contextmanager
def array_in_parts(out: Path, shape: tuple[int, ...], dtype: np.dtype) -> Iterator[Callable[[NDArray], None]]:
    """Write a ``.npy`` of a shape part by part, whole or not at all: what is given takes the next part."""
    with written_whole(out) as temporary, temporary.open("wb") as file:
        about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(file, about)

        def write(part: NDArray) -> None:
            file.write(np.ascontiguousarray(part, dtype).data)

        yield write
        file.flush()
