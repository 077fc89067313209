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
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from inkfill.data import deep_png, tiff
from inkfill.data.details import Details, details_of
from inkfill.data.images import MAX_PIXELS, MAX_SIDE, Images, as_images, check_size, pixels_of, upright
from inkfill.errors import InputError, reason

FIRST_FRAME = ("JPEG", "MPO")  # a camera's previews and gain maps follow
ORIENTATION = 0x0112  # Exif tag
MAX_BYTES = 2**30  # the largest array that is unpacked from a compressed file or read into memory
MAX_RATIO = 1100  # upper bound of the compression ratio of gzip
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
BY_SUFFIX = {".jp2": "JPEG2000", ".j2k": "JPEG2000", ".avif": "AVIF", ".tga": "TGA", ".ico": "ICO"}
PICTURES = {
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pbm", ".pgm", ".ppm",
    ".pnm", *BY_SUFFIX,
}  # fmt: skip
MASK_ENDS = ("_mask", ".mask", "-mask")  # of the name of a mask beside its image


@dataclass(frozen=True)
class Source:
    """Where an image comes from: its name for outputs, its file, and its number there."""

    name: str
    file: Path
    frame: int = 0


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
    """The frames of an image file, ``[H, W]`` or ``[H, W, C]`` each: uint8 or uint16, of TIFF any dtype.

    Sizes are checked before anything is decoded. Raises InputError for a broken file, and for pixels that cannot be
    read without loss.
    """
    with _reading(path, "image"), warnings.catch_warnings(action="ignore"):
        body = _body(path)
        try:
            with _opened(body, path) as picture:
                frames = _frames(picture, body, path)
        except (SyntaxError, OSError):  # Pillow's words for formats that it does not know
            if body[:4] not in tiff.MAGIC:
                raise
            frames = None
        return tiff.read_pages(body, path, MAX_BYTES) if frames is None else frames


def read_details(source: Source) -> Details:
    """What the file of an image says beside its pixels; nothing where Pillow cannot open it."""
    quiet = warnings.catch_warnings(action="ignore")
    with contextlib.suppress(Exception), quiet, _opened(_body(source.file), source.file) as picture:
        picture.seek(source.frame)
        return details_of(picture, _upright(picture))
    return Details()


def _body(path: Path) -> bytes:
    """The bytes of an image file: of a file, Pillow allocates what a chunk announces, maybe 4 GiB in 400 bytes."""
    if (size := path.stat().st_size) > MAX_BYTES:
        raise InputError(f"{path}: {size:,} bytes are more than inkfill reads: cut it into parts")
    return path.read_bytes()


@contextlib.contextmanager
def _opened(body: bytes, path: Path) -> Iterator[Any]:
    """A Pillow image of a format on the list: by its contents, or by its suffix where contents say little."""
    from PIL import Image

    formats: tuple[str, ...] = FORMATS
    if named := BY_SUFFIX.get(path.suffix.lower()):
        Image.init()
        if named not in Image.OPEN:
            raise InputError(f"{path}: this Pillow reads no {named}: upgrade it (pip install --upgrade pillow)")
        formats = (*FORMATS, named)
    with Image.open(BytesIO(body), formats=formats) as picture:
        yield picture


def _frames(picture: Any, body: bytes, path: Path) -> list[Images] | None:
    """The frames of an opened image; None for a TIFF of which Pillow would change values."""
    from PIL import ImageSequence

    frames: list[Images] = []
    pixels = 0
    for i, frame in enumerate(ImageSequence.Iterator(picture)):
        if frame.format == "TIFF" and i and tiff.is_overview(frame):
            continue
        check_size(frame.height, frame.width, str(path))  # of every page: they may differ
        pixels += frame.height * frame.width
        if pixels > MAX_PIXELS:
            raise InputError(f"{path}: {len(frames) + 1} frames are more than inkfill reads: cut it into parts")
        if frame.format == "TIFF" and not tiff.is_exact(frame):
            return None
        if deep_png.is_deep(body):
            return [upright(deep_png.read(body, path), _orientation(frame))]
        _check_depth(frame, body, path)
        frames.append(pixels_of(_upright(frame), str(path)))
        if picture.format in FIRST_FRAME:
            break
    return frames


def _upright(frame: Any) -> Any:
    """A Pillow image turned as its Exif data say."""
    from PIL import ImageOps

    if _orientation(frame) != 1:
        with contextlib.suppress(Exception):
            turned = ImageOps.exif_transpose(frame)
            turned.format = frame.format
            return turned
    return frame


def _orientation(frame: Any) -> int:
    """The orientation of a Pillow image, 1 where its Exif data are broken, as they can be in many ways."""
    try:
        return int(frame.getexif().get(ORIENTATION, 1))
    except Exception:
        return 1


def _check_depth(frame: Any, body: bytes, path: Path) -> None:
    """Raise InputError where Pillow would reduce deep values to 8 bits, or scale them."""
    bits = {8}
    if frame.format == "JPEG2000" and (at := body.find(b"\xff\x4f\xff\x51")) >= 0:  # start, then the sizes
        count = int.from_bytes(body[at + 40 : at + 42], "big")
        bits = {body[at + 42 + 3 * i] + 1 for i in range(count)}
        bits = {8} if bits == {16} and count == 1 else bits
    elif frame.format == "AVIF" and (at := body.find(b"av1C")) >= 0:
        bits = {10 if body[at + 6] & 0x40 else 8}
    elif frame.format == "PPM" and frame.tile and isinstance(frame.tile[0][3], tuple):
        bits = {8 if frame.tile[0][3][-1] <= 255 else 16}
    if bits != {8}:
        raise InputError(f"{path}: values with {max(bits)} bits would be changed: save it as PNG, TIFF or .npy")


def picture_files(path: Path, without: Collection[Path] = ()) -> list[Path]:
    """The image files of a folder by name, without hidden files, or the one file given. Raises InputError."""
    if not path.is_dir():
        return [path]
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith("."))
    if without:
        left_out = {file.resolve() for file in without}
        files = [file for file in files if file.resolve() not in left_out]
    if not files:
        raise InputError(f"{path}: no images in this folder: give one with {', '.join(sorted(PICTURES))}")
    check_names([file.stem for file in files])
    return files


def masks_beside(folder: Path) -> list[Path]:
    """The files of a folder called ``NAME_mask``, ``NAME.mask`` or ``NAME-mask`` beside an image ``NAME``."""
    files = picture_files(folder)
    stems = {file.stem for file in files}
    return [file for file in files if image_name(file) in stems - {file.stem}]


def image_files(path: Path) -> list[Path]:
    """The image file given, or those of a folder without the masks beside them. Raises InputError."""
    return picture_files(path, masks_beside(path) if path.is_dir() else ())


def mask_files(folder: Path) -> list[Path]:
    """The mask files of a folder in the order of their images: those beside an image, if any, else all."""
    files = masks_beside(folder) or picture_files(folder)
    return sorted(files, key=lambda file: f"{image_name(file)}.")


def image_name(mask: Path) -> str:
    """The name of the image that a mask file belongs to."""
    end = next((end for end in MASK_ENDS if mask.stem.endswith(end)), "")
    return mask.stem.removesuffix(end)


def check_names(names: Sequence[str]) -> None:
    """Raise InputError for equal names, without suffixes: samples need names of their own."""
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"two images are called {repeated[0]}: rename one")


def read_pictures(
    files: Sequence[Path], fit: Callable[[Path, Images], Images] = lambda file, frame: frame
) -> tuple[list[Images], list[Source]]:
    """The frames of image files, changed by ``fit(file, frame)``, and the source of each. Raises InputError."""
    pictures: list[Images] = []
    sources: list[Source] = []
    for file in files:
        if file.suffix.lower() not in PICTURES:
            raise InputError(f"{file}: several files must all be pictures: give one array, or pictures alone")
    for file in files:
        frames = [fit(file, frame) for frame in read_frames(file)]
        pictures += frames
        one = len(frames) == 1
        sources += [Source(file.stem if one else f"{file.stem}-{i}", file, i) for i in range(len(frames))]
    check_names([source.name for source in sources])
    return pictures, sources


READERS = {".npy": read_array, ".npz": read_array}  # by suffix; other files are images or IDX


def read_images(path: Path) -> Images | list[Images]:
    """Images from ``.npy``, ``.npz``, an IDX file (``.gz`` too), an image file or a folder of them.

    ``[N, H, W]`` or ``[N, H, W, C]``; a list of ``[H, W]`` or ``[H, W, C]`` where images differ in size, channels or
    dtype. Raises InputError.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_dir() or path.suffix.lower() in PICTURES:
        return stacked(read_pictures(image_files(path))[0])
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
