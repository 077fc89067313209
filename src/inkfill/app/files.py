"""Images and masks in, completions out, as files; refusing early what could not be written."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inkfill.app import figures
from inkfill.checkpoint import check_writable, folder_written_whole, written_whole
from inkfill.data import Images
from inkfill.data.readers import (
    PICTURES,
    check_names,
    picture_files,
    read_images,
    read_pictures,
)
from inkfill.errors import InputError

OURS = re.compile(r"(.+_)?\d\d+\.png")  # what a folder of completions or samples holds
SHEET = 100  # images at most in one sheet of completions
SAMPLES_SHEET = 10_000  # and in one of samples

# ---- in --------------------------------------------------------------------------------------------------------------


def read_inputs(paths: Sequence[Path]) -> tuple[Images, list[str] | None]:
    """Images, uint8 ``[N, H, W]``, from one path of any kind or from several pictures, and their names, if any.

    Raises InputError.
    """
    if len(paths) == 1 and not paths[0].is_dir():
        named = paths[0].suffix.lower() in PICTURES
        return read_images(paths[0]), [paths[0].stem] if named else None
    files = picture_files(paths[0]) if len(paths) == 1 else list(paths)
    for file in files:
        if file.suffix.lower() not in PICTURES:
            raise InputError(f"{file}: several files must all be pictures: give one array, or pictures alone")
    check_names(files)
    return read_pictures(files), [file.stem for file in files]


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
    out: Path, images: Images, mask: NDArray[np.bool_], filled: Images, names: list[str] | None = None
) -> str:
    """Write ``filled``, uint8 ``[N, K, H, W]``, and say what was written.

    As ``.npy``; as ``.png``: the one completion of one image, or else a sheet; or into a folder, a picture each.
    """
    n, k = filled.shape[:2]
    if out.suffix.lower() == ".npy":
        _save_array(out, filled)
        return f"{out}: {n} x {k} completions"
    if out.suffix.lower() == ".png" and (n, k) == (1, 1):
        figures.save_picture(filled[0, 0], out)
        return f"{out}: the picture, filled"
    if out.suffix.lower() == ".png":
        return write_sheet(out, images, mask, filled)
    names = names or [f"{i:05d}" for i in range(n)]
    with folder_written_whole(out.resolve()) as folder:
        for name, completions in zip(names, filled, strict=True):
            for i, completion in enumerate(completions):
                figures.save_picture(completion, folder / f"{name}_{i:02d}.png")
    return f"the folder {out}: {n} x {k} pictures"


def write_sheet(out: Path, images: Images, mask: NDArray[np.bool_], filled: Images) -> str:
    """Write one picture of all (masked images, their completions, 16 at most, mean and spread); says what it wrote."""
    figures.save_picture(figures.gallery(images, mask, filled, show=16, original=False), out)
    return f"{out}: a sheet of {filled.shape[0]} x {filled.shape[1]} completions"


def write_samples(out: Path, drawn: Images) -> str:
    """Write new images, uint8 ``[N, H, W]``, and say what was written: a ``.npy``, a ``.png`` sheet, or a folder."""
    if out.suffix.lower() == ".npy":
        _save_array(out, drawn)
        return f"{out}: {len(drawn)} images"
    if out.suffix.lower() == ".png":
        figures.save_picture(figures.grid(drawn), out)
        return f"{out}: a sheet of {len(drawn)} images"
    with folder_written_whole(out.resolve()) as folder:
        for i, image in enumerate(drawn):
            figures.save_picture(image, folder / f"{i:05d}.png")
    return f"the folder {out}: {len(drawn)} pictures"


def _save_array(out: Path, array: NDArray) -> None:
    with written_whole(out) as temporary:
        np.save(temporary, array)
