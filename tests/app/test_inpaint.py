"""``inkfill inpaint`` and ``inkfill sample``: what they write, and what they refuse."""

import errno
import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from helpers import refused, run, tiny_model, two_processes
from inkfill.app import fill, report
from inkfill.data.masks import read_mask
from inkfill.files import MANIFEST
from inkfill.filling.inpaint import Options
from inkfill.models.model import Model, Recipe
from inkfill.processes import Processes
from inkfill.progress import no_bar


def names(folder):
    """The files of a folder, without the hidden manifest."""
    return sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)


@pytest.fixture
def images(tmp_path, digits):
    path = tmp_path / "digits.npy"
    np.save(path, digits[:3])
    return path


# ---- outputs ---------------------------------------------------------------------------------------------------------


def test_inpaint_writes_an_array(checkpoint, images, tmp_path, digits):
    out = tmp_path / "out.npy"
    arguments = ["inpaint", images, "--mask", "half:left", "--out", out, "--samples", 4, "--steps", 2]
    assert run(*arguments, "--checkpoint", checkpoint) == 0
    filled = np.load(out)
    assert filled.shape == (3, 4, 28, 28)
    assert filled.dtype == np.uint8
    np.testing.assert_array_equal(filled[..., 14:], np.repeat(digits[:3, None, :, 14:], 4, 1))


def test_inpaint_writes_images(checkpoint, images, tmp_path, digits):
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
    assert names(out) == ["a_00.png", "a_01.png", "b_00.png", "b_01.png"]


def test_several_images_and_their_folder(checkpoint, tmp_path, digits, capsys):
    paths = [tmp_path / f"{name}.png" for name in "ab"]
    for path, digit in zip(paths, digits, strict=False):
        Image.fromarray(digit).save(path)
    tail = ["--mask", "half:left", "--samples", 2, "--steps", 1, "--checkpoint", checkpoint]
    assert run("inpaint", *paths, "--out", tmp_path / "filled", *tail) == 0
    assert "the folder" in capsys.readouterr().out
    assert names(tmp_path / "filled") == ["a_00.png", "a_01.png", "b_00.png", "b_01.png"]
    # --overwrite replaces all earlier samples, and no folder with other files.
    assert run("inpaint", paths[0], "--out", tmp_path / "filled", *tail, "--overwrite") == 0
    assert names(tmp_path / "filled") == ["a_00.png", "a_01.png"]
    (tmp_path / "filled" / "notes.txt").write_text("mine")
    capsys.readouterr()
    refused(capsys, "inpaint", paths[0], "--out", tmp_path / "filled", *tail, "--overwrite", says=["notes.txt"])
    refused(capsys, "inpaint", *paths, tmp_path / "c.npy", "--out", tmp_path / "x", *tail, says=["c.npy", "pictures"])
    refused(capsys, "inpaint", paths[0], *tail, says=["--out", "--sheet", "--report"])
    assert not list(tmp_path.glob(".unfinished*"))


def test_existing_output_stays_without_overwrite(tmp_path, images, checkpoint, capsys):
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

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    tail = ["--steps", 1, "--samples", 1, "--checkpoint", checkpoint, "--overwrite"]
    refused(capsys, "inpaint", images, "--mask", "half:left", "--out", out, *tail, says=["no space left"])
    assert out.read_text() == "precious"
    assert not list(tmp_path.glob(".unfinished*"))


# ---- masks, methods, precision ---------------------------------------------------------------------------------------


def test_masks_in_files_equal_specs(checkpoint, images, tmp_path):
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


def test_settings_of_a_method(checkpoint, images, tmp_path, capsys):
    def filled(*words):
        out = tmp_path / "o.npy"
        tail = ["--samples", 1, "--steps", 3, "--checkpoint", checkpoint, "--overwrite", "--method", "dps"]
        tail += ["--dtype", "float32"]  # backward passes in bfloat16 are slow on CPUs
        assert run("inpaint", images, "--mask", "half:left", "--out", out, *tail, *words) == 0
        return np.load(out)

    np.testing.assert_array_equal(filled(), filled("--set", "strength=4"))
    assert (filled() != filled("--set", "strength=0.5")).any()
    bad = ["inpaint", images, "--mask", "half:left", "--out", tmp_path / "p.npy", "--checkpoint", checkpoint]
    capsys.readouterr()
    refused(capsys, *bad, "--set", "strength=2", says=["strength", "no settings"])
    refused(capsys, *bad, "--method", "dps", "--set", "strength=big", says=["NAME=NUMBER"])
    refused(capsys, *bad, "--method", "dps", "--set", "power=1", says=["power", "strength"])


def test_precision_is_chosen_and_reported(checkpoint, images, tmp_path):
    tail = ["--mask", "half:left", "--samples", 2, "--steps", 1, "--checkpoint", checkpoint]
    for dtype in ("float32", "bfloat16"):
        assert run("inpaint", images, *tail, "--report", tmp_path / dtype, "--dtype", dtype) == 0
        assert dtype in (tmp_path / dtype / "report.html").read_text()


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


def test_unlike_compares_size_and_black_of_observed_pixels(digits):
    net, black = tiny_model().net, float((digits == 0).mean())
    model, nothing = Model(net, Recipe(black=black)), np.zeros((4, 28, 28), bool)
    assert fill.unlike(model, digits[:4], nothing) == []
    (reason,) = fill.unlike(model, np.full((1, 28, 28), 90, np.uint8), nothing[:1])
    assert "black" in reason
    (reason,) = fill.unlike(model, np.zeros((1, 32, 28), np.uint8), np.ones((1, 32, 28), bool))  # nothing is observed
    assert "28x28 images, these are 32x28" in reason
    assert fill.unlike(Model(net, Recipe()), np.full((1, 28, 28), 90, np.uint8), nothing[:1]) == []


# ---- several processes -----------------------------------------------------------------------------------------------


class Sent(Exception):
    """The samples of rank 1."""


class Rank(Processes):
    """One of two processes: rank 1 sends its samples as an exception, rank 0 receives what ``received`` holds."""

    received: list = []  # noqa: RUF012 (set by each test)

    def gather(self, value):
        if self.rank == 1:
            raise Sent(value)
        return [value, *self.received]


@pytest.mark.parametrize("sizes", [[(28, 28)] * 3, [(28, 28), (24, 28), (28, 20)]])
def test_two_shares_are_the_whole(sizes, tmp_path, digits, model, monkeypatch):
    """Images of one size, and of several: the samples of two shares, put together, are those of one process."""
    (tmp_path / "in").mkdir()
    for i, (height, width) in enumerate(sizes):
        Image.fromarray(digits[i, :height, :width]).save(tmp_path / "in" / f"{i}.png")
    options = Options(steps=2)
    request = fill.Request((tmp_path / "in",), read_mask("half:left"), tmp_path / "one", None, None, 2, options=options)
    fill.run(request, model, no_bar)
    request = replace(request, out=tmp_path / "two")
    with pytest.raises(Sent) as second:
        fill.run(request, model, no_bar, Rank(1, 2, model.device))
    monkeypatch.setattr(Rank, "received", list(second.value.args))
    assert len(fill.run(request, model, no_bar, Rank(0, 2, model.device))) == 1
    assert len(names(tmp_path / "one")) == 6
    for name in names(tmp_path / "one"):
        one, two = (np.asarray(Image.open(tmp_path / each / name), int) for each in ("one", "two"))
        assert np.abs(one - two).max() <= 1  # rounding: batches differ in size


@pytest.mark.check
def test_two_processes_inpaint_like_one(checkpoint, tmp_path, digits):
    """An array, and images of several sizes: one process gets one of them, the other two."""
    np.save(tmp_path / "five.npy", digits[:5])
    (tmp_path / "scans").mkdir()
    for i, image in enumerate((digits[5], digits[6, 4:], digits[7, :, 4:])):
        Image.fromarray(image).save(tmp_path / "scans" / f"{i}.png")
    tail = ["--mask", "half:left", "--samples", 2, "--steps", 2, "--checkpoint", checkpoint, "--dtype", "float32"]
    for given, made in (("five.npy", "filled.npy"), ("scans", "filled")):
        words = ["inpaint", tmp_path / given, *tail, "--out"]
        assert run(*words, tmp_path / "one" / made) == 0
        assert two_processes(*words, tmp_path / "two" / made).stdout.count("wrote") == 1
    one, two = (np.load(tmp_path / name / "filled.npy").astype(int) for name in ("one", "two"))
    assert np.abs(one - two).max() <= 1  # rounding: batches differ in size
    assert names(tmp_path / "one" / "filled") == names(tmp_path / "two" / "filled")
    for name in names(tmp_path / "one" / "filled"):
        one, two = (np.asarray(Image.open(tmp_path / each / "filled" / name), int) for each in ("one", "two"))
        assert np.abs(one - two).max() <= 1


@pytest.mark.check
def test_one_image_takes_seconds(tmp_path, images):
    """The whole command with the shipped weights, imports included. The limit is loose: machines differ."""
    out = tmp_path / "o.npy"
    began = time.perf_counter()
    arguments = ["inpaint", str(images), "--mask", "half:left", "--out", str(out), "--samples", "1"]
    subprocess.run([sys.executable, "-m", "inkfill", *arguments], check=True, capture_output=True)
    assert time.perf_counter() - began < 20
    assert np.load(out).shape == (3, 1, 28, 28)


# ---- reports ---------------------------------------------------------------------------------------------------------


def test_a_report_of_samples(checkpoint, images, tmp_path, capsys):
    out = tmp_path / "page"
    tail = ["--mask", "half:left", "--samples", 3, "--steps", 2, "--checkpoint", checkpoint, "--report", out]
    assert run("inpaint", images, *tail, "--out", tmp_path / "filled.npy") == 0
    assert str(out / "report.html") in capsys.readouterr().out
    std, filled = np.load(out / "std.npy"), np.load(tmp_path / "filled.npy")
    np.testing.assert_allclose(std, (filled / 255).std(1), atol=1e-6)
    np.testing.assert_array_equal(np.load(out / "filled.npy"), filled)
    text = (out / "report.html").read_text()
    assert f"Standard deviation {std[0][:, :14].mean():.3f}, mean over 392 missing pixels." in text
    assert (out / "image-2.png").exists()
    refused(capsys, "inpaint", images, *tail, "--out", tmp_path / "other.npy", says=["--overwrite"])


def test_an_earlier_report_stays_until_the_new_one_is_whole(checkpoint, images, tmp_path, monkeypatch):
    tail = ["--mask", "half:left", "--samples", 2, "--steps", 1, "--checkpoint", checkpoint, "--report", tmp_path / "r"]
    assert run("inpaint", images, *tail) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "r").iterdir()}
    assert len(names(tmp_path / "r")) == 6

    def full(path, *arguments):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(report.figures, "save_picture", full)
    assert run("inpaint", images, *tail, "--seed", 1, "--overwrite") == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "r").iterdir()} == before
    monkeypatch.undo()
    np.save(images, np.load(images)[:1])
    assert run("inpaint", images, *tail, "--overwrite") == 0
    assert names(tmp_path / "r") == ["filled.npy", "image-0.png", "report.html", "std.npy"]


# ---- unconditional samples -------------------------------------------------------------------------------------------


def test_sample_writes_an_array_a_sheet_or_a_folder(checkpoint, tmp_path):
    tail = ["--steps", 2, "--checkpoint", checkpoint]
    assert run("sample", "--count", 5, "--out", tmp_path / "new.npy", *tail) == 0
    assert np.load(tmp_path / "new.npy").shape == (5, 28, 28)
    assert run("sample", "--count", 5, "--out", tmp_path / "new.png", *tail) == 0
    assert run("sample", "--count", 2, "--out", tmp_path / "new", *tail) == 0
    assert names(tmp_path / "new") == ["00000.png", "00001.png"]


def test_a_run_is_a_checkpoint(tmp_path, checkpoint):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").write_bytes(checkpoint.read_bytes())
    assert run("sample", "--count", 1, "--steps", 1, "--checkpoint", tmp_path / "run", "--out", tmp_path / "a.npy") == 0
