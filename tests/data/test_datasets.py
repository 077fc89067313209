"""Data sets by name or path: MNIST, its download, folders of users, images of several sizes."""

import gzip
import hashlib
import http.client
import http.server
import logging
import os
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import idx, images_of, must_refuse
from inkfill import data
from inkfill.data import datasets
from inkfill.data.datasets import by_size, uniform

HAVE_MNIST = bool(os.environ.get("INKFILL_DATA")) and Path(os.environ["INKFILL_DATA"]).is_dir()
needs_mnist = pytest.mark.skipif(not HAVE_MNIST, reason="no MNIST: set INKFILL_DATA")


# ---- MNIST: folder, cache, download ----------------------------------------------------------------------------------


@needs_mnist
def test_mnist_has_its_published_splits():
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
    must_refuse(lambda: datasets.find_mnist((bad.url,)), "wrong bytes", "INKFILL_DATA")
    assert list(datasets.cache_dir().iterdir()) == []


def test_inkfill_data_comes_before_the_cache(published, monkeypatch, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, body in published.items():
        (folder / name).write_bytes(body)
    monkeypatch.setenv("INKFILL_DATA", str(folder))
    assert {p.parent for p in datasets.find_mnist(()).values()} == {folder}


def test_without_a_network_rendered_digits_replace_mnist_with_a_notice(published, monkeypatch, caplog):
    monkeypatch.setattr(datasets.find_mnist, "__defaults__", (("http://127.0.0.1:9/",),))
    began = time.perf_counter()
    assert data.load("auto").name == "rendered"
    assert time.perf_counter() - began < 30
    assert "rendered" in caplog.text
    must_refuse(lambda: data.load("mnist"), "could not be downloaded")


def test_an_endless_download_is_cut(published, monkeypatch):
    read, before = [], http.client.HTTPResponse.read

    def counted(answer, size=None):
        body = before(answer, size)
        read.append(len(body))
        return body

    monkeypatch.setattr(http.client.HTTPResponse, "read", counted)
    monkeypatch.setattr(datasets, "MAX_DOWNLOAD", 1000)
    endless = Mirror({name: bytes(100_000) for name in published})
    must_refuse(lambda: datasets.find_mnist((endless.url,)), "wrong bytes")
    assert sum(read) == 1000
    assert list(datasets.cache_dir().iterdir()) == []


def test_a_mirror_that_does_not_speak_http(published):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            for _ in range(4):
                connection, _ = server.accept()
                connection.recv(1000)
                connection.sendall(b"what?\r\n\r\n")
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        must_refuse(lambda: datasets.find_mnist((f"http://127.0.0.1:{server.getsockname()[1]}/",)), "could not be")


def test_without_a_home_folder_inkfill_data_is_enough(published, monkeypatch, tmp_path):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    must_refuse(lambda: datasets.find_mnist(()), "INKFILL_DATA")
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, body in published.items():
        (folder / name).write_bytes(body)
    monkeypatch.setenv("INKFILL_DATA", str(folder))
    assert len(datasets.find_mnist(())) == 4


# ---- images of users -------------------------------------------------------------------------------------------------


def test_data_sets_by_path(tmp_path):
    must_refuse(lambda: data.load("emnist"), "auto, mnist, rendered")
    images = np.random.default_rng(0).integers(0, 256, (50, 32, 32), dtype=np.uint8)
    np.save(tmp_path / "mine.npy", images)
    mine = data.load(str(tmp_path / "mine.npy"))
    assert (len(mine.train), len(mine.validation), len(mine.test)) == (40, 5, 5)
    everything = np.concatenate([mine.train, mine.validation, mine.test])
    assert sorted(i.tobytes() for i in everything) == sorted(i.tobytes() for i in images)
    np.save(tmp_path / "few.npy", images[:9])
    must_refuse(lambda: data.load(str(tmp_path / "few.npy")), "at least 10")
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
    must_refuse(lambda: data.load(str(pair)), "one label for each")


def test_images_are_hashed_once(digits, monkeypatch):
    from inkfill.data import dataset as module

    calls = []
    monkeypatch.setattr(module, "array_hash", lambda array: calls.append(1) or "x")
    found = data.Dataset("x", digits, digits, digits, {})
    assert found.fingerprint == found.fingerprint == "x"
    assert calls == [1]


def test_several_sizes_are_cut_into_tiles_of_one_kind(caplog):
    images = [images_of("uint8", (20, 24)), images_of("uint8", (16, 40, 3)), images_of("uint8", (33, 16, 4))]
    with caplog.at_level(logging.WARNING):
        tiles = uniform(images)
    assert tiles.shape[1:] == (16, 16, 4)
    assert len(tiles) == 2 * 2 + 1 * 3 + 3 * 1
    assert (tiles[:7, ..., 3] == 255).all()
    assert (tiles[:4, ..., 0] == tiles[:4, ..., 1]).all()
    assert "tiles of 16x16" in caplog.text


def test_tiles_of_large_images_have_128_pixels_a_side():
    tiles = uniform([np.zeros((150, 150), np.uint8), np.zeros((140, 160), np.uint8)])
    assert tiles.shape[1:] == (128, 128)


def test_frequent_sizes_stay_whole_and_others_become_tiles(tmp_path, caplog):
    rng = np.random.default_rng(0)
    for i in range(60):
        side = 16 if i < 30 else 24 if i < 55 else 40
        Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(tmp_path / f"{i:02d}.png")
    with caplog.at_level(logging.WARNING):
        dataset = data.load(str(tmp_path))
    assert {images.shape[1:3] for images in dataset.groups} == {(16, 16), (24, 24), (40, 40)}
    assert sum(map(len, dataset.groups)) == 48
    assert dataset.validation.shape[1:] == dataset.test.shape[1:] == dataset.train.shape[1:] == (16, 16, 3)
    assert "several sizes" in caplog.text
    rows = by_size([np.zeros((9, 9), np.uint8)] * 3 + [np.ones((12, 9), np.uint8)] * 20 + [np.ones((150, 9), np.uint8)])
    assert [group.shape for group in rows] == [(20, 12, 9), (20, 9, 9)]


def test_tiles_join_whole_images_of_their_size():
    rest = [np.ones((18, 9), np.uint8), np.ones((9, 18), np.uint8)]
    (group,) = by_size([np.zeros((9, 9), np.uint8)] * 20 + rest)
    assert group.shape == (24, 9, 9)
