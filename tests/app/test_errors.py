"""Errors and interruptions of the command line: one line for bad input, and no file that is not whole."""

import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
from PIL import Image

from helpers import process, refused, run
from inkfill import progress
from inkfill.app import cli


@pytest.fixture
def images(tmp_path, digits):
    path = tmp_path / "digits.npy"
    np.save(path, digits[:3])
    return path


# ---- one line for bad input ------------------------------------------------------------------------------------------


def bad_files(tmp_path, digits):
    """Write the files of ``test_bad_images``."""
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
        ("words.txt", "unknown format"), ("nothing", "no images"),
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


def test_outputs_are_checked_before_the_work(checkpoint, images, tmp_path, capsys):
    """The missing checkpoint is not looked for."""
    (tmp_path / "file").write_text("")
    tail = ["--mask", "half:left", "--checkpoint", tmp_path / "none.safetensors"]
    for out in (tmp_path / "file" / "x.npy", tmp_path / "file" / "folder" / "more"):
        refused(capsys, "inpaint", images, *tail, "--out", out, says=["cannot be written"])
        refused(capsys, "inpaint", images, *tail, "--report", out, says=["cannot be written"])
    out = ["--out", tmp_path / "file" / "x"]
    refused(capsys, "evaluate", *out, "--checkpoint", tmp_path / "none", says=["cannot be written"])


def test_out_of_memory_is_one_line(checkpoint, images, tmp_path, capsys, monkeypatch):
    allocator = "DefaultCPUAllocator: {}: you tried to allocate 8 bytes."
    raised = [RuntimeError(allocator.format(text)) for text in ("can't allocate memory", "not enough memory")]
    for error in (*raised, MemoryError()):

        def full(*_, error=error, **__):
            raise error

        monkeypatch.setattr("inkfill.app.fill.inpaint", full)
        tail = ["--mask", "half:left", "--checkpoint", checkpoint, "--out", tmp_path / "o.npy"]
        refused(capsys, "inpaint", images, *tail, says=["not enough memory"])


def test_other_runtime_errors_are_bugs(checkpoint, images, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("shapes differ in memory")

    monkeypatch.setattr("inkfill.app.fill.inpaint", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        run("inpaint", images, "--mask", "half:left", "--checkpoint", checkpoint, "--out", tmp_path / "o.npy")


# ---- names -----------------------------------------------------------------------------------------------------------


def test_names_that_are_not_utf_8(checkpoint, tmp_path, digits, capsys):
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9\n\x1b[31m<script>.png")
    try:
        with open(path, "wb") as file:
            Image.fromarray(digits[0]).save(file, "png")
    except OSError:
        pytest.skip("this file system accepts UTF-8 alone")
    tail = ["--mask", "half:left", "--samples", 2, "--steps", 1, "--checkpoint", checkpoint]
    words = ["inpaint", os.fsdecode(path), *tail, "--out", tmp_path / "filled", "--report", tmp_path / "page"]
    assert run(*words) == 0
    found = capsys.readouterr()
    assert "\x1b" not in found.out + found.err
    assert len(list((tmp_path / "filled").glob("*.png"))) == 2
    page = (tmp_path / "page" / "report.html").read_bytes().decode("utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_an_error_about_a_hostile_name_is_one_harmless_line(checkpoint, tmp_path, capsys):
    """Names that would set the title of a terminal, or clear it."""
    for name in ("\x1b]0;pwned\x07.npy", "\x1b[2J.png", "two\nlines.npy"):
        arguments = ["inpaint", tmp_path / name, "--mask", "half:left", "--out", tmp_path / "o.npy"]
        assert run(*arguments, "--checkpoint", checkpoint) == 1
        said = capsys.readouterr().err
        assert "\x1b" not in said
        assert "\x07" not in said
        assert len(said.splitlines()) == 1


# ---- standard error -------------------------------------------------------------------------------------------------


def test_a_progress_bar_on_a_broken_stream(monkeypatch):
    class Broken:
        def write(self, text):
            raise OSError(28, "No space left on device")

        def flush(self):
            raise ValueError("closed")

    monkeypatch.setattr(sys, "stderr", Broken())
    bar = progress.bar(3, mininterval=0)
    bar.update(3)
    bar.close()
    assert bar.n == 3


@pytest.mark.check
@pytest.mark.parametrize("stderr", ["2>/dev/full", "2>&-"])
def test_a_broken_standard_error_does_not_end_the_work(stderr, checkpoint, images, tmp_path):
    """Full and closed; the work takes long enough for a progress bar."""
    np.save(tmp_path / "many.npy", np.repeat(np.load(images), 20, 0))
    inpaint = f"inpaint {images} --mask half:left --samples 40 --steps 100 --checkpoint {checkpoint} --out"
    train = f"train --data {tmp_path}/many.npy --steps 3 --batch-size 4 --start {checkpoint} --out"
    for line, out, made in ((inpaint, "o.npy", "o.npy"), (train, "run", "run/model.safetensors")):
        command = f"{sys.executable} -m inkfill {line} {tmp_path / out} {stderr}"
        assert subprocess.run(command, shell=True, capture_output=True, check=False).returncode == 0
        assert (tmp_path / made).exists()


# ---- signals ---------------------------------------------------------------------------------------------------------


def test_signals_end_a_command_as_ctrl_c_does(monkeypatch):
    """SIGTERM and SIGHUP raise SystemExit, which removes unfinished files; handlers are restored afterwards."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
        monkeypatch.setattr(cli.cli, "main", lambda number=number, **_: os.kill(os.getpid(), number))
        assert run("info") == 128 + number
        assert signal.getsignal(number) == signal.SIG_DFL
    for number, handler in zip((signal.SIGTERM, signal.SIGHUP), before, strict=True):
        signal.signal(number, handler)
    monkeypatch.setattr(cli.cli, "main", lambda **_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run("info") == 130


@pytest.mark.check
def test_a_signal_leaves_nothing_unfinished(images, tmp_path):
    """SIGTERM and SIGHUP while a long array is being written."""
    np.save(tmp_path / "long.npy", np.repeat(np.load(images), 400, 0))
    line = f"inpaint {tmp_path}/long.npy --mask half:left --samples 2 --steps 8 --out {tmp_path}/o.npy"
    for number in (signal.SIGTERM, signal.SIGHUP):
        command = subprocess.Popen(
            [sys.executable, "-m", "inkfill", *line.split()],
            stderr=subprocess.PIPE,
            preexec_fn=partial(signal.signal, number, signal.SIG_DFL),  # nohup would have it ignored
        )
        limit = time.monotonic() + 60
        while not list(tmp_path.glob(".unfinished-*")):
            assert time.monotonic() < limit
            time.sleep(0.05)
        command.send_signal(number)
        assert command.wait(60) == 128 + number
        assert sorted(p.name for p in tmp_path.iterdir() if "o" in p.name) == ["long.npy"]


@pytest.mark.check
def test_bad_input_has_no_traceback_in_a_process(tmp_path):
    done = process("inpaint", tmp_path / "none.npy", "--mask", "half:left", "--out", tmp_path / "o.npy")
    assert done.returncode == 1
    assert done.stderr == f"inkfill: {tmp_path / 'none.npy'}: no such file or folder\n"
