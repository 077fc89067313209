"""SIGKILL at random moments of commands that write: no half-written file, and a repetition ends in the same bits.

``INKFILL_HARD`` / 10,000 is the number of kills of each command (``make hard``: 100).
"""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import tiny_model
from inkfill.core.rng import stream
from inkfill.models.checkpoint import load_network, load_state, save_network
from inkfill.models.model import Recipe

KILLS = max(1, int(os.environ.get("INKFILL_HARD", "10000")) // 10_000)
STARTED = 1.0  # seconds of imports; most kills come later
# Commands in a folder with `scans/`, `many.npy` and `tiny.safetensors`; each writes `made` or `made.EXT`.
COMMANDS = {
    "pictures": "inpaint scans --mask half:left --samples 4 --steps 40 --checkpoint tiny.safetensors --out made",
    "array": "inpaint many.npy --mask half:left --samples 4 --steps 40 --checkpoint tiny.safetensors --out made.npy",
    "report": "inpaint many.npy --mask half:left --samples 4 --steps 4 --checkpoint tiny.safetensors --report made",
    "evaluate": "evaluate --data many.npy --mask half:left --mask box:8 --count 20 --steps 40 --dtype float32 "
    "--checkpoint tiny.safetensors --out made",
    "page": "page --checkpoint tiny.safetensors --out made.html",
    "diffusers": "export --format diffusers --checkpoint tiny.safetensors --out made",
}
# Trainings that save at every step: `rounds` imputes its images twice on the way, `few` has a teacher.
TRAININGS = {
    "train": "--data many.npy --start tiny.safetensors --steps 100 --batch-size 2",
    "rounds": "--data holes.npy --data-mask nan --rounds 3 --start tiny.safetensors --steps 100 --batch-size 2",
    "few": "--data small.npy --objective few --start tiny.safetensors --teacher tiny.safetensors --pairs 64 "
    "--steps 100 --batch-size 2",
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory, digits):
    folder = tmp_path_factory.mktemp("kills")
    net = tiny_model().net
    save_network(folder / "tiny.safetensors", net, net.state_dict(), Recipe(trained_on="many").to_json())
    np.save(folder / "many.npy", digits[:60])
    np.save(folder / "small.npy", digits[:60, 2:26:3, 2:26:3])  # 8x8: a teacher fills at least 2,048 of them
    np.save(folder / "holes.npy", np.where(stream(0, "holes").random((24, 28, 28)) < 0.3, np.nan, digits[:24] / 255))
    (folder / "scans").mkdir()
    for i, digit in enumerate(digits[:4]):
        Image.fromarray(digit).save(folder / "scans" / f"{i}.png")
    return folder


def start(words: str, folder: Path, more: dict[str, str] | None = None) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "inkfill", *words.split()],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **(more or {})},
    )  # fmt: skip


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def found(folder: Path) -> dict[str, str]:
    """Hashes of the files of a folder by name, without locks and files with timings."""
    timed = ("*.lock", "*.json", "*.npz", "report.html", "index.html")
    files = [p for p in folder.rglob("*") if p.is_file() and not any(p.match(each) for each in timed)]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.check
@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_is_repeated(name, bench, tmp_path, record_property):
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
    record_property("figures", f"kills: {name}: {KILLS} of {KILLS} survived")


def going_on(out: Path, how: str) -> str:
    """The command that resumes a training, or starts it where nothing was saved; every step saves."""
    saved = (out / "state.pt").exists()
    return f"train --out {out.name} {'--resume' if saved else how + ' --overwrite'} --save-seconds 0"


def weights(out: Path) -> str:
    return hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()


def trained(folder: Path, how: str) -> None:
    process = start(going_on(folder / "made", how), folder)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr.decode()


@pytest.mark.check
@pytest.mark.parametrize("name", TRAININGS)
def test_a_killed_training_resumes_to_the_same_bits(name, bench, tmp_path, record_property):
    """Killed at random moments, also before the first save; started again when it has finished."""
    how, rng, kills, ends = TRAININGS[name], stream(0, "kills", name), 0, 0
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    for place in (whole, folder):
        shutil.copytree(bench, place)
    began = time.monotonic()
    trained(whole, how)
    seconds, out = time.monotonic() - began, folder / "made"
    while kills < KILLS:
        process = start(going_on(out, how), folder)
        time.sleep(rng.uniform(STARTED, max(2 * STARTED, seconds * 0.7)))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode == 0:  # it was faster
            assert weights(out) == weights(whole / "made")
            shutil.rmtree(out)
            ends += 1
            continue
        kills += 1
        if (out / "state.pt").exists():
            load_state(out / "state.pt")
            load_network(out / "model.safetensors")
    trained(folder, how)
    assert weights(out) == weights(whole / "made")
    record_property(
        "figures", f"kills: {name}: {kills} of {kills} survived, {ends + 1} trainings ended in the same bits"
    )


@pytest.mark.check
@pytest.mark.parametrize("victim", [0, 1])
def test_one_process_of_two_is_killed(victim, bench, tmp_path, record_property):
    """The other ends within a minute with a one-line error; the resumed run ends in the same bits."""
    how, waits = TRAININGS["train"], []
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    for place in (whole, folder):
        shutil.copytree(bench, place)

    def both(place: Path) -> list[subprocess.Popen]:
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        words = going_on(place / "made", how)
        return [start(words, place, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(2)]

    def ended(processes: list[subprocess.Popen]) -> None:
        for process in processes:
            _, stderr = process.communicate(timeout=300)
            assert process.returncode == 0, stderr.decode()

    ended(both(whole))
    rng, out = stream(0, "kills", victim), folder / "made"
    for _ in range(max(1, KILLS // 10)):
        before = (out / "state.pt").stat().st_mtime_ns if (out / "state.pt").exists() else None
        processes = both(folder)
        while processes[0].poll() is None:  # until they have found each other, and made a step
            if (out / "state.pt").exists() and (out / "state.pt").stat().st_mtime_ns != before:
                break
            time.sleep(0.01)
        time.sleep(rng.uniform(0, STARTED))
        processes[victim].send_signal(signal.SIGKILL)
        began = time.monotonic()
        _, stderr = processes[1 - victim].communicate(timeout=60)
        waits.append(time.monotonic() - began)
        processes[victim].communicate()
        if processes[victim].returncode == 0:  # it was faster
            shutil.rmtree(out)
            continue
        lines = [line for line in stderr.decode().splitlines() if line.startswith("inkfill: ")]
        assert processes[1 - victim].returncode not in (0, None), stderr.decode()
        assert len(lines) == 1, stderr.decode()
        assert "Traceback" not in stderr.decode()
    ended(both(folder))
    assert weights(out) == weights(whole / "made")
    record_property("figures", f"kills: process {victim} of two: the other ended within {max(waits):.0f} s")
