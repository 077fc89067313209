"""``inkfill train``: its options, and the files of a run."""

import json

import numpy as np
from PIL import Image

from helpers import refused, run
from inkfill.models.checkpoint import load_state


def test_options_reach_the_run(tmp_path, digits, checkpoint):
    out, data = tmp_path / "run", tmp_path / "many.npy"
    np.save(data, digits)
    words = ["--steps", 2, "--batch-size", 2, "--validate-every", 1, "--dtype", "float32", "--range", 0, 300]
    assert run("train", "--out", out, "--data", data, "--start", checkpoint, *words) == 0
    rows = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    assert [row["step"] for row in rows if "validation" in row] == [1, 2]
    settings = json.loads(load_state(out / "state.pt")["config"])
    assert settings["dtype"] == "float32"
    assert (settings["low"], settings["high"]) == (0, 300)
    (folder,) = {path.parent for path in out.rglob("*.png")}  # samples for validation images, a file per validation
    assert sorted(path.name for path in folder.iterdir()) == ["0000001.png", "0000002.png"]
    with Image.open(folder / "0000002.png") as figure:
        figure.verify()


def test_a_model_is_not_replaced_without_overwrite(tmp_path, capsys, few_rendered):
    (tmp_path / "model.safetensors").write_text("precious")
    refused(capsys, "train", "--data", "rendered", "--steps", 1, "--out", tmp_path, says=["--overwrite"])
    refused(capsys, "train", "--resume", "--batch-size", 2, "--out", tmp_path, says=["--out alone"])
    assert (tmp_path / "model.safetensors").read_text() == "precious"


def test_a_run_is_extended(tmp_path, digits, capsys):
    out, data = tmp_path / "run", tmp_path / "many.npy"
    np.save(data, digits)
    words = ["train", "--out", out, "--batch-size", 2]
    assert run(*words, "--data", data, "--steps", 4, "--decay", 0.5) == 0
    assert run("train", "--out", out, "--resume", "--steps", 4) == 0
    assert load_state(out / "state.pt")["step"] == 6  # from step 2, before the decay
    capsys.readouterr()
    refused(capsys, "train", "--out", out, "--resume", "--steps", 1, says=["give at least"])


def test_guidance_needs_a_guide(tmp_path, capsys):
    refused(capsys, "sample", "--out", tmp_path / "x.npy", "--guide-weight", 2, says=["requires --guide"])
    words = ["sample", "--out", tmp_path / "x.npy", "--guide"]
    refused(capsys, *words, "mnist-few", says=["v or eps"])
    assert run(*words, "mnist", "--count", 1, "--steps", 1) == 0


def test_options_that_exclude_or_require_others(tmp_path, capsys):
    def bad(*words, says):
        refused(capsys, "train", "--out", tmp_path / "r", *words, says=says)

    bad("--steps", 1, "--minutes", 1, says=["--steps", "--minutes", "exclude"])
    bad("--resume", says=["nothing to resume"])
    bad("--resume", "--seed", 1, says=["--out alone"])
    bad("--data", "nowhere", says=["nowhere"])
    for name, needs in (("--rounds", "--data-mask"), ("--pairs", "--teacher")):
        bad("--data", "rendered", name, 3, says=[f"{name} requires {needs}"])
    assert not (tmp_path / "r").exists()
    (tmp_path / "file").touch()
    refused(capsys, "train", "--out", tmp_path / "file", "--steps", 1, says=["is a file"])
