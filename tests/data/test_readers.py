"""Readers: formats that are accepted, and one-line errors for everything else."""

import contextlib
import gzip
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import idx, images_of, must_refuse
from inkfill import data
from inkfill.data import readers
from inkfill.data.masks import read_mask
from inkfill.errors import InputError

GREY = np.arange(28 * 28, dtype=np.uint32).reshape(28, 28).astype(np.uint8)


def save(path: Path, array: np.ndarray, mode: str = "") -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)
    return path


def peak(call) -> float:
    """Most memory that Python and numpy held during a call, MB."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


# ---- IDX -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_round_trip(tmp_path, zipped):
    array = np.random.default_rng(0).integers(0, 256, (5, 32, 20), dtype=np.uint8)
    raw = idx(array.shape, body=array.tobytes())
    path = tmp_path / "images-idx3-ubyte"
    path.write_bytes(gzip.compress(raw, mtime=0) if zipped else raw)
    np.testing.assert_array_equal(readers.read_idx(path), array)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "not an IDX"),
        (b"\x89PNG....", "not an IDX"),
        (idx(kind=0x0D), "0x0d"),
        (idx((2, 3)), "2 dimensions"),
        (idx((2, 3, 4, 5)), "4 dimensions"),
        (idx()[:10], "truncated header"),
        (idx()[:-1], "truncated"),
        (idx(extra=b"x"), "longer"),
        (idx((0, 28, 28)), "empty"),
        (idx((2**32 - 1, 1024, 1024), body=b""), "more than inkfill reads"),
        (idx((1, 20_000, 5000), body=b""), "more than inkfill reads"),
        (idx((1, 5000, 5000), body=b""), "truncated"),
        (gzip.compress(idx(), mtime=0)[:-20], "not a readable IDX file"),
        (gzip.compress(idx(), mtime=0)[:-8] + b"\0" * 8, "not a readable IDX file"),
        (b"\x1f\x8b garbage", "not a readable IDX file"),
    ],
)
def test_a_broken_idx_file_is_refused(tmp_path, content, word):
    path = tmp_path / "file"
    path.write_bytes(content)
    must_refuse(lambda: readers.read_idx(path), str(path), word)


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    """200 MB of zeros behind a header that announces three digits: refused after reading just past them."""
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(idx())
        for _ in range(200):
            file.write(bytes(1 << 20))
    assert peak(lambda: must_refuse(lambda: readers.read_idx(path), "longer")) < 5
    read, before = [], gzip.GzipFile.read

    def counted(self, size=-1):
        read.append(size)
        return before(self, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gzip.GzipFile, "read", counted)
        must_refuse(lambda: readers.read_idx(path), "longer")
    assert all(size >= 0 for size in read)
    assert sum(read) < 10_000


# ---- numpy -----------------------------------------------------------------------------------------------------------


def test_numpy_files(tmp_path):
    images = np.stack([GREY, 255 - GREY])
    np.save(tmp_path / "a.npy", images)
    np.savez(tmp_path / "b.npz", images=images, labels=np.zeros(2))
    np.save(tmp_path / "c.npy", images.astype(np.int64)[:, None])
    for name in ("a.npy", "b.npz", "c.npy"):
        np.testing.assert_array_equal(data.read_images(tmp_path / name), images)
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    must_refuse(lambda: data.read_images(tmp_path / "pickle.npy"), "pickle.npy")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:300])
    must_refuse(lambda: data.read_images(tmp_path / "cut.npy"), "cut.npy")


@pytest.mark.parametrize(
    ("array", "word"),
    [
        (np.full((2, 28, 28), np.inf), "infinite"),
        (np.ones((2, 28, 28), complex), "complex"),
        (np.array([["a"]]), "not supported"),
        (np.zeros((2, 3, 28, 28), np.uint8), "moveaxis"),
        (np.zeros((2, 28, 28, 33), np.uint8), "at most 32 channels"),
        (np.zeros((2, 28, 7), np.uint8), "at least 8"),
        (np.zeros(28, np.uint8), "shape"),
        (np.zeros((0, 28, 28), np.uint8), "empty"),
        (np.zeros((1, 8, 20_000), np.uint8), "more than inkfill reads"),
    ],
)
def test_arrays_that_are_no_images_are_refused(tmp_path, array, word):
    np.save(tmp_path / "a.npy", array)
    must_refuse(lambda: data.read_images(tmp_path / "a.npy"), "a.npy", word)


# ---- image files -----------------------------------------------------------------------------------------------------


def test_image_files(tmp_path):
    np.testing.assert_array_equal(data.read_images(save(tmp_path / "a.png", GREY))[0], GREY)
    np.testing.assert_array_equal(data.read_images(save(tmp_path / "b.png", GREY, "RGB"))[0], GREY)
    np.testing.assert_array_equal(data.read_images(save(tmp_path / "c.png", GREY, "RGBA"))[0], GREY)
    assert data.read_images(tmp_path).shape == (3, 28, 28)


def test_broken_image_files_are_refused(tmp_path):
    save(tmp_path / "colour.png", np.stack([GREY, GREY, 255 - GREY], -1))
    (tmp_path / "broken.png").write_bytes((tmp_path / "colour.png").read_bytes()[:90])
    must_refuse(lambda: readers.read_frames(tmp_path / "broken.png")[0], "broken.png")
    (tmp_path / "text.png").write_text("hello")
    must_refuse(lambda: readers.read_frames(tmp_path / "text.png")[0], "not a readable image")
    must_refuse(lambda: readers.read_frames(tmp_path / "none.png")[0], "no such file")
    small = save(tmp_path / "small.png", GREY[:7])
    must_refuse(lambda: data.read_images(small), "7x28", "at least 8")
    (tmp_path / "empty").mkdir()
    must_refuse(lambda: data.read_images(tmp_path / "empty"), "no images")


def test_image_files_of_many_formats(tmp_path):
    grey, colour = images_of("uint8", (12, 14)), images_of("uint8", (12, 14, 3))
    sixteen = images_of("uint16", (12, 14))
    alpha = np.dstack([colour, np.where(colour[..., :1] > 99, 255, 0).astype(np.uint8)])
    for name, array in (("grey", grey), ("colour", colour), ("deep", sixteen), ("alpha", alpha)):
        found = readers.read_frames(save(tmp_path / f"{name}.png", array))[0]
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype
    np.testing.assert_array_equal(readers.read_frames(save(tmp_path / "deep.tif", sixteen))[0], sixteen)
    for name in ("grey.bmp", "grey.gif", "grey.tiff", "grey.webp"):
        Image.fromarray(grey).save(tmp_path / name, **({"lossless": True} if "webp" in name else {}))
        np.testing.assert_array_equal(readers.read_frames(tmp_path / name)[0], grey)
    smooth = np.linspace(0, 255, 14 * 16).reshape(14, 16).astype(np.uint8)
    Image.fromarray(np.dstack([smooth] * 3)).save(tmp_path / "grey.jpg", quality=80)
    assert readers.read_frames(tmp_path / "grey.jpg")[0].ndim == 2  # grey up to the chroma errors of JPEG
    frames = [Image.fromarray(frame) for frame in images_of("uint8", (3, 12, 14))]
    for name in ("pages.tif", "moving.gif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert len(readers.read_frames(tmp_path / name)) == 3
        assert data.read_images(tmp_path / name).shape == (3, 12, 14)


def test_colour_with_16_bits_is_refused(tmp_path):
    """Pillow would read 8 of the bits without a notice."""
    import zlib

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + bytes(6 * 10) for _ in range(10))
    head = struct.pack(">IIBBBBB", 10, 10, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    must_refuse(lambda: readers.read_frames(tmp_path / "deep.png")[0], "16 bits")


def test_transparency_is_kept_and_other_colour_spaces_are_refused(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "clear.png", transparency=int(GREY[0, 0]))
    clear = readers.read_frames(tmp_path / "clear.png")[0]
    assert clear.shape == (28, 28, 2)
    np.testing.assert_array_equal(clear[..., 0], GREY)
    np.testing.assert_array_equal(clear[..., 1] == 0, GREY[0, 0] == GREY)
    Image.fromarray(np.stack([GREY] * 4, -1), "CMYK").save(tmp_path / "print.tif")
    must_refuse(lambda: readers.read_frames(tmp_path / "print.tif")[0], "CMYK")


def test_images_are_turned_upright_by_their_exif_data(tmp_path):
    pixels = np.arange(8 * 12, dtype=np.uint8).reshape(8, 12)
    exif = Image.Exif()
    exif[readers.ORIENTATION] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(readers.read_frames(tmp_path / "a.png")[0], np.rot90(pixels, -1))
    exif[readers.ORIENTATION] = 77  # no orientation
    Image.fromarray(pixels).save(tmp_path / "b.png", exif=exif)
    np.testing.assert_array_equal(readers.read_frames(tmp_path / "b.png")[0], pixels)


def test_frames_and_files_of_one_name_are_refused(tmp_path):
    frames = [Image.fromarray(frame) for frame in images_of("uint8", (2, 12, 12))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "a-0.png")
    must_refuse(lambda: readers.read_pictures([tmp_path / "a-0.png", tmp_path / "a.gif"]), "two images are called a-0")
    frames[0].save(tmp_path / "a.png")
    must_refuse(lambda: readers.picture_files(tmp_path), "two images are called a")


def test_unfinished_files_are_not_images(tmp_path):
    save(tmp_path / "a.png", GREY)
    save(tmp_path / ".unfinished-00000_00-abc.png", GREY)
    assert data.read_images(tmp_path).shape == (1, 28, 28)


# ---- hostile files ---------------------------------------------------------------------------------------------------


def test_an_image_file_cannot_start_a_program(tmp_path):
    """PostScript under a picture's name would run Ghostscript, if Pillow were left to guess the format."""
    marker = tmp_path / "ran"
    script = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\n({marker}) (w) file closefile\nshowpage\n"
    (tmp_path / "photo.png").write_text(script)
    opened = []
    before = Image.open

    def watched(*arguments, **named):
        opened.append(named.get("formats"))
        return before(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "open", watched)
        must_refuse(lambda: readers.read_frames(tmp_path / "photo.png")[0], "not a readable image")
    assert opened
    assert all(formats and "EPS" not in formats for formats in opened)
    assert not marker.exists()


def test_only_readers_open_image_files():
    """One door: no other module of the package opens a picture."""
    source = Path(data.__file__).parent.parent
    places = [path.name for path in source.rglob("*.py") if "Image.open(" in path.read_text()]
    assert places == ["readers.py"]


def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path, monkeypatch, recwarn):
    Image.new("L", (13_300, 13_300)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda *_: pytest.fail("decoded"))
    must_refuse(lambda: readers.read_frames(tmp_path / "huge.png")[0], "13300x13300")
    assert not recwarn.list


def test_a_png_that_announces_gigabytes_takes_none(tmp_path, digits):
    """A PNG whose data are said to be 2 GiB long, in some hundred bytes."""
    path = tmp_path / "lies.png"
    Image.fromarray(digits[0]).save(path)
    body = bytearray(path.read_bytes())
    at = body.index(b"IDAT")
    body[at - 4 : at] = (2**31 - 1).to_bytes(4, "big")
    path.write_bytes(body)
    assert peak(lambda: readers.read_images(path)) < 16  # the data are whole: it can be read


def test_compressed_bombs_are_refused_before_they_unpack(tmp_path):
    big = 2 * readers.MAX_BYTES
    with gzip.open(tmp_path / "bomb.idx.gz", "wb", compresslevel=1) as file:
        file.write(idx((big // 1024**2, 1024, 1024), body=b""))
    small = {"bomb.idx.gz": "more than inkfill reads"}
    with zipfile.ZipFile(tmp_path / "lies.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        header = np.lib.format.magic(1, 0)
        text = str({"descr": "|u1", "fortran_order": False, "shape": (2**40, 28, 28)}).encode() + b"\n"
        archive.writestr("images.npy", header + struct.pack("<H", len(text)) + text + bytes(1000))
    small["lies.npz"] = "more than the file holds"
    # Half of what a gzip header announces cannot come from so few bytes, whatever they are.
    (tmp_path / "thin.idx.gz").write_bytes(gzip.compress(idx((500_000, 28, 28), body=b""), mtime=0))
    small["thin.idx.gz"] = "truncated"
    for name, word in small.items():
        assert peak(lambda name=name, word=word: must_refuse(lambda: data.read_images(tmp_path / name), word)) < 5
    raw = (tmp_path / "lies.npz").read_bytes()  # the archive's own word for the size of what it holds
    size = struct.pack("<I", 1128)
    with zipfile.ZipFile(tmp_path / "lies.npz") as archive:
        size = struct.pack("<I", archive.infolist()[0].file_size)
    (tmp_path / "large.npz").write_bytes(raw.replace(size, struct.pack("<I", big - 1)))
    must_refuse(lambda: data.read_images(tmp_path / "large.npz"), "more than inkfill reads")


def test_hostile_files_are_read_or_refused(hostile):
    """Files that once raised something else: all of them are read, or refused in one line."""
    if not hostile:
        pytest.skip("no such files here")
    for path in hostile:
        with contextlib.suppress(InputError):
            read_mask(str(path)) if path.name.startswith("mask") else data.read_images(path)


@pytest.mark.parametrize("suffix", [".png", ".npy", ".npz", ".idx.gz"])
def test_mutated_files_are_read_or_refused(tmp_path, suffix):
    """300 random mutations of a valid file of each kind."""
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".png":
        save(whole, GREY)
    elif suffix == ".npy":
        np.save(whole, GREY[None])
    elif suffix == ".npz":
        np.savez_compressed(whole, images=GREY[None])
    else:
        whole.write_bytes(gzip.compress(idx(), mtime=0))
    body, rng, path = whole.read_bytes(), np.random.default_rng(0), tmp_path / f"mutated{suffix}"
    for _ in range(300):
        bytes_ = bytearray(body)
        for place in rng.integers(len(bytes_), size=rng.integers(1, 8)):
            bytes_[place] = rng.integers(256)
        path.write_bytes(bytes_[: rng.integers(1, len(bytes_) + 1)] if rng.random() < 0.3 else bytes_)
        with contextlib.suppress(InputError):
            data.read_images(path)
