"""Names and terminals of other encodings, and warnings that are errors."""

import os
import subprocess
import sys

import numpy as np
import pytest


def inkfill(folder, *words, **environment):
    """A command in a process of its own."""
    command = [sys.executable, "-m", "inkfill", *map(str, words)]
    return subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, timeout=300)


@pytest.mark.parametrize(
    ("name", "environment"),
    [
        ("日本.npy", {"PYTHONIOENCODING": "latin-1"}),
        ("ö.npy", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    ],
)
def test_any_name_is_written_under_any_encoding(name, environment, tmp_path, digits, checkpoint):
    np.save(tmp_path / "digits.npy", digits[:1])
    words = ["--mask", "box:8", "--steps", 1, "--samples", 1, "--checkpoint", checkpoint, "--out", name]
    done = inkfill(tmp_path, "inpaint", "digits.npy", *words, **environment)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert (tmp_path / name).is_file()


def test_training_closes_its_files(tmp_path, digits):
    """No ResourceWarning, which is an error here."""
    np.save(tmp_path / "digits.npy", digits[:20])
    words = ["--data", "digits.npy", "--steps", 2, "--batch-size", 2, "--out", "run"]
    done = inkfill(tmp_path, "train", *words, PYTHONWARNINGS="error::ResourceWarning")
    assert done.returncode == 0, done.stderr
    assert b"ResourceWarning" not in done.stderr
