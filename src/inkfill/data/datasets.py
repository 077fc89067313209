"""Data sets by name or path: MNIST as published, the built-in digits, and images of users in files and folders.

A new named data set is one function in ``DATASETS``.
"""

import hashlib
import http.client
import os
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np

from inkfill.data import incomplete
from inkfill.data.dataset import Dataset
from inkfill.data.images import Images, channels_of, size_words, with_channels, without_hidden_colour
from inkfill.data.readers import read_idx, read_images, stacked
from inkfill.data.rendered import rendered
from inkfill.errors import InputError, reason, remark
from inkfill.files import written_whole

MNIST_FILES = {  # name: published MD5
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
TIMEOUT = 4.0  # seconds without an answer
MAX_DOWNLOAD = 2**24  # bytes; the largest of the four files has 9.9 million
MIN_OF_A_SIZE = 16  # images; sizes with fewer are cut into tiles
MAX_WHOLE = 128  # pixels a side; larger images are cut into tiles for training, and filled in windows
VALIDATION = 5000  # the last digits of MNIST's training file


def cache_dir() -> Path:
    """The folder of downloads: ``$XDG_CACHE_HOME/inkfill`` or ``~/.cache/inkfill``. Raises InputError without one."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inkfill"
    except RuntimeError:
        raise InputError("MNIST: no home folder for the cache: set $XDG_CACHE_HOME or $INKFILL_DATA") from None


def _intact(path: Path, md5: str) -> bool:
    """Whether a file has the published bytes; a file with other bytes is named in a notice."""
    try:
        body = path.read_bytes()
    except OSError:
        return False
    good = hashlib.md5(body, usedforsecurity=False).hexdigest() == md5
    if not good:
        remark(f"{path} is truncated or altered (its MD5 differs from the published one): not used")
    return good


def download(name: str, folder: Path, mirrors: tuple[str, ...] = MIRRORS) -> Path:
    """Fetch one MNIST file into ``folder``, where it is whole or not there. Raises InputError."""
    problems = []
    for mirror in mirrors:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with urllib.request.urlopen(mirror + name, timeout=TIMEOUT) as answer:
                body = answer.read(MAX_DOWNLOAD)
            if hashlib.md5(body, usedforsecurity=False).hexdigest() != MNIST_FILES[name]:
                raise ValueError("wrong bytes")
            with written_whole(folder / name) as temporary:
                temporary.write_bytes(body)
            return folder / name
        except (OSError, http.client.HTTPException, ValueError) as error:
            problems.append(f"{mirror}: {reason(error)}")
    raise InputError(f"{name}: could not be downloaded ({'; '.join(problems)}): put the MNIST files into $INKFILL_DATA")


def find_mnist(mirrors: tuple[str, ...] = MIRRORS) -> dict[str, Path]:
    """The four files by name: from ``$INKFILL_DATA``, then the cache, then a download. Raises InputError."""
    given = os.environ.get("INKFILL_DATA")
    found = {}
    for name, md5 in MNIST_FILES.items():
        if given and _intact(Path(given, name), md5):
            found[name] = Path(given, name)
            continue
        cached = cache_dir() / name
        found[name] = cached if _intact(cached, md5) else download(name, cache_dir(), mirrors)
    return found


def mnist() -> Dataset:
    """MNIST: train 55,000, validation the last 5,000 of the training file, test 10,000. Raises InputError."""
    train, train_labels, test, test_labels = (read_idx(path) for path in find_mnist().values())
    cut = len(train) - VALIDATION
    labels = {"train": train_labels[:cut], "validation": train_labels[cut:], "test": test_labels}
    return Dataset("mnist", train[:cut], train[cut:], test, labels)


def auto() -> Dataset:
    """MNIST; the rendered digits, with a notice, where MNIST cannot be had."""
    try:
        return mnist()
    except InputError as error:
        remark(f"no MNIST: {error}: USING THE BUILT-IN 'rendered' DIGITS INSTEAD")
        return rendered()


DATASETS: dict[str, Callable[[], Dataset]] = {"auto": auto, "mnist": mnist, "rendered": rendered}


def check_name(name: str) -> None:
    """Raise InputError for an unknown data set, without reading any."""
    if name not in DATASETS and not Path(name).exists():
        raise InputError(f"--data {name}: no such data: give {', '.join(DATASETS)}, or the path of a file or folder")


def load(name: str = "auto", data_mask: str = "", seed: int = 0) -> Dataset:
    """A data set by name: ``auto`` (MNIST, else ``rendered`` with a notice), ``mnist``, ``rendered``, or a path.

    A path is a folder with an IDX pair, a folder of images, an IDX file, ``.npy`` or ``.npz``. Without a test split of
    its own, the images are shuffled: the last tenth is the test split, the tenth before it validation.

    ``data_mask`` marks missing pixels, as ``masks.fit`` takes it; a spec is drawn with ``seed``. Missing pixels are
    replaced by local means (:func:`inkfill.data.incomplete.blurred`) before anything reads them, and marked in
    ``Dataset.holes``. Raises InputError.
    """
    if data_mask:
        return incomplete.load(load, split, name, data_mask, seed)
    check_name(name)
    if name in DATASETS:
        return DATASETS[name]()
    path = Path(name)
    return (_idx_folder(path) if path.is_dir() else None) or _split(path)


def _idx_folder(folder: Path) -> Dataset | None:
    """A folder like MNIST's (Fashion-MNIST, KMNIST, EMNIST): ``*train*images*`` and ``*(t10k|test)*images*``."""

    def one(kind: str, *splits: str) -> Path | None:
        files = [path for path in sorted(folder.iterdir()) if path.is_file() and kind in path.name.lower()]
        return next((path for split in splits for path in files if split in path.name.lower()), None)

    train, test = one("images", "train"), one("images", "t10k", "test")
    if train is None or test is None:
        return None
    images, held_out = uniform(read_images(train)), uniform(read_images(test))
    if images.shape[1:] != held_out.shape[1:]:
        sizes = f"{size_words(images)} for training, {size_words(held_out)} for testing"
        raise InputError(f"{folder}: images of {sizes}: use one size")
    labels = {}
    cut = len(images) - min(VALIDATION, len(images) // 10)
    train, test = one("labels", "train"), one("labels", "t10k", "test")
    if train and test:
        first, second = read_idx(train), read_idx(test)
        if (first.shape, second.shape) != ((len(images),), (len(held_out),)):
            raise InputError(f"{folder}: label files need one label for each image")
        labels = {"train": first[:cut], "validation": first[cut:], "test": second}
    return Dataset(folder.name, images[:cut], images[cut:], held_out, labels)


def _split(path: Path) -> Dataset:
    """The images of one file or folder, split at random. Raises InputError."""
    images = read_images(path)
    if len(images) < 10:
        raise InputError(f"{path}: {len(images)} images: give at least 10, so that some can be held out")
    if isinstance(images, list):
        images = [without_hidden_colour(image[None])[0] for image in of_one_kind(images)]
    else:
        images = without_hidden_colour(images)
    groups, validation, test = split(images)
    if len(groups) > 1:
        remark(f"images of several sizes: {', '.join(f'{len(each):,} of {size_words(each)}' for each in groups)}")
    return Dataset(path.stem, groups[0], validation, test, {}, tuple(groups[1:]))


def split(images: Images | list[Images]) -> incomplete.Parts:
    """The images of one file or folder, or their masks, split at random.

    Gives the training images, an array per size, and the validation and test images.
    """
    tenth = len(images) // 10
    order = incomplete.order_of(len(images))
    if not isinstance(images, list):
        mixed = images[order]
        return [mixed[: -2 * tenth]], mixed[-2 * tenth : -tenth], mixed[-tenth:]
    shuffled = [images[i] for i in order]
    groups = by_size(shuffled[: -2 * tenth])
    held_out = shuffled[-2 * tenth : -tenth], shuffled[-tenth:]
    size = groups[0].shape[1:]  # held-out images have the most frequent size
    same = [[image for image in part if image.shape == size] or part for part in held_out]
    validation, test = (uniform(stacked(part)) for part in same)
    return groups, validation, test


def by_size(images: list[Images]) -> list[Images]:
    """Images ``[H, W]`` or ``[H, W, C]`` of one kind as arrays, one per size, the largest array first.

    Images of a rare size (``MIN_OF_A_SIZE``) or a large one (``MAX_WHOLE``) are cut into tiles (:func:`uniform`).
    """
    sizes: dict[tuple[int, ...], list[Images]] = {}
    for image in images:
        sizes.setdefault(image.shape[:2], []).append(image)
    whole = [size for size, each in sizes.items() if len(each) >= MIN_OF_A_SIZE and max(size) <= MAX_WHOLE]
    groups = {size: np.stack(sizes[size]) for size in whole}
    if rest := [image for image in images if image.shape[:2] not in whole]:
        tiles = uniform(rest)
        size = tiles.shape[1:3]
        groups[size] = np.concatenate([groups[size], tiles]) if size in groups else tiles
    return sorted(groups.values(), key=len, reverse=True)


def uniform(images: Images | list[Images]) -> Images:
    """Images of any sizes and channels as one array ``[N, H, W]`` or ``[N, H, W, C]``.

    Images of several sizes are cut into overlapping tiles of the least height and width, ``MAX_WHOLE`` at most. Grey
    images among colour ones become colour, images without alpha opaque.
    """
    if not isinstance(images, list):
        return images
    height, width = (min(MAX_WHOLE, *(image.shape[axis] for image in images)) for axis in (0, 1))
    tiles = []
    for full in of_one_kind(images):
        tops, lefts = (
            np.linspace(0, side - part, -(-side // part)).round().astype(int)
            for side, part in zip(full.shape[:2], (height, width), strict=True)
        )
        tiles += [full[y : y + height, x : x + width] for y in tops for x in lefts]
    if len(tiles) > len(images):
        remark(f"images of several sizes: {len(images)} are cut into {len(tiles)} tiles of {height}x{width}")
    return np.stack(tiles)


def of_one_kind(images: list[Images]) -> list[Images]:
    """Images with the channels that any of them has. Raises InputError for several dtypes."""
    if len({image.dtype for image in images}) > 1:
        raise InputError("some images have 8 bits and some 16: use one dtype")
    channels = {channels_of(image[None]) for image in images}
    colour, alpha = bool(channels & {3, 4}), bool(channels & {2, 4})
    return [with_channels(image, colour, alpha) for image in images]
