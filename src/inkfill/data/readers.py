"""Files to arrays: IDX, numpy, pictures, folders of pictures. One reader each.

Whatever a file says of itself is checked before memory is taken for it, and never more than ``MAX_BYTES`` is unpacked.
Pictures are opened by a fixed list of formats, whatever their name says, so that none can start another program.
"""

import contextlib
import gzip
import struct
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from inkfill.data.images import MAX_PIXELS, MAX_SIDE, Images, as_images, check_size, pixels_of
from inkfill.errors import InputError, reason

ORIENTATION = 0x0112  # the tag of Exif
MAX_BYTES = 2**30  # the largest array that is unpacked from a compressed file or read into memory
MOST_DENSE = 1100  # bytes that one byte of a gzip file can stand for, and a little more
PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm"}
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")


# ---- IDX -------------------------------------------------------------------------------------------------------------


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped or not.

    Checks the magic number, the dimensions and the exact length before anything large is allocated, and never
    unpacks more bytes than the header announces. Raises InputError.
    """
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
            shape = _idx_shape(path, file)
            count = int(np.prod([int(n) for n in shape], dtype=object))
            size = path.stat().st_size
            if size * (MOST_DENSE if zipped else 1) < count:
                raise InputError(f"{path}: cut off, {size} bytes where {count} are announced: fetch it again")
            body = file.read(count)
            if len(body) < count:
                raise InputError(f"{path}: cut off, {len(body)} of {count} bytes: fetch it again")
            if file.read(1):
                raise InputError(f"{path}: longer than its header says, {shape}: not a proper IDX file")
    except InputError:
        raise
    except Exception as error:  # parsers raise many kinds for a broken or a hostile file
        raise InputError(f"{path}: cannot be read ({reason(error)})") from None
    return np.frombuffer(body, np.uint8).reshape(shape)


def _idx_shape(path: Path, file: IO[bytes] | gzip.GzipFile) -> tuple[int, ...]:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0":
        raise InputError(f"{path}: not an IDX file (it starts with {head!r})")
    if head[2] != 0x08:
        raise InputError(f"{path}: IDX type 0x{head[2]:02x}; only unsigned bytes (0x08) are images or labels")
    if head[3] not in (1, 3):
        raise InputError(f"{path}: {head[3]} dimensions; images have 3, labels 1")
    sizes = file.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise InputError(f"{path}: cut off in its header: fetch it again")
    shape = struct.unpack(f">{head[3]}I", sizes)
    count = int(np.prod([int(n) for n in shape], dtype=object))
    if count == 0:
        raise InputError(f"{path}: empty, its shape is {shape}")
    if count > MAX_BYTES or max(shape[1:], default=0) > MAX_SIDE:
        raise InputError(f"{path}: announces shape {shape}, more than inkfill reads")
    return shape


# ---- numpy -----------------------------------------------------------------------------------------------------------


def read_array(path: Path) -> NDArray[np.generic]:
    """One array from ``.npy`` (mapped, not read) or ``.npz`` (its ``images``, or its first array); never a pickle.

    Raises InputError.
    """
    try:
        if path.suffix.lower() == ".npz":
            return _read_npz(path)
        loaded = np.load(path, allow_pickle=False, mmap_mode="r")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except InputError:
        raise
    except Exception as error:  # parsers raise many kinds for a broken or a hostile file
        raise InputError(f"{path}: not a readable numpy file ({reason(error)})") from None
    if not isinstance(loaded, np.ndarray):
        raise InputError(f"{path}: an archive that is not named .npz: rename it")
    return loaded


def _read_npz(path: Path) -> NDArray[np.generic]:
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        chosen = next((n for n in ("images", "x_train", "x", "arr_0") if n in names), names[0] if names else None)
        if chosen is None:
            raise InputError(f"{path}: holds no array")
        info = archive.infolist()[names.index(chosen)]
        if info.file_size > MAX_BYTES:
            raise InputError(
                f"{path}: its array {chosen!r} unpacks to {info.file_size:,} bytes, more than inkfill reads"
            )
        with archive.open(info) as file:
            shape, _, dtype = _npy_header(file)
            if int(np.prod([int(n) for n in shape], dtype=object)) * dtype.itemsize > info.file_size:
                raise InputError(f"{path}: its array {chosen!r} announces {shape}, more than the file holds")
        with archive.open(info) as file:
            loaded: NDArray[np.generic] = np.lib.format.read_array(file, allow_pickle=False)
            return loaded


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version} of the format")
    return readers[version](file)


# ---- pictures --------------------------------------------------------------------------------------------------------


def read_frames(path: Path) -> list[Images]:
    """The frames of a picture (one, but for animated and multi-page ones), ``[H, W]`` or ``[H, W, C]`` each.

    uint8, or uint16 for 16-bit grey. Sizes are checked before anything is decoded. Raises InputError for what cannot
    be read without a loss, and for a broken file.
    """
    from PIL import Image, ImageSequence

    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise InputError(f"{path}: {size:,} bytes, more than inkfill reads")
        # From memory: of a file, Pillow reads as much as a chunk says that it holds, which may be 4 GiB in 400 bytes.
        body = path.read_bytes()
        with warnings.catch_warnings(action="ignore"), Image.open(BytesIO(body), formats=FORMATS) as picture:
            count = getattr(picture, "n_frames", 1)
            check_size(picture.height, picture.width, str(path))
            if count * picture.height * picture.width > MAX_PIXELS:
                raise InputError(f"{path}: {count} frames of {picture.height}x{picture.width}, more than inkfill reads")
            if picture.format == "PNG" and _is_deep_colour(body):
                raise InputError(f"{path}: colour of 16 bits, of which 8 would be lost: save it as .npy (uint16)")
            return [pixels_of(_upright(frame), str(path)) for frame in ImageSequence.Iterator(picture)]
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # parsers raise many kinds for a broken or a hostile file
        raise InputError(f"{path}: not a readable picture ({reason(error)})") from None


def _upright(frame: Any) -> Any:
    """A Pillow picture as it is looked at: cameras say in its Exif data which side is up."""
    from PIL import ImageOps

    with contextlib.suppress(Exception):  # Exif data can be broken in many ways, and then say nothing
        if frame.getexif().get(ORIENTATION, 1) != 1:
            turned = ImageOps.exif_transpose(frame)
            turned.format = frame.format
            return turned
    return frame


def _is_deep_colour(png: bytes) -> bool:
    """Whether a PNG has colour in 16 bits: Pillow would give 8 of them without a word."""
    return png[24] == 16 and png[25] in (2, 4, 6)  # bit depth and colour type, in the header chunk


def read_picture(path: Path) -> Images:
    """The first frame of a picture. Raises InputError."""
    return read_frames(path)[0]


def picture_files(folder: Path) -> list[Path]:
    """The pictures of a folder, in the order in which ``read_images`` gives them; hidden files are none.

    Raises InputError.
    """
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith("."))
    if not files:
        raise InputError(f"{folder}: no pictures in this folder")
    check_names(files)
    return files


def check_names(files: Sequence[Path]) -> None:
    """Raise InputError where two pictures have one name: what is made of them needs two."""
    if twice := first_twice([file.stem for file in files]):
        file = next(file for file in files if file.stem == twice)
        raise InputError(f"{file}: two pictures are called {twice}: what is made of them needs two names")


def first_twice(names: Sequence[str]) -> str | None:
    """A name that is there more than once, if any."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def read_pictures(
    files: Sequence[Path], fit: Callable[[Path, Images], Images] = lambda file, frame: frame
) -> tuple[list[Images], list[str]]:
    """The frames of pictures of any sizes, each as ``fit(file, frame)`` has it, and a name for each.

    Raises InputError.
    """
    pictures, names = [], []
    for file in files:
        frames = [fit(file, frame) for frame in read_frames(file)]
        pictures += frames
        names += [file.stem] if len(frames) == 1 else [f"{file.stem}-{i}" for i in range(len(frames))]
    if twice := first_twice(names):
        raise InputError(f"two pictures are called {twice}: what is made of them needs two names")
    return pictures, names


READERS = {".npy": read_array, ".npz": read_array}  # by the end of a name; what is no picture and not here is IDX


def read_images(path: Path) -> Images | list[Images]:
    """Images from ``.npy``, ``.npz``, an IDX file (``.gz`` too), one picture or a folder of pictures.

    ``[N, H, W]`` or ``[N, H, W, C]``; a list of ``[H, W]`` or ``[H, W, C]`` where pictures differ in size, channels or
    type. Raises InputError.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_dir() or path.suffix.lower() in PICTURES:
        pictures, _ = read_pictures(picture_files(path) if path.is_dir() else [path])
        return stacked(pictures)
    if reader := READERS.get(path.suffix.lower()):
        return as_images(reader(path), str(path))
    array = read_idx(path)
    if array.ndim != 3:
        raise InputError(f"{path}: an IDX file of labels, not of images")
    return as_images(array, str(path))


def stacked(pictures: list[Images]) -> Images | list[Images]:
    """Pictures as one array where they are of one kind, else the list as it is."""
    kinds = {(picture.shape, picture.dtype) for picture in pictures}
    if len(kinds) > 1:
        return pictures
    stack = np.ma.stack if any(map(np.ma.isMaskedArray, pictures)) else np.stack  # the other drops masks
    return stack(pictures)
