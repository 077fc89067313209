"""SIGKILL at random moments of what writes: nothing is half there, and doing it again ends in the same bits.

``INKFILL_HARD`` divided by 10,000 says how many kills each command gets (``make hard``: 100). Training has kills of its
own in tests/test_train.py.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import tiny_model
from inkfill.checkpoint import save_network
from inkfill.model import Recipe
from inkfill.rng import stream

KILLS = max(1, int(os.environ.get("INKFILL_HARD", "10000")) // 10_000)
STARTED = 1.0  # seconds before which a command is still importing: most kills come later
# What is run, in a folder with `scans/`, `many.npy` and `tiny.safetensors`; each makes `made` or `made.EXT`.
COMMANDS = {
    "pictures": "inpaint scans --mask half:left --samples 4 --steps 40 --checkpoint tiny.safetensors --out made",
    "array": "inpaint many.npy --mask half:left --samples 4 --steps 40 --checkpoint tiny.safetensors --out made.npy",
    "report": "inpaint many.npy --mask half:left --samples 4 --steps 4 --checkpoint tiny.safetensors --report made",
    "evaluate": "evaluate --data many.npy --mask half:left --mask box:8 --count 20 --steps 40 --dtype float32 "
    "--checkpoint tiny.safetensors --out made",
    "page": "page --checkpoint tiny.safetensors --out made.html",
    "diffusers": "export --format diffusers --checkpoint tiny.safetensors --out made",
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory, digits):
    folder = tmp_path_factory.mktemp("kills")
    net = tiny_model().net
    save_network(folder / "tiny.safetensors", net, net.state_dict(), Recipe(trained_on="many").to_json())
    np.save(folder / "many.npy", digits[:60])
    (folder / "scans").mkdir()
    for i, digit in enumerate(digits[:4]):
        Image.fromarray(digit).save(folder / "scans" / f"{i}.png")
    return folder


def start(words: str, folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "inkfill", *words.split()], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def found(folder: Path) -> dict[str, str]:
    """What is in a folder, by name: hashes. Locks, and figures of time, are left out."""
    timed = ("*.lock", "*.json", "*.npz", "report.html", "index.html")
    files = [p for p in folder.rglob("*") if p.is_file() and not any(p.match(each) for each in timed)]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_and_done_again(name, bench, tmp_path):
    words, rng = COMMANDS[name], stream(0, "kills", name)
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    for place in (whole, folder):
        shutil.copytree(bench, place)
    began = time.monotonic()
    process = start(words, whole)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr.decode()
    seconds, wanted, before = time.monotonic() - began, found(whole), found(folder)
    for _ in range(KILLS):
        process = start(words + " --overwrite", folder)
        time.sleep(rng.uniform(min(STARTED, seconds / 2), seconds))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        there = {path: hash for path, hash in found(folder).items() if ".unfinished-" not in path}
        assert all(wanted.get(path, before.get(path)) == hash for path, hash in there.items())  # whole, or not there
    process = start(words + " --overwrite", folder)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr.decode()
    assert {path: hash for path, hash in found(folder).items() if ".unfinished-" not in path} == wanted
