"""Files to arrays: IDX, numpy, image files and folders of them. One reader per format.

Headers are checked before memory is allocated, and at most ``MAX_BYTES`` are unpacked. Image files are opened by a
fixed list of formats, whatever their names, so that none can start another program.
"""

import contextlib
import gzip
import math
import struct
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from inkfill.data.images import MAX_PIXELS, MAX_SIDE, Images, as_images, check_size, pixels_of
from inkfill.errors import InputError, reason

FIRST_FRAME = ("JPEG", "MPO")  # a camera's previews and gain maps follow
BITS_PER_SAMPLE, SAMPLE_FORMAT, SIGNED = 258, 339, 2  # tags of TIFF, and a value of the second
ORIENTATION = 0x0112  # Exif tag
MAX_BYTES = 2**30  # the largest array that is unpacked from a compressed file or read into memory
MAX_RATIO = 1100  # upper bound of the compression ratio of gzip
PICTURES = {
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pnm",
}  # fmt: skip
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")


@contextlib.contextmanager
def _reading(path: Path, kind: str) -> Iterator[None]:
    """Turn the errors of a parser, of any kind for broken and hostile files, into an InputError."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:
        what = "unknown format" if type(error).__name__ == "UnidentifiedImageError" else reason(error)
        raise InputError(f"{path}: not a readable {kind} ({what})") from None


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped or not.

    The header is checked before anything large is allocated, and no more bytes are unpacked than it announces.
    """
    with _reading(path, "IDX file"):
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
            shape = _idx_shape(path, file)
            count = math.prod(shape)
            possible = path.stat().st_size * (MAX_RATIO if zipped else 1)
            body = file.read(count) if count <= possible else b""
            if len(body) < count:
                raise InputError(f"{path}: truncated: it does not hold {count:,} bytes: fetch it again")
            if file.read(1):
                raise InputError(f"{path}: longer than its header says, {shape}: not an IDX file")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _idx_shape(path: Path, file: IO[bytes] | gzip.GzipFile) -> tuple[int, ...]:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0":
        raise InputError(f"{path}: not an IDX file (it starts with {head!r})")
    kind, dimensions = head[2:]
    if kind != 0x08 or dimensions not in (1, 3):
        found = f"IDX type 0x{kind:02x} in {dimensions} dimensions"
        raise InputError(f"{path}: {found}: give unsigned bytes (0x08) in 3 for images, 1 for labels")
    sizes = file.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise InputError(f"{path}: truncated header: fetch it again")
    shape = struct.unpack(f">{dimensions}I", sizes)
    if 0 in shape:
        raise InputError(f"{path}: empty: its shape is {shape}")
    if math.prod(shape) > MAX_BYTES or max(shape[1:], default=0) > MAX_SIDE:
        raise InputError(f"{path}: shape {shape} is more than inkfill reads: cut it into parts")
    return shape


def read_array(path: Path) -> NDArray[np.generic]:
    """One array from ``.npy`` (memory-mapped) or ``.npz`` (its ``images``, or its first array); never a pickle."""
    with _reading(path, "numpy file"):
        loaded = np.load(path, allow_pickle=False, mmap_mode="r")
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded as archive:
            names = archive.files
            chosen = next((n for n in ("images", "x_train", "x", "arr_0", *names) if n in names), None)
            if chosen is None:
                raise InputError(f"{path}: no array in it: give an archive with images")
            _check_entry(path, archive.zip, archive.zip.namelist()[names.index(chosen)])
            return archive[chosen]


def _check_entry(path: Path, archive: zipfile.ZipFile, name: str) -> None:
    """Raise InputError for an array of an archive that is too large, or smaller than it says."""
    size = archive.getinfo(name).file_size
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
    if size > MAX_BYTES:
        raise InputError(f"{path}: array {name!r} of {size:,} bytes is more than inkfill reads")
    if math.prod(map(int, shape)) * dtype.itemsize > size:
        raise InputError(f"{path}: array {name!r} announces {shape}, more than the file holds")


def read_frames(path: Path) -> list[Images]:
    """The frames of an image file, ``[H, W]`` or ``[H, W, C]`` each: uint8, or uint16 for 16-bit grey.

    Sizes are checked before anything is decoded. Raises InputError for a broken file, and for pixels that cannot be
    read without loss.
    """
    from PIL import Image, ImageOps, ImageSequence

    with _reading(path, "image"):
        if (size := path.stat().st_size) > MAX_BYTES:
            raise InputError(f"{path}: {size:,} bytes are more than inkfill reads: cut it into parts")
        # From memory: of a file, Pillow allocates what a chunk announces, which may be 4 GiB in 400 bytes.
        body = path.read_bytes()
        with warnings.catch_warnings(action="ignore"), Image.open(BytesIO(body), formats=FORMATS) as picture:
            if picture.format == "PNG" and body[24] == 16 and body[25] in (2, 4, 6):  # bit depth and colour type
                raise InputError(f"{path}: colour with 16 bits would lose 8: save it as .npy (uint16)")
            frames: list[Images] = []
            pixels = 0
            for frame in ImageSequence.Iterator(picture):
                check_size(frame.height, frame.width, str(path))  # of every page: they may differ
                pixels += frame.height * frame.width
                if pixels > MAX_PIXELS:
                    raise InputError(f"{path}: {len(frames) + 1} frames are more than inkfill reads: cut it into parts")
                _check_tiff(frame, path)
                upright = frame
                with contextlib.suppress(Exception):  # Exif data can be broken in many ways
                    if frame.getexif().get(ORIENTATION, 1) != 1:
                        upright = ImageOps.exif_transpose(frame)
                        upright.format = frame.format
                frames.append(pixels_of(upright, str(path)))
                if picture.format in FIRST_FRAME:
                    break
            return frames


def _check_tiff(frame: Any, path: Path) -> None:
    """Raise InputError for a TIFF page whose values Pillow would change silently: deep colour, signed bytes."""
    if frame.format != "TIFF":
        return
    bits, formats = (frame.tag_v2.get(tag, (default,)) for tag, default in ((BITS_PER_SAMPLE, 8), (SAMPLE_FORMAT, 1)))
    bits, formats = (each if isinstance(each, tuple) else (each,) for each in (bits, formats))
    if len(bits) > 1 and max(bits) > 8:
        raise InputError(f"{path}: colour with {max(bits)} bits would lose some: save it as .npy")
    if max(bits) <= 8 and max(formats) == SIGNED:
        raise InputError(f"{path}: signed bytes would be read as unsigned: save it as .npy (int8)")


def picture_files(path: Path) -> list[Path]:
    """The image files of a folder by name, without hidden files, or the one file given. Raises InputError."""
    if not path.is_dir():
        return [path]
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith("."))
    if not files:
        raise InputError(f"{path}: no images in this folder: give one with {', '.join(sorted(PICTURES))}")
    check_names([file.stem for file in files])
    return files


def check_names(names: Sequence[str]) -> None:
    """Raise InputError for equal names, without suffixes: samples need names of their own."""
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"two images are called {repeated[0]}: rename one")


def read_pictures(
    files: Sequence[Path], fit: Callable[[Path, Images], Images] = lambda file, frame: frame
) -> tuple[list[Images], list[str]]:
    """The frames of image files, changed by ``fit(file, frame)``, and a name for each. Raises InputError."""
    pictures, names = [], []
    for file in files:
        frames = [fit(file, frame) for frame in read_frames(file)]
        pictures += frames
        names += [file.stem] if len(frames) == 1 else [f"{file.stem}-{i}" for i in range(len(frames))]
    check_names(names)
    return pictures, names


READERS = {".npy": read_array, ".npz": read_array}  # by suffix; other files are images or IDX


def read_images(path: Path) -> Images | list[Images]:
    """Images from ``.npy``, ``.npz``, an IDX file (``.gz`` too), an image file or a folder of them.

    ``[N, H, W]`` or ``[N, H, W, C]``; a list of ``[H, W]`` or ``[H, W, C]`` where images differ in size, channels or
    dtype. Raises InputError.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_dir() or path.suffix.lower() in PICTURES:
        return stacked(read_pictures(picture_files(path))[0])
    if reader := READERS.get(path.suffix.lower()):
        return as_images(reader(path), str(path))
    with _reading(path, "file"), path.open("rb") as file:
        start = file.read(3)
    if start[:2] != b"\x1f\x8b" and (start[:2] != b"\0\0" or start[2:] < b"\x08"):  # gzip; IDX's lowest type
        raise InputError(f"{path}: unknown format: give .npy, .npz, IDX, or an image ({', '.join(sorted(PICTURES))})")
    array = read_idx(path)
    if array.ndim != 3:
        raise InputError(f"{path}: IDX file of labels: give one of images")
    return as_images(array, str(path))


def stacked(pictures: list[Images]) -> Images | list[Images]:
    """Images as one array if they have one size and dtype, else the list as it is."""
    kinds = {(picture.shape, picture.dtype) for picture in pictures}
    if len(kinds) > 1:
        return pictures
    stack = np.ma.stack if any(map(np.ma.isMaskedArray, pictures)) else np.stack  # np.stack drops masks
    return stack(pictures)
