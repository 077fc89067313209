"""Files in: what is accepted, and that everything else is refused in one line."""

import contextlib
import gzip
import http.server
import os
import socket
import struct
import threading
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inkfill import data
from inkfill.data import datasets, readers
from inkfill.data.masks import read_mask
from inkfill.errors import InputError

HAVE_MNIST = bool(os.environ.get("INKFILL_DATA")) and Path(os.environ["INKFILL_DATA"]).is_dir()
needs_mnist = pytest.mark.skipif(not HAVE_MNIST, reason="no MNIST: set INKFILL_DATA")


def idx(shape=(3, 28, 28), kind=8, body=None, extra=b"") -> bytes:
    body = bytes(int(np.prod(shape))) if body is None else body
    return bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + body + extra


def refused(call, *words):
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


def test_x0_and_back_is_exact():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    x0 = data.to_x0(images)
    assert x0.shape == (1, 1, 16, 16)
    assert x0.min() == -1
    assert x0.max() == 1
    np.testing.assert_array_equal(data.to_uint8(x0), images)
    np.testing.assert_array_equal(data.to_uint8(x0 * 300), np.where(images < 128, 0, 255))  # clipped


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
        (idx()[:10], "header"),
        (idx()[:-1], "cut off"),
        (idx(extra=b"x"), "longer"),
        (idx((0, 28, 28)), "empty"),
        (idx((2**32 - 1, 1024, 1024), body=b""), "more than inkfill reads"),
        (idx((1, 20_000, 5000), body=b""), "more than inkfill reads"),
        (idx((1, 5000, 5000), body=b""), "cut off"),
        (gzip.compress(idx(), mtime=0)[:-20], "cannot be read"),
        (gzip.compress(idx(), mtime=0)[:-8] + b"\0" * 8, "cannot be read"),
        (b"\x1f\x8b garbage", "cannot be read"),
    ],
)
def test_a_wrong_idx_is_refused(tmp_path, content, word):
    path = tmp_path / "file"
    path.write_bytes(content)
    refused(lambda: readers.read_idx(path), str(path), word)


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    """200 MB of zeros behind a header that announces three digits: refused after reading just past them."""
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(idx())
        for _ in range(200):
            file.write(bytes(1 << 20))
    assert peak(lambda: refused(lambda: readers.read_idx(path), "longer")) < 5
    read, before = [], gzip.GzipFile.read

    def counted(self, size=-1):
        read.append(size)
        return before(self, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gzip.GzipFile, "read", counted)
        refused(lambda: readers.read_idx(path), "longer")
    assert all(size >= 0 for size in read)
    assert sum(read) < 10_000


# ---- MNIST: folder, cache, download ----------------------------------------------------------------------------------


@needs_mnist
def test_the_real_thing():
    mnist = data.load("mnist")
    assert (len(mnist.train), len(mnist.validation), len(mnist.test)) == (55_000, 5_000, 10_000)
    assert mnist.labels["test"][:5].tolist() == [7, 2, 1, 0, 4]
    assert mnist.labels["validation"].shape == (5_000,)
    assert mnist.name == "mnist"


class Mirror:
    """A web server on this machine that serves ``files`` and counts requests."""

    def __init__(self, files: dict[str, bytes]):
        self.asked: list[str] = []
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.lstrip("/")
                mirror.asked.append(name)
                body = files.get(name)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"


@pytest.fixture
def published(monkeypatch, tmp_path):
    """Four small files in place of MNIST's, with their own checksums, and an empty cache."""
    import hashlib

    files = datasets.MNIST_FILES
    bodies = {name: gzip.compress(idx((30, 28, 28) if "idx3" in name else (30,)), mtime=0) for name in files}
    sums = {name: hashlib.md5(body).hexdigest() for name, body in bodies.items()}
    monkeypatch.setattr(datasets, "MNIST_FILES", sums)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("INKFILL_DATA", raising=False)
    return bodies


def test_download_from_the_second_mirror_once(published):
    empty, good = Mirror({}), Mirror(published)
    found = datasets.find_mnist((empty.url, good.url))
    assert [p.read_bytes() for p in found.values()] == list(published.values())
    assert sorted(p.name for p in datasets.cache_dir().iterdir()) == sorted(published)  # no temporary file is left
    datasets.find_mnist((empty.url, good.url))
    assert len(good.asked) == 4


def test_an_altered_file_is_named_and_fetched_again(published, caplog):
    good = Mirror(published)
    datasets.find_mnist((good.url,))
    name = "t10k-images-idx3-ubyte.gz"
    (datasets.cache_dir() / name).write_bytes(published[name][:-3])
    found = datasets.find_mnist((good.url,))
    assert found[name].read_bytes() == published[name]
    assert name in caplog.text
    assert good.asked.count(name) == 2


def test_wrong_bytes_from_a_mirror_are_never_kept(published):
    bad = Mirror({name: body + b"x" for name, body in published.items()})
    refused(lambda: datasets.find_mnist((bad.url,)), "wrong bytes", "INKFILL_DATA")
    assert list(datasets.cache_dir().iterdir()) == []


def test_the_folder_of_the_user_comes_first(published, monkeypatch, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, body in published.items():
        (folder / name).write_bytes(body)
    monkeypatch.setenv("INKFILL_DATA", str(folder))
    assert {p.parent for p in datasets.find_mnist(()).values()} == {folder}


def test_without_a_network_the_fall_back_is_quick_and_loud(published, monkeypatch, caplog):
    monkeypatch.setattr(datasets.find_mnist, "__defaults__", (("http://127.0.0.1:9/",),))
    began = time.perf_counter()
    assert data.load("auto").name == "rendered"
    assert time.perf_counter() - began < 30
    assert "rendered" in caplog.text
    refused(lambda: data.load("mnist"), "could not be downloaded")


# ---- the built-in default --------------------------------------------------------------------------------------------


def test_rendered_digits_are_deterministic_centred_and_labelled():
    first, again, other = data.rendered(200, 20, 20), data.rendered(200, 20, 20), data.rendered(200, 20, 20, seed=1)
    np.testing.assert_array_equal(first.train, again.train)
    assert (first.train != other.train).any()
    assert first.train.shape == (200, 28, 28)
    assert first.train.dtype == np.uint8
    assert set(first.labels["train"]) == set(range(10))
    mass = first.train.astype(float)
    centre = (mass.sum(1) * (np.arange(28) + 0.5)).sum(1) / mass.sum((1, 2))
    assert np.abs(centre - 14).max() < 1.5
    assert 0.05 < (first.train > 127).mean() < 0.25  # about as much ink as MNIST (0.13)
    assert first.train[:, [0, -1]].max() < 255  # nothing runs off the edge at full strength


# ---- anybody's images ------------------------------------------------------------------------------------------------


def save(path: Path, array: np.ndarray, mode: str | None = None) -> Path:
    Image.fromarray(array, mode).save(path) if mode is None else Image.fromarray(array).convert(mode).save(path)
    return path


GREY = np.arange(28 * 28, dtype=np.uint32).reshape(28, 28).astype(np.uint8)


def test_pictures(tmp_path):
    np.testing.assert_array_equal(data.read_images(save(tmp_path / "a.png", GREY))[0], GREY)
    np.testing.assert_array_equal(data.read_images(save(tmp_path / "b.png", GREY, "RGB"))[0], GREY)
    np.testing.assert_array_equal(data.read_images(save(tmp_path / "c.png", GREY, "RGBA"))[0], GREY)
    assert data.read_images(tmp_path).shape == (3, 28, 28)


def test_wrong_pictures_are_refused(tmp_path):
    save(tmp_path / "colour.png", np.stack([GREY, GREY, 255 - GREY], -1))
    (tmp_path / "broken.png").write_bytes((tmp_path / "colour.png").read_bytes()[:90])
    refused(lambda: readers.read_picture(tmp_path / "broken.png"), "broken.png")
    (tmp_path / "text.png").write_text("hello")
    refused(lambda: readers.read_picture(tmp_path / "text.png"), "not a readable picture")
    refused(lambda: readers.read_picture(tmp_path / "none.png"), "no such file")
    small = save(tmp_path / "small.png", GREY[:7])
    refused(lambda: data.read_images(small), "7x28", "at least 8")
    (tmp_path / "empty").mkdir()
    refused(lambda: data.read_images(tmp_path / "empty"), "no pictures")


@pytest.mark.parametrize(
    ("array", "word"),
    [
        (np.full((2, 28, 28), np.inf), "infinite"),
        (np.ones((2, 28, 28), complex), "complex"),
        (np.array([["a"]]), "values"),
        (np.zeros((2, 3, 28, 28), np.uint8), "moveaxis"),
        (np.zeros((2, 28, 28, 5), np.uint8), "at most 4 channels"),
        (np.zeros((2, 28, 7), np.uint8), "at least 8"),
        (np.zeros(28, np.uint8), "shape"),
        (np.zeros((0, 28, 28), np.uint8), "empty"),
        (np.zeros((1, 8, 20_000), np.uint8), "more than inkfill reads"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path, array, word):
    np.save(tmp_path / "a.npy", array)
    refused(lambda: data.read_images(tmp_path / "a.npy"), "a.npy", word)


def test_arrays(tmp_path):
    images = np.stack([GREY, 255 - GREY])
    np.save(tmp_path / "a.npy", images)
    np.savez(tmp_path / "b.npz", images=images, labels=np.zeros(2))
    np.save(tmp_path / "c.npy", images.astype(np.int64)[:, None])
    for name in ("a.npy", "b.npz", "c.npy"):
        np.testing.assert_array_equal(data.read_images(tmp_path / name), images)
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    refused(lambda: data.read_images(tmp_path / "pickle.npy"), "pickle.npy")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:300])
    refused(lambda: data.read_images(tmp_path / "cut.npy"), "cut.npy")


def test_data_sets_by_path(tmp_path):
    refused(lambda: data.load("emnist"), "auto, mnist, rendered")
    images = np.random.default_rng(0).integers(0, 256, (50, 32, 32), dtype=np.uint8)
    np.save(tmp_path / "mine.npy", images)
    mine = data.load(str(tmp_path / "mine.npy"))
    assert (len(mine.train), len(mine.validation), len(mine.test)) == (40, 5, 5)
    everything = np.concatenate([mine.train, mine.validation, mine.test])
    assert sorted(i.tobytes() for i in everything) == sorted(i.tobytes() for i in images)
    np.save(tmp_path / "few.npy", images[:9])
    refused(lambda: data.load(str(tmp_path / "few.npy")), "at least 10")
    np.save(tmp_path / "odd.npy", images[:, :30, :29])
    assert data.load(str(tmp_path / "odd.npy")).train.shape == (40, 30, 29)

    pair = tmp_path / "fashion"
    pair.mkdir()
    for name, shape in {
        "train-images-idx3-ubyte.gz": (40, 28, 28), "train-labels-idx1-ubyte.gz": (40,),
        "t10k-images-idx3-ubyte.gz": (20, 28, 28), "t10k-labels-idx1-ubyte.gz": (20,),
    }.items():  # fmt: skip
        (pair / name).write_bytes(gzip.compress(idx(shape), mtime=0))
    fashion = data.load(str(pair))
    assert (fashion.name, len(fashion.train), len(fashion.validation), len(fashion.test)) == ("fashion", 36, 4, 20)
    assert len(fashion.labels["train"]) == 36
    (pair / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx((19,))))
    refused(lambda: data.load(str(pair)), "one label for each")


# ---- hostile files ---------------------------------------------------------------------------------------------------


def test_a_picture_cannot_start_a_program(tmp_path):
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
        refused(lambda: readers.read_picture(tmp_path / "photo.png"), "not a readable picture")
    assert opened
    assert all(formats and "EPS" not in formats for formats in opened)
    assert not marker.exists()


def test_only_readers_open_pictures():
    """One door: no other module of the package opens a picture."""
    source = Path(data.__file__).parent.parent
    places = [path.name for path in source.rglob("*.py") if "Image.open(" in path.read_text()]
    assert places == ["readers.py"]


def test_a_huge_picture_is_refused_before_it_is_decoded(tmp_path, monkeypatch, recwarn):
    Image.new("L", (13_300, 13_300)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda *_: pytest.fail("decoded"))
    refused(lambda: readers.read_picture(tmp_path / "huge.png"), "13300x13300")
    assert not recwarn.list


def peak(call) -> float:
    """Most memory that Python and numpy held during a call, MB."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


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
    small["thin.idx.gz"] = "cut off"
    for name, word in small.items():
        assert peak(lambda name=name, word=word: refused(lambda: data.read_images(tmp_path / name), word)) < 5
    raw = (tmp_path / "lies.npz").read_bytes()  # the archive's own word for the size of what it holds
    size = struct.pack("<I", 1128)
    with zipfile.ZipFile(tmp_path / "lies.npz") as archive:
        size = struct.pack("<I", archive.infolist()[0].file_size)
    (tmp_path / "large.npz").write_bytes(raw.replace(size, struct.pack("<I", big - 1)))
    refused(lambda: data.read_images(tmp_path / "large.npz"), "more than inkfill reads")


def test_seeds_of_hostile_files(hostile):
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


def test_transparency_and_colour_spaces_are_never_dropped_silently(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "clear.png", transparency=int(GREY[0, 0]))
    clear = readers.read_picture(tmp_path / "clear.png")
    assert clear.shape == (28, 28, 2)
    np.testing.assert_array_equal(clear[..., 0], GREY)
    np.testing.assert_array_equal(clear[..., 1] == 0, GREY[0, 0] == GREY)
    Image.fromarray(np.stack([GREY] * 4, -1), "CMYK").save(tmp_path / "print.tif")
    refused(lambda: readers.read_picture(tmp_path / "print.tif"), "CMYK")


def test_what_is_being_written_is_no_picture_yet(tmp_path):
    save(tmp_path / "a.png", GREY)
    save(tmp_path / ".unfinished-00000_00-abc.png", GREY)
    assert data.read_images(tmp_path).shape == (1, 28, 28)


# ---- a network that does not keep its word ---------------------------------------------------------------------------


def test_a_mirror_cannot_send_without_end(published, monkeypatch):
    monkeypatch.setattr(datasets, "MAX_DOWNLOAD", 1000)
    endless = Mirror({name: bytes(100_000) for name in published})
    refused(lambda: datasets.find_mnist((endless.url,)), "more than 1,000 bytes")
    assert list(datasets.cache_dir().iterdir()) == []


def test_a_slow_mirror_has_a_deadline(published, monkeypatch):
    monkeypatch.setattr(datasets, "DEADLINE", 0.0)
    slow = Mirror(published)
    refused(lambda: datasets.find_mnist((slow.url,)), "not there after")


def test_a_mirror_that_speaks_no_http(published):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            for _ in range(4):
                connection, _ = server.accept()
                connection.recv(1000)
                connection.sendall(b"what?\r\n\r\n")
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        refused(lambda: datasets.find_mnist((f"http://127.0.0.1:{server.getsockname()[1]}/",)), "could not be")


def test_no_home_is_no_traceback(published, monkeypatch, tmp_path):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    refused(lambda: datasets.find_mnist(()), "INKFILL_DATA")
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, body in published.items():
        (folder / name).write_bytes(body)
    monkeypatch.setenv("INKFILL_DATA", str(folder))
    assert len(datasets.find_mnist(())) == 4


def test_images_are_hashed_once(digits, monkeypatch):
    from inkfill.data import dataset as module

    calls = []
    monkeypatch.setattr(module, "array_hash", lambda array: calls.append(1) or "x")
    found = data.Dataset("x", digits, digits, digits, {})
    assert found.fingerprint == found.fingerprint == "x"
    assert calls == [1]


# ---- whatever holds images -------------------------------------------------------------------------------------------


def test_images_come_in_many_forms():
    images = np.stack([GREY, 255 - GREY])
    for given in (
        torch.from_numpy(images),
        torch.from_numpy(images)[:, None],
        list(images),
        [images[:1], images[1:]],
        [Image.fromarray(image) for image in images],
        [Image.fromarray(images[0]), torch.from_numpy(images[1])],
        images.tolist(),
    ):
        np.testing.assert_array_equal(data.as_images(given), images)
    np.testing.assert_array_equal(data.as_images(Image.fromarray(GREY)), GREY[None])
    refused(lambda: data.as_images([]), "empty")
    refused(lambda: data.as_images([GREY, GREY[:, :20]]), "use one size")
    refused(lambda: data.as_images(Image.fromarray(GREY).convert("HSV")), "HSV")
    refused(lambda: data.as_images("words"), "values")
    refused(lambda: data.as_images([[1, 2], [3]]), "images")


def test_a_picture_that_announces_gigabytes_takes_none(tmp_path, digits):
    """A PNG whose data are said to be 2 GiB long, in some hundred bytes."""
    path = tmp_path / "lies.png"
    Image.fromarray(digits[0]).save(path)
    body = bytearray(path.read_bytes())
    at = body.index(b"IDAT")
    body[at - 4 : at] = (2**31 - 1).to_bytes(4, "big")
    path.write_bytes(body)
    assert peak(lambda: readers.read_images(path)) < 16  # the data are whole: it can be read
