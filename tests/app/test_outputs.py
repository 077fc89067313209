"""Outputs: files of other people, inputs and masks are never replaced or removed."""

import shutil

import numpy as np
import pytest
from PIL import Image

from helpers import refused, run
from inkfill.files import MANIFEST, foreign


def snapshot(folder):
    """The contents of every file below a folder."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def taken(tmp_path, digits):
    """A folder with images called as cameras and inkfill call them, a text, a folder and a hidden file."""
    folder = tmp_path / "taken"
    (folder / "sub").mkdir(parents=True)
    for name in ("img_00", "00001", "scan_10", "frame_0001", "image-1"):
        Image.fromarray(digits[0]).save(folder / f"{name}.png")
    (folder / "thesis.txt").write_text("mine")
    (folder / "sub" / "notes.txt").write_text("mine too")
    (folder / "cells").mkdir()
    (folder / "cells" / "blood.npz").write_bytes(b"mine as well")
    return folder


@pytest.fixture
def mask(tmp_path):
    path = tmp_path / "mask.png"
    hole = np.zeros((28, 28), np.uint8)
    hole[8:20, 8:20] = 255
    Image.fromarray(hole).save(path)
    return path


@pytest.fixture
def digits_file(tmp_path, digits):
    path = tmp_path / "digits.npy"
    np.save(path, digits[:3])
    return path


WHOLE = {
    "inpaint": lambda f: ["inpaint", f["digits"], "--mask", f["mask"], "--steps", 1],
    "sample": lambda f: ["sample", "--count", 2, "--steps", 1],
    "onnx": lambda f: ["export", "--format", "onnx"],
    "diffusers": lambda f: ["export", "--format", "diffusers"],
    "demo": lambda f: ["demo", "--data", "rendered"],
}


@pytest.mark.parametrize("command", WHOLE)
def test_a_folder_with_other_files_is_refused(command, taken, mask, digits_file, checkpoint, capsys):
    before = snapshot(taken)
    words = WHOLE[command]({"digits": digits_file, "mask": mask})
    for more in ([], ["--overwrite"]):
        refused(capsys, *words, "--checkpoint", checkpoint, "--out", taken, *more, says=[str(taken)])
        assert snapshot(taken) == before


def test_a_report_is_refused_there_too(taken, mask, digits_file, checkpoint, capsys):
    before = snapshot(taken)
    words = ["inpaint", digits_file, "--mask", mask, "--steps", 1, "--checkpoint", checkpoint, "--report", taken]
    refused(capsys, *words, "--overwrite", says=["did not write"])
    assert snapshot(taken) == before


def test_a_folder_of_inkfills_own_files_is_replaced(tmp_path, mask, digits_file, checkpoint, capsys):
    out = tmp_path / "filled"
    words = ["inpaint", digits_file, "--mask", mask, "--steps", 1, "--checkpoint", checkpoint, "--out", out]
    assert run(*words, "--samples", 3) == 0
    assert len(list(out.glob("*.png"))) == 9
    assert (out / MANIFEST).is_file()
    capsys.readouterr()
    refused(capsys, *words, "--samples", 1, says=["--overwrite"])
    (out / ".DS_Store").write_bytes(b"of a system")
    assert run(*words, "--samples", 1, "--overwrite") == 0
    assert len(list(out.glob("*.png"))) == 3
    (out / "keep.txt").write_text("mine")
    capsys.readouterr()
    refused(capsys, *words, "--samples", 2, "--overwrite", says=["keep.txt"])
    assert len(list(out.glob("*.png"))) == 3


@pytest.mark.parametrize("how", ["folder", "link", "file", "masks", "checkpoint"])
def test_an_input_or_a_mask_is_never_replaced(how, tmp_path, digits, mask, checkpoint, capsys):
    """Also where everything in the folder has been written by inkfill."""
    images, masks = tmp_path / "images", tmp_path / "masks"
    assert run("sample", "--count", 2, "--steps", 1, "--checkpoint", checkpoint, "--out", images) == 0
    shutil.copytree(images, masks)
    for path in masks.glob("*.png"):
        shutil.copy(mask, path)
    (tmp_path / "link").symlink_to(images)
    shutil.copy(checkpoint, images / "weights.safetensors")
    source = {"file": images / "00001.png"}.get(how, images)
    out = {"masks": masks, "link": tmp_path / "link"}.get(how, images)
    hole = masks if how == "masks" else mask
    weights = images / "weights.safetensors" if how == "checkpoint" else checkpoint
    before = snapshot(tmp_path)
    capsys.readouterr()
    words = ["inpaint", source, "--mask", hole, "--steps", 1, "--samples", 1, "--checkpoint", weights]
    refused(capsys, *words, "--out", out, "--overwrite", says=["input"])
    assert snapshot(tmp_path) == before


def test_one_file_is_not_written_over_its_input(tmp_path, digits, mask, checkpoint, capsys):
    image = tmp_path / "digit.png"
    Image.fromarray(digits[0]).save(image)
    before = snapshot(tmp_path)
    (tmp_path / "hard.png").hardlink_to(image)
    for out in (image, mask, tmp_path / "hard.png"):
        words = ["inpaint", image, "--mask", mask, "--steps", 1, "--checkpoint", checkpoint, "--out", out]
        refused(capsys, *words, "--overwrite", says=["input"])
    (tmp_path / "hard.png").unlink()
    assert snapshot(tmp_path) == before


def test_a_link_is_followed(tmp_path, mask, digits_file, checkpoint):
    target = tmp_path / "elsewhere" / "filled.npy"
    target.parent.mkdir()
    target.write_bytes(b"older")
    (tmp_path / "link.npy").symlink_to(target)
    words = ["inpaint", digits_file, "--mask", mask, "--steps", 1, "--samples", 1, "--checkpoint", checkpoint]
    assert run(*words, "--out", tmp_path / "link.npy", "--overwrite") == 0
    assert (tmp_path / "link.npy").is_symlink()
    assert np.load(target).shape == (3, 1, 28, 28)


def test_training_keeps_what_it_did_not_write(tmp_path, digits, checkpoint, capsys):
    """Also with --overwrite: files of other names stay."""
    data, out = tmp_path / "data.npy", tmp_path / "run"
    np.save(data, digits[:20])
    for name in ("rounds/thesis.txt", "pairs/own/film.npz", "best.safetensors", "metrics.jsonl", "completions/me.png"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    words = ["train", "--data", data, "--start", checkpoint, "--steps", 2, "--batch-size", 4, "--out", out]
    before = snapshot(out)
    refused(capsys, *words, says=["holds best.safetensors"])
    assert snapshot(out) == before
    assert run(*words, "--overwrite") == 0
    for name in ("rounds/thesis.txt", "pairs/own/film.npz", "completions/me.png"):
        assert (out / name).read_text() == "mine"


def test_an_evaluation_keeps_what_it_did_not_write(taken, checkpoint, few_rendered, capsys):
    before = snapshot(taken)
    words = ["evaluate", "--data", "rendered", "--mask", "half:left", "--count", 2, "--samples", 2, "--steps", 1]
    words += ["--checkpoint", checkpoint, "--out", taken]
    refused(capsys, *words, says=["--overwrite"])
    assert snapshot(taken) == before
    assert run(*words, "--overwrite") == 0
    assert before.items() <= snapshot(taken).items()
    assert run(*words) == 0  # it is an evaluation now


def test_manifests_of_others_are_not_believed(tmp_path):
    """A broken manifest names nothing, and folders and links count as files."""
    folder = tmp_path / "folder"
    (folder / "empty").mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path)
    for text in ("", "[" * 10_000, '{"files": 3}', '{"files": [1, {}]}', "[]"):
        (folder / MANIFEST).write_text(text)
        assert foreign(folder) == ["empty", "link"]
