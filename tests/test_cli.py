"""The command line as a user meets it: what it writes, and one line for whatever is wrong."""

import errno
import json
import os
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import tiny_model
from inkfill.app import cli
from inkfill.app.demo import is_demo
from inkfill.checkpoint import save_network
from inkfill.data import datasets
from inkfill.model import Recipe


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "tiny.safetensors"
    net = tiny_model().net
    save_network(path, net, net.state_dict(), Recipe().to_json())
    return path


@pytest.fixture
def images(tmp_path, digits):
    path = tmp_path / "digits.npy"
    np.save(path, digits[:3])
    return path


def run(*arguments) -> int:
    """The exit status of ``inkfill ARGUMENTS``, in this process."""
    before = sys.argv
    sys.argv = ["inkfill", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0


def refused(capsys, *arguments, says=()):
    """One line on stderr, nothing on stdout, a non-zero status."""
    assert run(*arguments) in (1, 2)
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.strip()]
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("inkfill: ")
    for word in says:
        assert word in lines[0]
    assert captured.out == ""


# ---- what works ------------------------------------------------------------------------------------------------------


def test_inpaint_writes_an_array(checkpoint, images, tmp_path, digits):
    out = tmp_path / "out.npy"
    arguments = ["inpaint", images, "--mask", "half:left", "--out", out, "--samples", 4, "--steps", 2]
    assert run(*arguments, "--checkpoint", checkpoint) == 0
    filled = np.load(out)
    assert filled.shape == (3, 4, 28, 28)
    assert filled.dtype == np.uint8
    np.testing.assert_array_equal(filled[..., 14:], np.repeat(digits[:3, None, :, 14:], 4, 1))


def test_inpaint_writes_pictures(checkpoint, images, tmp_path, digits):
    tail = ["--steps", 2, "--checkpoint", checkpoint]
    Image.fromarray(digits[0]).save(tmp_path / "one.png")
    mask = np.zeros((28, 28), np.uint8)
    mask[5:12, 5:12] = 255
    Image.fromarray(mask).save(tmp_path / "hole.png")
    one = [tmp_path / "one.png", "--mask", tmp_path / "hole.png", "--out", tmp_path / "filled.png", "--samples", 1]
    assert run("inpaint", *one, *tail) == 0
    filled = np.asarray(Image.open(tmp_path / "filled.png"))
    np.testing.assert_array_equal(filled[mask == 0], digits[0][mask == 0])
    assert (filled[mask == 255] != digits[0][mask == 255]).any()

    assert run("inpaint", images, "--mask", "strokes", "--out", tmp_path / "sheet.png", *tail) == 0
    assert Image.open(tmp_path / "sheet.png").size[0] > 10 * 28 * 3

    folder = tmp_path / "scans"
    folder.mkdir()
    for name, digit in zip("ab", digits, strict=False):
        Image.fromarray(digit).save(folder / f"{name}.png")
    out = tmp_path / "filled"
    assert run("inpaint", folder, "--mask", "box:10", "--out", out, "--samples", 2, *tail) == 0
    assert sorted(p.name for p in out.iterdir()) == ["a_00.png", "a_01.png", "b_00.png", "b_01.png"]


def test_masks_in_files_mean_the_same_as_in_specs(checkpoint, images, tmp_path):
    left = np.zeros((28, 28), bool)
    left[:, :14] = True
    np.save(tmp_path / "left.npy", left)
    np.save(tmp_path / "each.npy", np.repeat(left[None], 3, 0))
    Image.fromarray(np.where(left, 255, 0).astype(np.uint8)).save(tmp_path / "left.png")
    results = []
    for mask in ("half:left", tmp_path / "left.npy", tmp_path / "each.npy", tmp_path / "left.png"):
        tail = ["--out", tmp_path / "o.npy", "--overwrite", "--samples", 1, "--steps", 2, "--checkpoint", checkpoint]
        assert run("inpaint", images, "--mask", mask, *tail) == 0
        results.append(np.load(tmp_path / "o.npy"))
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


def test_another_size_is_filled_with_a_note(checkpoint, tmp_path, capsys):
    np.save(tmp_path / "big.npy", np.zeros((1, 64, 32), np.uint8))
    tail = ["--out", tmp_path / "o.npy", "--samples", 1, "--steps", 1, "--checkpoint", checkpoint]
    assert run("inpaint", tmp_path / "big.npy", "--mask", "half:left", *tail) == 0
    assert "trained on 28x28" in capsys.readouterr().err


def test_sample_masks_and_evaluate(checkpoint, images, tmp_path, capsys):
    tail = ["--steps", 2, "--checkpoint", checkpoint]
    assert run("sample", "--count", 5, "--out", tmp_path / "new.npy", *tail) == 0
    assert np.load(tmp_path / "new.npy").shape == (5, 28, 28)
    assert run("sample", "--count", 5, "--out", tmp_path / "new.png", *tail) == 0
    assert run("sample", "--count", 2, "--out", tmp_path / "new", *tail) == 0
    assert len(list((tmp_path / "new").iterdir())) == 2
    assert run("masks", "--out", tmp_path / "sheet.png") == 0
    capsys.readouterr()
    settings = ["--data", "rendered", "--count", 4, "--samples", 3, "--mask", "half:left", "--mask", "box:10"]
    assert run("evaluate", *settings, "--out", tmp_path / "results", *tail) == 0
    table = capsys.readouterr().out
    assert "rendered, test split, 4 images, K = 3" in table
    report = json.loads((tmp_path / "results" / "results.json").read_text())
    assert [row["mask"] for row in report["rows"]] == ["half:left", "box:10"]
    assert all(row["evaluations"] == 2 and 0 < row["crps"] < 1 for row in report["rows"])
    assert report["data"] == "rendered"
    assert len(report["checkpoint_hash"]) == 16


def test_demo_writes_a_page_and_what_it_shows(checkpoint, tmp_path, capsys):
    out = tmp_path / "demo"
    assert run("demo", "--data", "rendered", "--out", out, "--checkpoint", checkpoint) == 0
    page = (out / "index.html").read_text()
    for name in ("forward.png", "reverse.png", "denoising.gif", "gallery.png"):
        assert name in page
        with Image.open(out / name) as picture:
            picture.verify()
    assert "not MNIST" in page
    assert str(out / "index.html") in capsys.readouterr().out
    assert Image.open(out / "denoising.gif").n_frames > 20


def test_demo_leaves_a_folder_of_other_things_alone(checkpoint, tmp_path, capsys):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "index.html").write_text("my own page")
    refused(capsys, "demo", "--data", "rendered", "--out", out, "--checkpoint", checkpoint, says=["--overwrite"])
    assert [p.name for p in out.iterdir()] == ["index.html"]
    (out / "index.html").write_text("<title>inkfill demo</title>")
    assert is_demo(out)


@pytest.mark.parametrize("command", ["", "demo", "train", "inpaint", "sample", "evaluate", "masks"])
def test_help(command, capsys):
    assert run(*filter(None, [command]), "--help") == 0
    assert "inkfill" in capsys.readouterr().out


def test_help_is_quick():
    """The help needs no torch: a fraction of a second, not the second and more that torch takes."""
    code = "import sys; sys.argv = ['inkfill', 'inpaint', '--help']; from inkfill.app.cli import main\n"
    code += "try: main()\nfinally: print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "False"


# ---- what does not ---------------------------------------------------------------------------------------------------


def bad_files(tmp_path, digits):
    """Name, how it is made, and what the line must say."""
    colour = np.stack([digits[0], digits[0], 255 - digits[0]], -1)
    np.save(tmp_path / "nan.npy", np.full((1, 28, 28), np.nan))
    np.save(tmp_path / "range.npy", np.full((1, 28, 28), 300))
    np.save(tmp_path / "odd.npy", np.zeros((1, 30, 30), np.uint8))
    np.save(tmp_path / "pickle.npy", np.array([{}], object), allow_pickle=True)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    Image.fromarray(digits[0].astype(np.uint16) * 256).save(tmp_path / "deep.png")
    (tmp_path / "corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    (tmp_path / "words.txt").write_text("hello")
    (tmp_path / "nothing").mkdir()


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("missing.npy", "no such file"), ("nan.npy", "NaN"), ("range.npy", "0 to 255"), ("odd.npy", "multiples of 4"),
        ("pickle.npy", "pickle.npy"), ("colour.png", "colour"), ("deep.png", "8 bits"), ("corrupt.png", "corrupt.png"),
        ("words.txt", "not an IDX file"), ("nothing", "no pictures"),
    ],
)  # fmt: skip
def test_bad_images(name, word, tmp_path, digits, checkpoint, capsys):
    bad_files(tmp_path, digits)
    out = tmp_path / "o.npy"
    arguments = ["inpaint", tmp_path / name, "--mask", "half:left", "--out", out, "--checkpoint", checkpoint]
    refused(capsys, *arguments, says=[name, word])
    assert not out.exists()


def test_bad_masks(tmp_path, images, checkpoint, capsys):
    def save(name, array):
        if name.endswith(".npy"):
            np.save(tmp_path / name, array)
        else:
            Image.fromarray(array).save(tmp_path / name)
        return tmp_path / name

    grey = np.arange(784, dtype=np.uint32).reshape(28, 28).astype(np.uint8)
    for mask, word in (
        (save("size.npy", np.ones((24, 24), bool)), "sizes must agree"),
        (save("count.npy", np.ones((5, 28, 28), bool)), "5 images"),
        (save("grey.png", grey), "not binary"),
        (save("float.npy", grey / 255), "not binary"),
        (save("nan.npy", np.full((28, 28), np.nan)), "not binary"),
        (save("black.png", np.zeros((28, 28), np.uint8)), "nothing to fill"),
        (save("empty.npy", np.zeros((0, 28, 28), bool)), "empty"),
        (tmp_path / "missing.png", "no such mask"),
        ("half:up", "half:left|right"),
        ("box:99", "does not fit"),
    ):
        arguments = ["inpaint", images, "--mask", mask, "--out", tmp_path / "o.npy", "--checkpoint", checkpoint]
        refused(capsys, *arguments, says=[word])
    assert not (tmp_path / "o.npy").exists()


def test_bad_settings(tmp_path, images, checkpoint, capsys):
    out = tmp_path / "o.npy"
    good = ["inpaint", images, "--mask", "half:left", "--out", out, "--checkpoint", checkpoint]
    refused(capsys, *good, "--method", "magic", says=["magic", "conditional"])
    refused(capsys, *good, "--sampler", "magic", says=["ddim"])
    refused(capsys, *good, "--steps", 0, says=["steps"])
    refused(capsys, *good, "--steps", 5000, says=["1000"])
    refused(capsys, *good, "--steps", 10**9, says=["steps"])
    refused(capsys, *good, "--samples", 0, says=["samples"])
    refused(capsys, *good, "--samples", 10**9, says=["samples"])
    refused(capsys, *good, "--nonsense", says=["--nonsense"])
    refused(capsys, *good, "--device", "nonsense", says=["nonsense", "cpu"])
    refused(capsys, *good, "--device", "cuda:99", says=["cuda:99", "cpu"])
    refused(capsys, *good, "--report", images, says=["folder"])
    refused(capsys, "inpaint", images, says=["--mask"])
    refused(capsys, "evaluate", "--data", "emnist", "--checkpoint", checkpoint, says=["emnist", "rendered"])
    refused(capsys, "evaluate", "--mask", "half:up", says=["half:left"])
    refused(capsys, "train", "--out", tmp_path / "r", "--steps", 1, "--minutes", 1, says=["not both"])
    refused(capsys, "train", "--out", tmp_path / "r", "--resume", says=["nothing to resume"])
    refused(capsys, "train", "--out", tmp_path / "r", "--resume", "--seed", 1, says=["--out alone"])
    refused(capsys, "train", "--out", images, "--steps", 1, says=["is a file"])
    refused(capsys, "train", "--out", tmp_path / "r", "--data", "nowhere", says=["nowhere"])
    refused(capsys, "nonsense", says=["nonsense"])
    assert not out.exists()
    assert not (tmp_path / "r").exists()


def test_bad_checkpoints(tmp_path, images, checkpoint, capsys):
    whole = checkpoint.read_bytes()

    def attempt(content, word):
        checkpoint.write_bytes(content)
        out = tmp_path / "o.npy"
        arguments = ["inpaint", images, "--mask", "half:left", "--out", out, "--checkpoint", checkpoint]
        refused(capsys, *arguments, says=[word, str(checkpoint)])
        assert not out.exists()

    attempt(whole[:-100], "not a whole safetensors file")
    attempt(b"", "not a whole safetensors file")
    attempt(pickle.dumps({}), "never read")
    attempt(whole.replace(b"[16, 32]", b"[16, 64]"), "another architecture")


def test_existing_output_is_kept_unless_told(tmp_path, images, checkpoint, capsys):
    out = tmp_path / "o.npy"
    out.write_text("precious")
    arguments = ["inpaint", images, "--mask", "half:left", "--out", out, "--steps", 1, "--checkpoint", checkpoint]
    refused(capsys, *arguments, says=["--overwrite"])
    assert out.read_text() == "precious"
    assert run(*arguments, "--overwrite") == 0
    assert np.load(out).shape == (3, 8, 28, 28)
    capsys.readouterr()
    refused(capsys, *arguments[:5], tmp_path / "o.jpg", says=[".npy or .png"])
    full = tmp_path / "full"
    full.mkdir()
    (full / "x").touch()
    refused(capsys, *arguments[:5], full, says=["--overwrite"])


def test_a_full_disk_leaves_the_old_file(tmp_path, images, checkpoint, capsys, monkeypatch):
    out = tmp_path / "o.npy"
    out.write_text("precious")

    def full(path, array):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(np, "save", full)
    tail = ["--steps", 1, "--samples", 1, "--checkpoint", checkpoint, "--overwrite"]
    refused(capsys, "inpaint", images, "--mask", "half:left", "--out", out, *tail, says=["no room left"])
    assert out.read_text() == "precious"
    assert not list(tmp_path.glob(".o*"))


def test_evaluate_of_rendered_is_never_called_mnist(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("INKFILL_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(datasets.find_mnist, "__defaults__", (("http://127.0.0.1:9/",),))
    tail = ["--count", 2, "--samples", 2, "--steps", 1, "--mask", "all", "--checkpoint", checkpoint]
    assert run("evaluate", *tail) == 0
    captured = capsys.readouterr()
    assert "BUILT-IN 'rendered'" in captured.err
    assert captured.out.startswith("rendered,")


def test_one_picture_takes_seconds(tmp_path, images):
    """The whole command on the shipped weights, imports and all. Bound loose: machines differ."""
    out = tmp_path / "o.npy"
    began = time.perf_counter()
    arguments = ["inpaint", str(images), "--mask", "half:left", "--out", str(out), "--samples", "1"]
    subprocess.run([sys.executable, "-m", "inkfill", *arguments], check=True, capture_output=True)
    assert time.perf_counter() - began < 20
    assert torch.from_numpy(np.load(out)).shape == (3, 1, 28, 28)


def test_an_evaluation_goes_on_where_it_was(checkpoint, tmp_path, capsys):
    out = tmp_path / "results"
    settings = ["--data", "rendered", "--count", 3, "--samples", 2, "--steps", 2, "--checkpoint", checkpoint]
    assert run("evaluate", *settings, "--mask", "half:left", "--out", out) == 0
    (cell,) = (out / "cells").iterdir()
    made, rows = cell.stat().st_mtime_ns, json.loads((out / "results.json").read_text())["rows"]
    tail = ["--mask", "half:left", "--mask", "box:10", "--method", "conditional", "--method", "nearest", "--out", out]
    assert run("evaluate", *settings, *tail) == 0
    assert cell.stat().st_mtime_ns == made
    again = json.loads((out / "results.json").read_text())["rows"]
    assert [(row["mask"], row["method"]) for row in again] == [
        (mask, method) for mask in ("half:left", "box:10") for method in ("conditional", "nearest")
    ]
    assert again[0] == rows[0]
    page = (out / "report.html").read_text()
    assert "cell-3.png" in page
    for picture in out.glob("*.png"):
        Image.open(picture).verify()
    assert run("evaluate", *settings, "--mask", "half:left", "--out", out, "--overwrite") == 0
    assert len(list((out / "cells").iterdir())) == 1
    capsys.readouterr()
    refused(capsys, "evaluate", "--method", "magic", "--out", out, says=["conditional", "nearest"])
    refused(capsys, "evaluate", "--method", "regression", says=["--regression"])


def test_two_processes_evaluate_like_one(checkpoint, tmp_path):
    settings = ["--data", "rendered", "--count", 5, "--samples", 2, "--steps", 2, "--checkpoint", checkpoint]
    settings += ["--mask", "half:left", "--mask", "strokes"]
    assert run("evaluate", *settings, "--out", tmp_path / "one") == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "inkfill"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [str(word) for word in [*launcher, "evaluate", *settings, "--out", tmp_path / "two"]]
    subprocess.run(words, check=True, env=environment, capture_output=True, timeout=300)
    for one, two in zip(
        sorted((tmp_path / "one/cells").iterdir()), sorted((tmp_path / "two/cells").iterdir()), strict=True
    ):
        assert one.name == two.name
        with np.load(one) as a, np.load(two) as b:
            assert np.abs(a["filled"].astype(int) - b["filled"]).max() <= 1  # one grey level: rounding
            assert a["cost"][0] == b["cost"][0]


def test_a_report_on_completions(checkpoint, images, tmp_path, capsys):
    out = tmp_path / "page"
    tail = ["--mask", "half:left", "--samples", 3, "--steps", 2, "--checkpoint", checkpoint, "--report", out]
    assert run("inpaint", images, *tail, "--out", tmp_path / "filled.npy") == 0
    assert str(out / "report.html") in capsys.readouterr().out
    spread, filled = np.load(out / "spread.npy"), np.load(tmp_path / "filled.npy")
    np.testing.assert_allclose(spread, (filled / 255).std(1), atol=1e-6)
    assert (out / "image-2.png").exists()
    assert not (out / "labels.npy").exists()  # the classifier knows MNIST, and these weights were trained on nothing
    refused(capsys, "inpaint", images, *tail, "--out", tmp_path / "other.npy", says=["--overwrite"])
