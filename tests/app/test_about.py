"""``inkfill info``, ``methods``, ``masks`` and ``completion``."""

import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

from helpers import refused, run


def test_info_describes_a_checkpoint(capsys, tmp_path):
    assert run("info") == 0
    first = capsys.readouterr().out
    assert run("info", "mnist") == 0
    assert capsys.readouterr().out == first
    assert "trained on mnist" in first
    assert "  schedule: cosine" in first
    assert "  training.seed: " in first
    (tmp_path / "empty").mkdir()
    refused(capsys, "info", tmp_path / "empty", says=["no model.safetensors"])


def test_methods_are_a_table(capsys):
    assert run("methods") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "NFE at 8 steps" in lines[0]
    assert len({len(line) for line in lines}) == 1
    assert any(line.startswith("| dps ") and "strength=4" in line for line in lines)


def test_masks_are_a_sheet(tmp_path, capsys):
    assert run("masks", "--out", tmp_path / "sheet.png", "--size", 16) == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[0] > 12 * 2 * 16
    capsys.readouterr()
    refused(capsys, "masks", "--out", tmp_path / "sheet.png", says=["--overwrite"])
    refused(capsys, "masks", "--out", tmp_path / "sheet.npy", says=["use .png"])


def test_shells_complete_commands(capsys):
    asked = {"_INKFILL_COMPLETE": "bash_complete", "COMP_WORDS": "inkfill eva", "COMP_CWORD": "1"}
    program = Path(sys.executable).with_name("inkfill")
    found = subprocess.run([program], env={**os.environ, **asked}, capture_output=True, text=True)
    assert found.stdout.splitlines() == ["plain,evaluate"]
    for shell in ("bash", "zsh", "fish"):
        assert run("completion", shell) == 0
        assert "_INKFILL_COMPLETE" in capsys.readouterr().out
