"""Masks in and completions out, as files."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inkfill import figures
from inkfill.checkpoint import written_whole
from inkfill.data import PICTURES, Images, read_array, read_images, read_picture
from inkfill.errors import InputError
from inkfill.masks import parse


def read_mask(text: str) -> NDArray[np.bool_] | str:
    """A mask from a file (bool ``[H, W]`` or ``[N, H, W]``, True = missing), or the checked spec as it is.

    ``.npy`` holds bool, or numbers of 0 and 1, or of 0 and 255; a picture, or a folder of pictures with one for
    each image, is black and white, white = fill. Raises InputError.
    """
    path = Path(text)
    if not path.exists():
        if path.suffix.lower() in PICTURES | {".npy", ".npz"}:
            raise InputError(f"{path}: no such mask file")
        parse(text)
        return text
    if path.is_dir():
        values: NDArray = read_images(path)
    elif path.suffix.lower() in PICTURES:
        values = read_picture(path)
    else:
        values = np.asarray(read_array(path))
    if values.size == 0:
        raise InputError(f"{path}: the mask is empty, its shape is {list(values.shape)}")
    if values.dtype != np.bool_:
        levels = set(np.unique(values).tolist()) if np.issubdtype(values.dtype, np.number) else {"none"}
        if len(levels) > 2 or not levels <= {0, 1, 255}:
            raise InputError(f"{path}: the mask is not binary: use black (0, keep) and white (255, fill) alone")
        values = values != 0
    if not values.any():
        raise InputError(f"{path}: the mask marks nothing to fill (white or True = fill)")
    return values


def write_completions(
    out: Path, images: Images, mask: NDArray[np.bool_], filled: Images, names: list[str] | None = None
) -> None:
    """Write ``filled``, uint8 ``[N, K, H, W]``: as ``.npy``, as one ``.png``, or into a folder, a picture each."""
    if out.suffix == ".npy":
        _save_array(out, filled)
    elif out.suffix == ".png":
        one = filled.shape[:2] == (1, 1)
        figures.save_picture(filled[0, 0] if one else _sheet(images, mask, filled), out)
    else:
        names = names or [f"{i:05d}" for i in range(len(filled))]
        for name, completions in zip(names, filled, strict=True):
            for k, completion in enumerate(completions):
                figures.save_picture(completion, out / f"{name}_{k:02d}.png")


def check_sheet(out: Path, count: int, most: int = 100) -> None:
    """Raise InputError for more images than one picture can show."""
    if out.suffix == ".png" and count > most:
        raise InputError(f"{count} images are too many for one sheet: write a .npy or a folder")


def _sheet(images: Images, mask: NDArray[np.bool_], filled: Images) -> NDArray[np.uint8]:
    rows = [
        [
            figures.masked(image, hidden),
            *map(figures.grey, completions[:16]),
            figures.grey(completions.mean(0).round().astype(np.uint8)),
            figures.spread(completions),
        ]
        for image, hidden, completions in zip(images, mask, filled, strict=True)
    ]
    shown = min(16, filled.shape[1])
    return figures.sheet(rows, ["masked", *(f"sample {k + 1}" for k in range(shown)), "mean", "spread"])


def write_samples(out: Path, drawn: Images) -> None:
    """Write new images, uint8 ``[N, H, W]``: as ``.npy``, as one ``.png`` sheet, or into a folder."""
    if out.suffix == ".npy":
        _save_array(out, drawn)
    elif out.suffix == ".png":
        across = int(np.ceil(np.sqrt(len(drawn))))
        tiles = [figures.grey(image) for image in drawn]
        figures.save_picture(figures.sheet([tiles[i : i + across] for i in range(0, len(tiles), across)]), out)
    else:
        for i, image in enumerate(drawn):
            figures.save_picture(image, out / f"{i:05d}.png")


def _save_array(out: Path, array: NDArray) -> None:
    with written_whole(out) as temporary:
        np.save(temporary, array)
