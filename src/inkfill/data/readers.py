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


# ---- IDX -------------------------------------------------------------------------------------------------------------


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped or not.

    Magic number, dimensions and length are checked before anything large is allocated, and no more bytes are unpacked
    than the header announces. Raises InputError.
    """
    with _reading(path, "IDX file"):
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
            shape = _idx_shape(path, file)
            count = math.prod(shape)
            size = path.stat().st_size
            if size * (MAX_RATIO if zipped else 1) < count:
                raise InputError(f"{path}: truncated: {size} bytes cannot hold {count}: fetch it again")
            body = file.read(count)
            if len(body) < count:
                raise InputError(f"{path}: truncated: {len(body)} of {count} bytes: fetch it again")
            if file.read(1):
                raise InputError(f"{path}: longer than its header says, {shape}: not an IDX file")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _idx_shape(path: Path, file: IO[bytes] | gzip.GzipFile) -> tuple[int, ...]:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0":
        raise InputError(f"{path}: not an IDX file (it starts with {head!r})")
    if head[2] != 0x08:
        raise InputError(f"{path}: IDX type 0x{head[2]:02x}: give unsigned bytes (0x08)")
    if head[3] not in (1, 3):
        raise InputError(f"{path}: {head[3]} dimensions: give 3 for images, 1 for labels")
    sizes = file.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise InputError(f"{path}: truncated header: fetch it again")
    shape = struct.unpack(f">{head[3]}I", sizes)
    if 0 in shape:
        raise InputError(f"{path}: empty: its shape is {shape}")
    if math.prod(shape) > MAX_BYTES or max(shape[1:], default=0) > MAX_SIDE:
        raise InputError(f"{path}: shape {shape} is more than inkfill reads: cut it into parts")
    return shape


# ---- numpy -----------------------------------------------------------------------------------------------------------


def read_array(path: Path) -> NDArray[np.generic]:
    """One array from ``.npy`` (memory-mapped) or ``.npz`` (its ``images``, or its first array); never a pickle.

    Raises InputError.
    """
    with _reading(path, "numpy file"):
        if path.suffix.lower() == ".npz":
            return _read_npz(path)
        loaded = np.load(path, allow_pickle=False, mmap_mode="r")
    if not isinstance(loaded, np.ndarray):
        raise InputError(f"{path}: an archive under another name: rename it to .npz")
    return loaded


def _read_npz(path: Path) -> NDArray[np.generic]:
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        chosen = next((n for n in ("images", "x_train", "x", "arr_0") if n in names), names[0] if names else None)
        if chosen is None:
            raise InputError(f"{path}: no array in it: give an archive with images")
        info = archive.infolist()[names.index(chosen)]
        if info.file_size > MAX_BYTES:
            raise InputError(f"{path}: array {chosen!r} of {info.file_size:,} bytes is more than inkfill reads")
        with archive.open(info) as file:
            shape, _, dtype = _npy_header(file)
            if math.prod(map(int, shape)) * dtype.itemsize > info.file_size:
                raise InputError(f"{path}: array {chosen!r} announces {shape}, more than the file holds")
        with archive.open(info) as file:
            loaded: NDArray[np.generic] = np.lib.format.read_array(file, allow_pickle=False)
            return loaded


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"format version {version}")
    return readers[version](file)


# ---- image files -----------------------------------------------------------------------------------------------------


def read_frames(path: Path) -> list[Images]:
    """The frames of an image file, ``[H, W]`` or ``[H, W, C]`` each: uint8, or uint16 for 16-bit grey.

    Sizes are checked before anything is decoded. Raises InputError for a broken file, and for pixels that cannot be
    read without loss.
    """
    from PIL import Image, ImageSequence

    with _reading(path, "image"):
        if (size := path.stat().st_size) > MAX_BYTES:
            raise InputError(f"{path}: {size:,} bytes are more than inkfill reads: cut it into parts")
        # From memory: of a file, Pillow allocates what a chunk announces, which may be 4 GiB in 400 bytes.
        body = path.read_bytes()
        with warnings.catch_warnings(action="ignore"), Image.open(BytesIO(body), formats=FORMATS) as picture:
            if picture.format == "PNG" and _is_deep_colour(body):
                raise InputError(f"{path}: colour with 16 bits would lose 8: save it as .npy (uint16)")
            frames: list[Images] = []
            pixels = 0
            for frame in ImageSequence.Iterator(picture):
                check_size(frame.height, frame.width, str(path))  # of every page: they may differ
                pixels += frame.height * frame.width
                if pixels > MAX_PIXELS:
                    raise InputError(f"{path}: {len(frames) + 1} frames are more than inkfill reads: cut it into parts")
                _check_tiff(frame, path)
                frames.append(pixels_of(_upright(frame), str(path)))
                if picture.format in FIRST_FRAME:
                    break
            return frames


def _upright(frame: Any) -> Any:
    """A Pillow image turned upright by its Exif orientation."""
    from PIL import ImageOps

    with contextlib.suppress(Exception):  # Exif data can be broken in many ways
        if frame.getexif().get(ORIENTATION, 1) != 1:
            turned = ImageOps.exif_transpose(frame)
            turned.format = frame.format
            return turned
    return frame


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


def _is_deep_colour(png: bytes) -> bool:
    """Whether a PNG has colour with 16 bits, which Pillow silently reduces to 8."""
    return png[24] == 16 and png[25] in (2, 4, 6)  # bit depth and colour type, in the header chunk


def read_picture(path: Path) -> Images:
    """The first frame of an image file. Raises InputError."""
    return read_frames(path)[0]


def picture_files(folder: Path) -> list[Path]:
    """The image files of a folder, in the order of ``read_images``, without hidden files. Raises InputError."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith("."))
    if not files:
        raise InputError(f"{folder}: no images in this folder: give one with {', '.join(sorted(PICTURES))}")
    check_names(files)
    return files


def check_names(files: Sequence[Path]) -> None:
    """Raise InputError where two files have one name without its suffix: their samples need names of their own."""
    if name := _repeated([file.stem for file in files]):
        file = next(file for file in files if file.stem == name)
        raise InputError(f"{file}: two images are called {name}: rename one")


def _repeated(names: Sequence[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)


def read_pictures(
    files: Sequence[Path], fit: Callable[[Path, Images], Images] = lambda file, frame: frame
) -> tuple[list[Images], list[str]]:
    """The frames of image files, changed by ``fit(file, frame)``, and a name for each. Raises InputError."""
    pictures, names = [], []
    for file in files:
        frames = [fit(file, frame) for frame in read_frames(file)]
        pictures += frames
        names += [file.stem] if len(frames) == 1 else [f"{file.stem}-{i}" for i in range(len(frames))]
    if name := _repeated(names):
        raise InputError(f"two images are called {name}: rename one")
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
        pictures, _ = read_pictures(picture_files(path) if path.is_dir() else [path])
        return stacked(pictures)
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
