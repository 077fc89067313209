"""Images to train on and to fill: MNIST as published, any IDX, array or folder of pictures, and a built-in default.

Everything here is uint8: images ``[N, H, W]``, labels ``[N]`` or None. ``to_x0`` is the one way into [-1, 1].
"""

import gzip
import hashlib
import os
import struct
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from inkfill.errors import InputError

Images = NDArray[np.uint8]

MNIST_FILES = {  # name: published MD5
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
CONNECT_TIMEOUT = 4.0  # seconds
MAX_BYTES = 4 * 2**30  # the largest array that is read from a file
MAX_SIDE = 1024  # pixels
PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm"}
VALIDATION = 5000  # the last digits of MNIST's training file


def array_hash(array: NDArray[np.generic]) -> str:
    """SHA-256 of an array's bytes, first 16 hex digits, for provenance."""
    return hashlib.sha256(array.tobytes()).hexdigest()[:16]


@dataclass(frozen=True)
class Dataset:
    """Three splits of images, and where they came from."""

    name: str
    train: Images
    validation: Images
    test: Images
    labels: dict[str, NDArray[np.uint8]]  # by split; empty where there are none

    def split(self, name: str) -> Images:
        """``train``, ``validation`` or ``test``. Raises InputError for another name."""
        if name not in ("train", "validation", "test"):
            raise InputError(f"unknown split {name!r}: choose train, validation or test")
        images: Images = getattr(self, name)
        return images

    def fingerprint(self) -> str:
        """SHA-256 (first 16 hex digits) of the training images, for provenance."""
        return array_hash(self.train)


def black_floor(images: Images, levels: int = 4) -> int:
    """``levels`` for images whose background is exactly 0, else 0: 0 is ten times as frequent as all of 1 to
    ``levels``."""
    near = ((images > 0) & (images <= levels)).mean()
    return levels if (images == 0).mean() > 10 * near else 0


def to_x0(images: Images) -> Tensor:
    """uint8 ``[N, H, W]`` to the library's x0: float32 ``[N, 1, H, W]`` in [-1, 1]."""
    return torch.from_numpy(images[:, None] / np.float32(127.5) - 1)


def to_uint8(x0: Tensor) -> Images:
    """x0 back to uint8 ``[..., H, W]`` (the channel is dropped), clipped and rounded to nearest."""
    return ((x0.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).squeeze(-3).cpu().numpy()


# ---- IDX files -------------------------------------------------------------------------------------------------------


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped or not.

    Checks the magic number, the dimensions and the exact length before anything large is allocated, and never
    unpacks more bytes than the header announces. Raises InputError.
    """
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
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
            body = file.read(count)
            if len(body) < count:
                raise InputError(f"{path}: cut off, {len(body)} of {count} bytes: fetch it again")
            if file.read(1):
                raise InputError(f"{path}: longer than its header says, {shape}: not a proper IDX file")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({_reason(error)})") from None
    return np.frombuffer(body, np.uint8).reshape(shape)


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


# ---- MNIST -----------------------------------------------------------------------------------------------------------


def cache_dir() -> Path:
    """Where downloads are kept: ``$XDG_CACHE_HOME/inkfill`` or ``~/.cache/inkfill``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inkfill"


def _intact(path: Path, md5: str) -> bool:
    """True for the published bytes; a file that is there with other bytes is named on stderr."""
    if not path.is_file():
        return False
    good = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == md5
    if not good:
        print(
            f"inkfill: {path} is truncated or altered (MD5 differs from the published one); not used", file=sys.stderr
        )
    return good


def download(name: str, folder: Path, mirrors: tuple[str, ...] = MIRRORS) -> Path:
    """Fetch one MNIST file into ``folder``: into a temporary file, checked, then renamed. Raises InputError."""
    from tqdm import tqdm

    problems = []
    for mirror in mirrors:
        temporary = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with urllib.request.urlopen(mirror + name, timeout=CONNECT_TIMEOUT) as answer:
                total = int(answer.headers.get("Content-Length") or 0)
                with (
                    tempfile.NamedTemporaryFile(dir=folder, prefix=name, suffix=".part", delete=False) as file,
                    tqdm(total=total, unit="B", unit_scale=True, desc=name) as bar,
                ):
                    temporary = Path(file.name)
                    while chunk := answer.read(1 << 16):
                        file.write(chunk)
                        bar.update(len(chunk))
            if _intact(temporary, MNIST_FILES[name]):
                return temporary.replace(folder / name)
            problems.append(f"{mirror}: wrong bytes")
        except (OSError, urllib.error.URLError, ValueError) as error:
            problems.append(f"{mirror}: {_reason(error)}")
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)
    raise InputError(f"{name} could not be downloaded ({'; '.join(problems)}); put the MNIST files into $INKFILL_DATA")


def find_mnist(mirrors: tuple[str, ...] = MIRRORS) -> dict[str, Path]:
    """The four files by name: from ``$INKFILL_DATA``, then the cache, then a download. Raises InputError."""
    folders = [Path(os.environ["INKFILL_DATA"])] if os.environ.get("INKFILL_DATA") else []
    folders.append(cache_dir())
    found = {}
    for name, md5 in MNIST_FILES.items():
        here = next((folder / name for folder in folders if _intact(folder / name, md5)), None)
        found[name] = here or download(name, cache_dir(), mirrors)
    return found


def mnist() -> Dataset:
    """MNIST: train 55,000, validation the last 5,000 of the training file, test 10,000. Raises InputError."""
    files = [read_idx(path) for path in find_mnist().values()]
    train, train_labels, test, test_labels = files
    cut = len(train) - VALIDATION
    labels = {"train": train_labels[:cut], "validation": train_labels[cut:], "test": test_labels}
    return Dataset("mnist", train[:cut], train[cut:], test, labels)


# ---- the built-in default --------------------------------------------------------------------------------------------


def rendered(train: int = 20000, validation: int = 2000, test: int = 2000, seed: int = 0) -> Dataset:
    """Digits drawn from the fonts that matplotlib ships, warped at random and centred like MNIST; 28 x 28.

    Deterministic from ``seed``. It keeps everything working where no MNIST can be had; it is not MNIST.
    """
    import torch.nn.functional as F
    from matplotlib import get_data_path
    from PIL import ImageDraw, ImageFont

    from inkfill.rng import stream

    fonts = sorted(Path(get_data_path(), "fonts", "ttf").glob("DejaVu*.ttf"))
    fonts = [f for f in fonts if "Display" not in f.name]
    size = 64
    glyphs = np.zeros((len(fonts) * 10, size, size), np.float32)
    for i, font in enumerate(fonts):
        face = ImageFont.truetype(font, 52)
        for digit in range(10):
            picture = Image.new("L", (size, size))
            ImageDraw.Draw(picture).text((size / 2, size / 2), str(digit), fill=255, font=face, anchor="mm")
            glyphs[10 * i + digit] = np.asarray(picture, np.float32) / 255
    templates = F.avg_pool2d(torch.from_numpy(glyphs)[:, None], 3, stride=1, padding=1)

    n = train + validation + test
    labels = np.empty(n, np.uint8)
    images = np.empty((n, 28, 28), np.uint8)
    for start in range(0, n, 2000):
        count = min(2000, n - start)
        rng = stream(seed, "rendered", start)
        pick = rng.integers(len(templates), size=count)
        labels[start : start + count] = pick % 10

        def normal(*shape: int, rng: np.random.Generator = rng) -> Tensor:
            return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))

        # Affine: turn, slant, and one scale per axis; elastic: a coarse field of displacements, made smooth.
        turn, slant = 0.15 * normal(count), 0.2 * normal(count)
        wide, tall = 0.95 * torch.exp(0.12 * normal(count)), 0.9 * torch.exp(0.08 * normal(count))
        zero = torch.zeros(count)
        rotate = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], 1).view(-1, 2, 2)
        shear = torch.stack([wide, wide * slant, zero, tall], 1).view(-1, 2, 2)
        affine = torch.cat([rotate @ shear, torch.zeros(count, 2, 1)], 2)
        elastic = F.interpolate(0.07 * normal(count, 2, 5, 5), (28, 28), mode="bicubic", align_corners=True)
        grid = F.affine_grid(affine, [count, 1, 28, 28], align_corners=False) + elastic.permute(0, 2, 3, 1)
        source = templates[torch.from_numpy(pick)]
        drawn = F.grid_sample(source, grid, align_corners=False)
        # Centred like MNIST: the centre of mass goes to the centre, by one more resampling.
        mass = drawn.sum((2, 3)).clamp(min=1e-3)
        axis = torch.linspace(-1 + 1 / 28, 1 - 1 / 28, 28)
        shift = torch.cat([(drawn.sum(2) * axis).sum(2) / mass, (drawn.sum(3) * axis).sum(2) / mass], 1)
        identity = F.affine_grid(torch.eye(2, 3).expand(count, 2, 3), [count, 1, 28, 28], align_corners=False)
        drawn = F.grid_sample(drawn, identity + shift[:, None, None, :], align_corners=False)
        images[start : start + count] = (drawn[:, 0] * 1.3).clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
    a, b = train, train + validation
    names = {"train": labels[:a], "validation": labels[a:b], "test": labels[b:]}
    return Dataset("rendered", images[:a], images[a:b], images[b:], names)


# ---- anybody's images ------------------------------------------------------------------------------------------------


def read_picture(path: Path) -> Images:
    """One grey picture, uint8 ``[H, W]``. Raises InputError for colour, real transparency, 16 bit or a broken file.

    Nothing is converted silently: pixels that are known must come back bit for bit.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            if max(picture.size) > MAX_SIDE:
                raise InputError(f"{path}: {picture.width}x{picture.height} is larger than {MAX_SIDE} pixels a side")
            if picture.mode.startswith(("I", "F")):
                raise InputError(f"{path}: more than 8 bits a pixel ({picture.mode}): convert it to 8-bit grey first")
            if picture.mode in ("1", "L"):
                return np.array(picture.convert("L"))
            rgba = np.array(picture.convert("RGBA"))
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not a readable picture ({_reason(error)})") from None
    if (rgba[..., 3] != 255).any():
        raise InputError(f"{path}: has transparent pixels: flatten it to 8-bit grey first")
    if (rgba[..., :1] != rgba[..., 1:3]).any():
        raise InputError(f"{path}: is in colour: convert it to 8-bit grey first")
    return rgba[..., 0].copy()


def read_array(path: Path) -> NDArray[np.generic]:
    """One array from ``.npy`` or ``.npz`` (its ``images``, or its only array); never a pickle. Raises InputError."""
    try:
        loaded = np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix == ".npy" else None)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            names = loaded.files
            name = next((n for n in ("images", "x_train", "x", "arr_0") if n in names), names[0] if names else None)
            if name is None:
                raise InputError(f"{path}: holds no array")
            loaded = loaded[name]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not a readable numpy file ({_reason(error)})") from None
    if not isinstance(loaded, np.ndarray):
        raise InputError(f"{path}: a pickle, which is never read: save it with numpy.save")
    return loaded


def as_images(array: NDArray[np.generic], name: str) -> Images:
    """Check that an array holds images and give them as uint8 ``[N, H, W]``. Raises InputError."""
    if array.ndim == 4 and 1 in (array.shape[1], array.shape[3]):
        array = array[:, 0] if array.shape[1] == 1 else array[..., 0]
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3:
        raise InputError(f"{name}: shape {array.shape}; images are uint8 [N, H, W] in one grey channel")
    if 0 in array.shape:
        raise InputError(f"{name}: empty, its shape is {array.shape}")
    if max(array.shape[1:]) > MAX_SIDE:
        raise InputError(f"{name}: {array.shape[1]}x{array.shape[2]} is larger than {MAX_SIDE} pixels a side")
    if array.dtype != np.uint8:
        if not np.issubdtype(array.dtype, np.number) or np.issubdtype(array.dtype, np.complexfloating):
            raise InputError(f"{name}: {array.dtype} values; images are uint8 from 0 to 255")
        if not np.isfinite(array).all():
            raise InputError(f"{name}: holds NaN or infinite values; images are uint8 from 0 to 255")
        low, high = float(array.min()), float(array.max())
        if low < 0 or high > 255 or not np.array_equal(array, np.round(array)):
            raise InputError(f"{name}: {array.dtype} values from {low:g} to {high:g}; images are uint8 from 0 to 255")
        if high <= 1 and np.issubdtype(array.dtype, np.floating):
            raise InputError(
                f"{name}: {array.dtype} values from {low:g} to {high:g}: multiply by 255 and save as uint8"
            )
    return np.ascontiguousarray(array, np.uint8)


def picture_files(folder: Path) -> list[Path]:
    """The pictures of a folder, in the order in which ``read_images`` gives them. Raises InputError."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES)
    if not files:
        raise InputError(f"{folder}: no pictures in this folder")
    stems = [file.stem for file in files]
    for file in files:
        if stems.count(file.stem) > 1:
            raise InputError(f"{folder}: two pictures are called {file.stem}: what is made of them needs two names")
    return files


def read_images(path: Path) -> Images:
    """Images from ``.npy``, ``.npz``, an IDX file (``.gz`` too), one picture or a folder of pictures of one size.

    uint8 ``[N, H, W]``. Raises InputError.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_dir():
        files = picture_files(path)
        pictures = [read_picture(file) for file in files]
        for file, picture in zip(files, pictures, strict=True):
            if picture.shape != pictures[0].shape:
                raise InputError(f"{file}: {_size(picture)}, but {files[0].name} is {_size(pictures[0])}: use one size")
        return np.stack(pictures)
    if path.suffix in (".npy", ".npz"):
        return as_images(read_array(path), str(path))
    if path.suffix.lower() in PICTURES:
        return read_picture(path)[None]
    array = read_idx(path)
    if array.ndim != 3:
        raise InputError(f"{path}: an IDX file of labels, not of images")
    return array


def _size(picture: Images) -> str:
    return f"{picture.shape[0]}x{picture.shape[1]}"


def check_size(images: Images, name: str) -> None:
    """Raise InputError for a size that the network cannot take: a side under 16 or not a multiple of 4."""
    h, w = images.shape[1:]
    if h % 4 or w % 4 or min(h, w) < 16:
        raise InputError(f"{name}: {h}x{w} pixels; both sides must be multiples of 4 and at least 16: crop or pad it")


def _idx_folder(folder: Path) -> Dataset | None:
    """MNIST-shaped folders (Fashion-MNIST, KMNIST, EMNIST): ``*train*images*`` and ``*(t10k|test)*images*``."""

    def one(*words: str) -> Path | None:
        hits = [p for p in sorted(folder.iterdir()) if p.is_file() and all(w in p.name.lower() for w in words)]
        return hits[0] if hits else None

    train, test = one("train", "images"), one("t10k", "images") or one("test", "images")
    if train is None or test is None:
        return None
    images, held_out = read_images(train), read_images(test)
    if images.shape[1:] != held_out.shape[1:]:
        raise InputError(f"{folder}: training images are {images.shape[1:]}, test images {held_out.shape[1:]}")
    labels = {}
    cut = len(images) - min(VALIDATION, len(images) // 10)
    paths = one("train", "labels"), one("t10k", "labels") or one("test", "labels")
    if paths[0] and paths[1]:
        first, second = read_idx(paths[0]), read_idx(paths[1])
        if (len(first), len(second)) != (len(images), len(held_out)):
            raise InputError(f"{folder}: the label files do not have one label for each image")
        labels = {"train": first[:cut], "validation": first[cut:], "test": second}
    return Dataset(folder.name, images[:cut], images[cut:], held_out, labels)


def load(name: str = "auto") -> Dataset:
    """A data set by name: ``auto`` (MNIST, else ``rendered`` with a notice), ``mnist``, ``rendered``, or a path.

    A path may be a folder with an IDX pair, a folder of pictures, an IDX file, ``.npy`` or ``.npz``. Without a test
    split of its own, the last tenth is the test split and the tenth before it is validation. Raises InputError.
    """
    if name == "auto":
        try:
            return mnist()
        except InputError as error:
            print(f"inkfill: no MNIST: {error}\ninkfill: USING THE BUILT-IN 'rendered' DIGITS INSTEAD", file=sys.stderr)
            return rendered()
    if name == "mnist":
        return mnist()
    if name == "rendered":
        return rendered()
    path = Path(name)
    if not path.exists():
        raise InputError(f"unknown data {name!r}: give auto, mnist, rendered, or the path of a file or folder")
    dataset = _idx_folder(path) if path.is_dir() else None
    if dataset is None:
        images = read_images(path)
        if len(images) < 10:
            raise InputError(f"{path}: {len(images)} images; at least 10 are needed to hold some out")
        tenth = len(images) // 10
        order = np.random.Generator(np.random.Philox(0)).permutation(len(images))
        images = images[order]
        splits = images[: -2 * tenth], images[-2 * tenth : -tenth], images[-tenth:]
        dataset = Dataset(path.stem, *splits, {})
    check_size(dataset.train, str(path))
    return dataset
