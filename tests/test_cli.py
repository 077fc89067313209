"""The command line as a user meets it: what it writes, and one line for whatever is wrong."""

import errno
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import refused, run, tiny_model
from inkfill.app import report
from inkfill.app.demo import is_demo
from inkfill.app.report import label_words
from inkfill.data import datasets
from inkfill.models.checkpoint import load_state, save_network
from inkfill.models.model import Recipe


@pytest.fixture
def images(tmp_path, digits):
    path = tmp_path / "digits.npy"
    np.save(path, digits[:3])
    return path


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
    one = [tmp_path / "one.png", "--mask", tmp_path / "hole.png", "--out", tmp_path / "filled.png"]
    assert run("inpaint", *one, *tail) == 0
    filled = np.asarray(Image.open(tmp_path / "filled.png"))
    np.testing.assert_array_equal(filled[mask == 0], digits[0][mask == 0])
    assert (filled[mask == 255] != digits[0][mask == 255]).any()

    assert run("inpaint", images, "--mask", "strokes", "--sheet", tmp_path / "sheet.png", *tail) == 0
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


def test_images_of_another_kind_are_filled_with_a_warning(checkpoint, tmp_path, capsys):
    np.save(tmp_path / "big.npy", np.zeros((1, 64, 32), np.uint8))
    tail = ["--out", tmp_path / "o.npy", "--samples", 1, "--steps", 1]
    assert run("inpaint", tmp_path / "big.npy", "--mask", "half:left", *tail, "--checkpoint", checkpoint) == 0
    said = capsys.readouterr().err
    assert "warning" in said
    assert "28x28 images, these are 64x32" in said
    assert "will mean little" in said
    np.save(tmp_path / "photo.npy", np.random.default_rng(0).integers(50, 200, (1, 28, 28), dtype=np.uint8))
    assert run("inpaint", tmp_path / "photo.npy", "--mask", "half:left", *tail, "--overwrite") == 0
    said = capsys.readouterr().err
    assert "warning: these weights were trained on mnist and on images that are 81% black, these are 0%" in said


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
    assert "this is not MNIST" in page
    assert all(f">{words}</span>" in page for words in ("t = 1000", "x0_hat", "half:left", "sample 4", "spread"))
    with Image.open(out / "gallery-tiles.png") as picture:  # pixel by pixel: words are text on the page
        assert picture.size == (8 * 29 - 1, 16 * 29 - 1)
    assert 'href="paint.html"' in page
    assert (out / "paint.html").read_text().startswith("<!doctype html>")
    assert str(out / "index.html") in capsys.readouterr().out
    assert Image.open(out / "denoising.gif").n_frames > 20


def test_demo_of_few_step_weights(tmp_path):
    assert run("demo", "--checkpoint", "mnist-few", "--data", "rendered", "--out", tmp_path / "demo") == 0
    assert (tmp_path / "demo" / "index.html").exists()


def test_demo_leaves_a_folder_of_other_things_alone(checkpoint, tmp_path, capsys):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "index.html").write_text("my own page")
    refused(capsys, "demo", "--data", "rendered", "--out", out, "--checkpoint", checkpoint, says=["--overwrite"])
    assert [p.name for p in out.iterdir()] == ["index.html"]
    (out / "index.html").write_text("<title>inkfill demo: x</title>")
    assert is_demo(out)


@pytest.mark.parametrize("command", ["", "demo", "train", "inpaint", "sample", "evaluate", "masks", "page"])
def test_help(command, capsys):
    assert run(*filter(None, [command]), "--help") == 0
    assert "inkfill" in capsys.readouterr().out


def test_help_is_quick():
    """The help needs no torch: a fraction of a second, not the second and more that torch takes."""
    code = "import sys; sys.argv = ['inkfill', 'inpaint', '--help']; from inkfill.app.cli import main\n"
    code += "try: main()\nfinally: print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "False"


def test_several_pictures_and_where_they_go(checkpoint, tmp_path, digits, capsys):
    paths = [tmp_path / f"{name}.png" for name in "ab"]
    for path, digit in zip(paths, digits, strict=False):
        Image.fromarray(digit).save(path)
    tail = ["--mask", "half:left", "--samples", 2, "--steps", 1, "--checkpoint", checkpoint]
    assert run("inpaint", *paths, "--out", tmp_path / "filled", *tail) == 0
    assert "the folder" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "filled").iterdir()) == ["a_00.png", "a_01.png", "b_00.png", "b_01.png"]
    # An --overwrite leaves nothing of what was there before, and touches no folder of somebody else's.
    assert run("inpaint", paths[0], "--out", tmp_path / "filled", *tail, "--overwrite") == 0
    assert sorted(p.name for p in (tmp_path / "filled").iterdir()) == ["a_00.png", "a_01.png"]
    (tmp_path / "filled" / "notes.txt").write_text("mine")
    capsys.readouterr()
    refused(capsys, "inpaint", paths[0], "--out", tmp_path / "filled", *tail, "--overwrite", says=["notes.txt"])
    refused(capsys, "inpaint", *paths, tmp_path / "c.npy", "--out", tmp_path / "x", *tail, says=["c.npy", "pictures"])
    refused(capsys, "inpaint", "-", paths[0], "--out", "x.npy", *tail, says=["standard input", "alone"])
    refused(capsys, "inpaint", paths[0], *tail, says=["--out", "--sheet", "--report"])
    assert not (tmp_path / "-").exists()
    assert not list(tmp_path.glob(".unfinished*"))


def test_standard_input_and_output(checkpoint, images, tmp_path):
    """What goes through a pipe is what goes through files, to the bit; what is said goes elsewhere."""
    tail = ["--mask", "half:left", "--samples", "2", "--steps", "1", "--checkpoint", str(checkpoint)]
    picture = tmp_path / "one.png"
    Image.fromarray(np.load(images)[0]).save(picture)

    def pipe(given, *arguments):
        command = [sys.executable, "-m", "inkfill", "inpaint", *map(str, arguments)]
        return subprocess.run(command, input=given, capture_output=True, check=False)

    assert run("inpaint", images, "--out", tmp_path / "filled.npy", *tail) == 0
    done = pipe(images.read_bytes(), "-", "--out", "-", *tail)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (tmp_path / "filled.npy").read_bytes()
    done = pipe(picture.read_bytes(), "-", "--out", "-", *tail, "--keep", "mean")
    assert Image.open(io.BytesIO(done.stdout)).size == (28, 28)
    done = pipe(b"", "-", "--out", "-", *tail)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"inkfill: standard input: empty")
    assert done.stderr.count(b"\n") == 1


def test_a_progress_bar_that_cannot_be_written_costs_nothing(checkpoint, images, tmp_path):
    """Standard error full, and closed: the work is done all the same."""
    work = (
        f"inpaint {images} --mask half:left --samples 40 --steps 100 --checkpoint {checkpoint} --out {tmp_path}/o.npy"
    )
    train = f"train --data {images.parent}/many.npy --steps 3 --batch-size 4 --out {tmp_path}/run"
    np.save(tmp_path / "many.npy", np.repeat(np.load(images), 20, 0))
    for line, made in ((work, "o.npy"), (train, "run/model.safetensors")):
        for stderr in ("2>/dev/full", "2>&-"):
            command = f"{sys.executable} -m inkfill {line} --overwrite {stderr}"
            assert subprocess.run(command, shell=True, capture_output=True, check=False).returncode == 0
            (tmp_path / made).unlink()


def test_a_signal_leaves_nothing_unfinished(images, tmp_path):
    """SIGTERM and SIGHUP in the middle of a long array, whose file is open all along."""
    np.save(tmp_path / "long.npy", np.repeat(np.load(images), 400, 0))
    line = f"inpaint {tmp_path}/long.npy --mask half:left --samples 2 --steps 8 --out {tmp_path}/o.npy"
    for number in (signal.SIGTERM, signal.SIGHUP):
        process = subprocess.Popen(
            [sys.executable, "-m", "inkfill", *line.split()],
            stderr=subprocess.PIPE,
            preexec_fn=partial(signal.signal, number, signal.SIG_DFL),  # under nohup it would be ignored, as it should
        )
        limit = time.monotonic() + 60
        while not list(tmp_path.glob(".unfinished-*")):
            assert time.monotonic() < limit
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        assert sorted(p.name for p in tmp_path.iterdir() if "o" in p.name) == ["long.npy"]


def test_an_earlier_report_stays_until_the_new_one_is_whole(checkpoint, images, tmp_path, monkeypatch):
    tail = ["--mask", "half:left", "--samples", 2, "--steps", 1, "--checkpoint", checkpoint, "--report", tmp_path / "r"]
    assert run("inpaint", images, *tail) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "r").iterdir()}
    assert len(before) == 6

    def full(path, *arguments):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(report.figures, "save_picture", full)
    assert run("inpaint", images, *tail, "--seed", 1, "--overwrite") == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "r").iterdir()} == before
    monkeypatch.undo()
    np.save(images, np.load(images)[:1])
    assert run("inpaint", images, *tail, "--overwrite") == 0
    names = {path.name for path in (tmp_path / "r").iterdir()}
    assert names == {"report.html", "image-0.png", "filled.npy", "spread.npy"}


def test_settings_of_a_method(checkpoint, images, tmp_path, capsys):
    def filled(*words):
        out = tmp_path / "o.npy"
        tail = ["--samples", 1, "--steps", 3, "--checkpoint", checkpoint, "--overwrite", "--method", "dps"]
        assert run("inpaint", images, "--mask", "half:left", "--out", out, *tail, *words) == 0
        return np.load(out)

    np.testing.assert_array_equal(filled(), filled("--set", "strength=4"))
    assert (filled() != filled("--set", "strength=0.5")).any()
    bad = ["inpaint", images, "--mask", "half:left", "--out", tmp_path / "p.npy", "--checkpoint", checkpoint]
    capsys.readouterr()
    refused(capsys, *bad, "--set", "strength=2", says=["strength", "none"])
    refused(capsys, *bad, "--method", "dps", "--set", "strength=big", says=["NAME=NUMBER"])
    refused(capsys, *bad, "--method", "dps", "--set", "power=1", says=["power", "strength"])


def test_precision_can_be_chosen_and_is_said(checkpoint, images, tmp_path):
    tail = ["--mask", "half:left", "--samples", 2, "--steps", 1, "--checkpoint", checkpoint]
    for dtype in ("float32", "bfloat16"):
        assert run("inpaint", images, *tail, "--report", tmp_path / dtype, "--dtype", dtype) == 0
        assert dtype in (tmp_path / dtype / "report.html").read_text()


def test_a_bare_command_prints_its_help(capsys):
    assert run() == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) > 15
    assert "inpaint" in said


# ---- what does not ---------------------------------------------------------------------------------------------------


def bad_files(tmp_path, digits):
    """Name, how it is made, and what the line must say."""
    colour = np.stack([digits[0], digits[0], 255 - digits[0]], -1)
    np.save(tmp_path / "nan.npy", np.full((1, 28, 28), np.nan))
    np.save(tmp_path / "range.npy", np.full((1, 28, 28), 300))
    np.save(tmp_path / "small.npy", np.zeros((1, 7, 30), np.uint8))
    np.save(tmp_path / "turned.npy", np.zeros((1, 3, 30, 30), np.uint8))
    np.save(tmp_path / "pickle.npy", np.array([{}], object), allow_pickle=True)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    Image.fromarray(np.stack([digits[0]] * 4, -1), "CMYK").save(tmp_path / "print.tif")
    (tmp_path / "corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    (tmp_path / "words.txt").write_text("hello")
    (tmp_path / "nothing").mkdir()


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("missing.npy", "no such file"), ("nan.npy", "NaN"), ("range.npy", "--range"), ("small.npy", "at least 8"),
        ("turned.npy", "moveaxis"),
        ("pickle.npy", "pickle.npy"), ("colour.png", "--grey"), ("print.tif", "CMYK"), ("corrupt.png", "corrupt.png"),
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
    refused(capsys, "inpaint", images, "--out", out, says=["--mask"])
    refused(capsys, "inpaint", images, "--mask", "half:left", says=["--out"])
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

    def full(file, array):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)

    monkeypatch.setattr(np, "save", full)
    tail = ["--steps", 1, "--samples", 1, "--checkpoint", checkpoint, "--overwrite"]
    refused(capsys, "inpaint", images, "--mask", "half:left", "--out", out, *tail, says=["no room left"])
    assert out.read_text() == "precious"
    assert not list(tmp_path.glob(".unfinished*"))


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


def test_two_processes_inpaint_like_one(checkpoint, tmp_path, digits):
    """An array, and pictures of several sizes, of which one process gets one and the other two."""
    np.save(tmp_path / "five.npy", digits[:5])
    (tmp_path / "scans").mkdir()
    for i, picture in enumerate((digits[5], digits[6, 4:], digits[7, :, 4:])):
        Image.fromarray(picture).save(tmp_path / "scans" / f"{i}.png")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "inkfill"]
    tail = ["--mask", "half:left", "--samples", 2, "--steps", 2, "--checkpoint", checkpoint, "--dtype", "float32"]
    for given, made in (("five.npy", "filled.npy"), ("scans", "filled")):
        words = ["inpaint", tmp_path / given, *tail, "--out"]
        assert run(*words, tmp_path / "one" / made) == 0
        command = [str(word) for word in [*launcher, *words, tmp_path / "two" / made]]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, check=True, env=environment, capture_output=True, timeout=300, text=True)
        assert done.stdout.count("wrote") == 1
    one, two = (np.load(tmp_path / name / "filled.npy").astype(int) for name in ("one", "two"))
    assert np.abs(one - two).max() <= 1  # rounding: the sizes of batches differ
    pictures = sorted(path.name for path in (tmp_path / "one" / "filled").iterdir())
    assert pictures == sorted(path.name for path in (tmp_path / "two" / "filled").iterdir())
    for name in pictures:
        one, two = (np.asarray(Image.open(tmp_path / each / "filled" / name), int) for each in ("one", "two"))
        assert np.abs(one - two).max() <= 1


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


# ---- finished work is not lost ---------------------------------------------------------------------------------------


def process(*words, before=(), **named) -> subprocess.CompletedProcess:
    command = [*before, sys.executable, "-m", "inkfill", *map(str, words)]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=120, **named)


def test_results_are_written_before_they_are_told(checkpoint, tmp_path):
    """Standard output closed, or read by somebody who has gone: the files are there all the same."""
    words = ["evaluate", "--data", "rendered", "--count", 2, "--samples", 2, "--steps", 1, "--mask", "half:left"]
    tail = ["--checkpoint", checkpoint, "--out"]
    closed = process(*words, *tail, tmp_path / "a", before=["sh", "-c", 'exec "$@" >&-', "sh"])
    assert "Traceback" not in closed.stderr
    reader, writer = os.pipe()
    os.close(reader)
    gone = process(*words, *tail, tmp_path / "b", stdout=writer)
    os.close(writer)
    assert "Traceback" not in gone.stderr
    for name in "ab":
        assert json.loads((tmp_path / name / "results.json").read_text())["rows"]
        assert (tmp_path / name / "report.html").exists()


def test_names_that_are_no_utf_8(checkpoint, tmp_path, digits):
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9\n\x1b[31m<script>.png")
    try:
        with open(path, "wb") as file:
            Image.fromarray(digits[0]).save(file, "png")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    tail = ["--mask", "half:left", "--samples", 2, "--steps", 1, "--checkpoint", checkpoint]
    words = ["inpaint", os.fsdecode(path), *tail, "--out", tmp_path / "filled", "--report", tmp_path / "page"]
    found = process(*words, stdout=subprocess.PIPE)
    assert found.returncode == 0, found.stderr
    assert "\x1b" not in found.stdout + found.stderr
    assert len(list((tmp_path / "filled").iterdir())) == 2
    page = (tmp_path / "page" / "report.html").read_bytes().decode("utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_an_error_about_a_hostile_name_is_one_harmless_line(checkpoint, tmp_path, capsys):
    """A name that would set the title of a terminal, or clear it."""
    for name in ("\x1b]0;pwned\x07.npy", "\x1b[2J.png", "two\nlines.npy"):
        arguments = ["inpaint", tmp_path / name, "--mask", "half:left", "--out", tmp_path / "o.npy"]
        assert run(*arguments, "--checkpoint", checkpoint) == 1
        said = capsys.readouterr().err
        assert "\x1b" not in said
        assert "\x07" not in said
        assert len(said.splitlines()) == 1


def test_a_report_that_is_written_over_leaves_nothing(checkpoint, tmp_path, digits):
    np.save(tmp_path / "three.npy", digits[:3])
    np.save(tmp_path / "one.npy", digits[:1])
    tail = ["--mask", "half:left", "--samples", 2, "--steps", 1, "--checkpoint", checkpoint, "--report", tmp_path / "p"]
    assert run("inpaint", tmp_path / "three.npy", *tail) == 0
    assert run("inpaint", tmp_path / "one.npy", *tail, "--overwrite") == 0
    assert [p.name for p in (tmp_path / "p").glob("*.png")] == ["image-0.png"]


def test_what_cannot_be_written_is_said_first(checkpoint, images, tmp_path, capsys):
    """Before the work, not after minutes of it: the checkpoint is not even looked at."""
    (tmp_path / "file").write_text("")
    tail = ["--mask", "half:left", "--checkpoint", tmp_path / "none.safetensors"]
    for out in (tmp_path / "file" / "x.npy", tmp_path / "file" / "folder" / "more"):
        refused(capsys, "inpaint", images, *tail, "--out", out, says=["cannot be written"])
        refused(capsys, "inpaint", images, *tail, "--report", out, says=["cannot be written"])
    refused(
        capsys,
        "evaluate",
        "--out",
        tmp_path / "file" / "x",
        "--checkpoint",
        tmp_path / "none",
        says=["cannot be written"],
    )


def test_a_recipe_cannot_bring_a_script_onto_a_page(tmp_path, images, digits):
    path, net = tmp_path / "evil.safetensors", tiny_model().net
    evil = Recipe(trained_on="<script>alert(1)</script>", black=float((digits == 0).mean()))
    save_network(path, net, net.state_dict(), evil.to_json())
    assert run("demo", "--data", "rendered", "--out", tmp_path / "demo", "--checkpoint", path) == 0
    tail = ["--mask", "half:left", "--samples", 2, "--steps", 1, "--checkpoint", path]
    assert run("inpaint", images, *tail, "--report", tmp_path / "page") == 0
    for page in (tmp_path / "demo" / "index.html", tmp_path / "page" / "report.html"):
        assert "<script" not in page.read_text()
        assert "&lt;script&gt;" in page.read_text()


def test_votes_are_said_as_counts():
    """Of four completions that are all sevens: "7: 4 of 4", whatever the smoothing of a posterior would make of it."""
    sure = np.full((4, 10), 0.01)
    sure[:, 7] = 0.91
    assert label_words(sure) == "7: 4 of 4"
    sure[1] = np.roll(sure[1], 1)
    assert label_words(sure) == "7: 3 of 4, 8: 1 of 4"


def test_out_of_memory_is_one_line(checkpoint, images, tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:128] DefaultCPUAllocator: not enough memory")

    monkeypatch.setattr("inkfill.inpainting.inpaint", full)
    tail = ["--mask", "half:left", "--checkpoint", checkpoint, "--out", tmp_path / "o.npy"]
    refused(capsys, "inpaint", images, *tail, says=["not enough memory"])


def test_an_old_model_is_not_replaced_by_a_training(tmp_path, images, capsys):
    (tmp_path / "model.safetensors").write_text("precious")
    refused(capsys, "train", "--data", "rendered", "--steps", 1, "--out", tmp_path, says=["--overwrite"])
    refused(capsys, "train", "--resume", "--minutes", 1, "--out", tmp_path, says=["--out alone"])
    assert (tmp_path / "model.safetensors").read_text() == "precious"


def test_info_says_what_a_checkpoint_is(capsys, tmp_path):
    assert run("info") == 0
    first = capsys.readouterr().out
    assert run("info", "mnist") == 0
    assert capsys.readouterr().out == first
    assert "trained on mnist" in first
    assert "  schedule: cosine" in first
    assert "  training.seed: " in first
    (tmp_path / "empty").mkdir()
    refused(capsys, "info", tmp_path / "empty", says=["no such checkpoint"])


def test_what_is_said_can_be_had_as_json(capsys):
    assert run("info", "mnist-few", "--json") == 0
    about = json.loads(capsys.readouterr().out)
    assert about["recipe"]["objective"] == "few"
    assert about["network"]["fresh"] is True
    assert run("methods", "--json") == 0
    methods = json.loads(capsys.readouterr().out)
    assert methods["mmps"] == {
        "paper": "Rozet et al. 2024, arXiv 2405.13712",
        "exact": "any Gaussian; iterations grow",
        "evaluations": 8,
        "steps": 8,
        "gradient": True,
        "noisy": True,
        "settings": {"iterations": 2},
    }


def test_shells_complete_commands():
    asked = {"_INKFILL_COMPLETE": "bash_complete", "COMP_WORDS": "inkfill eva", "COMP_CWORD": "1"}
    program = Path(sys.executable).with_name("inkfill")
    found = subprocess.run([program], env={**os.environ, **asked}, capture_output=True, text=True)
    assert found.stdout.splitlines() == ["plain,evaluate"]
    for shell in ("bash", "zsh", "fish"):
        assert (
            "_INKFILL_COMPLETE" in subprocess.run([program, "completion", shell], capture_output=True, text=True).stdout
        )


def test_options_of_version_0_1_still_work(tmp_path, digits, checkpoint, capsys):
    out, data = tmp_path / "run", tmp_path / "many.npy"
    np.save(data, digits)
    old = ("--look-every", 1, "--float32")
    assert run("train", "--out", out, "--data", data, "--start", checkpoint, "--steps", 2, "--batch-size", 2, *old) == 0
    told = capsys.readouterr().err
    assert "--look-every will go: it is --validate-every 1 now" in told
    assert "--float32 will go: it is --dtype float32 now" in told
    rows = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    assert [row["step"] for row in rows if "validation" in row] == [1, 2]
    assert json.loads(load_state(out / "state.pt")["config"])["dtype"] == "float32"
    assert "look-every" not in subprocess.check_output([sys.executable, "-m", "inkfill", "train", "--help"], text=True)


def test_what_would_do_nothing_is_refused(tmp_path, images, checkpoint, capsys):
    words = ["inpaint", images, "--checkpoint", checkpoint, "--out", tmp_path / "x.npy"]
    refused(capsys, *words, "--mask", "nan", says=["no pixel is missing by nan"])
    refused(capsys, *words, "--mask", "half:left", "--mask-colour", "red", says=["--mask names none"])
    refused(capsys, *words, "--mask", "half:left", "--sheet", tmp_path / "x.npy", says=["one name"])
    for name, needs in (("--rounds", "--data-mask"), ("--pairs", "--teacher")):
        refused(capsys, "train", "--data", images, name, 3, "--out", tmp_path / "run", says=[name, needs])


def test_an_evaluation_that_could_not_begin_is_not_in_the_way(tmp_path, digits, checkpoint, capsys):
    images = tmp_path / "many.npy"
    np.save(images, digits[:20])
    words = [
        "evaluate",
        "--data",
        images,
        "--count",
        2,
        "--samples",
        2,
        "--mask",
        "half:left",
        "--checkpoint",
        checkpoint,
    ]
    refused(capsys, *words, "--steps", 2000, "--out", tmp_path / "out", says=["steps"])
    assert run(*words, "--steps", 1, "--out", tmp_path / "out") == 0
    capsys.readouterr()
    refused(capsys, *words, "--mask", "nowhere", says=["mixture SPEC@2,SPEC@1"])


def test_a_run_is_a_checkpoint(tmp_path, checkpoint):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").write_bytes(checkpoint.read_bytes())
    assert run("sample", "--count", 1, "--steps", 1, "--checkpoint", tmp_path / "run", "--out", tmp_path / "a.npy") == 0
