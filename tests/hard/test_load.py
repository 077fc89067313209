"""Large inputs at constant memory: a million digits, an image of 4096x4096 with 1,000 holes, two hours of training.

``INKFILL_HARD`` / 1,000,000 is the fraction of that (``make hard``: all of it). The peak resident sets of processes,
shared pages included, are compared.
"""

import json
import os
import re
import sys
import time
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import psutil
import pytest
from PIL import Image

from inkfill.core.rng import stream

SHARE = int(os.environ.get("INKFILL_HARD", "10000")) / 1_000_000
DIGITS = int(1_000_000 * SHARE)
SIDE, HOLES = (4096, 1000) if SHARE >= 0.1 else (1024, 250)
SECONDS = 7200 * SHARE if SHARE >= 0.1 else 20.0
MORE = 64 * 2**20  # bytes of tolerance for the allocator


def held(words: list[str]) -> tuple[int, list[int]]:
    """Run a command: its peak memory in bytes, and its memory ten times a second."""
    most, found = 0, []
    with TemporaryFile() as stderr:  # a full pipe would stop the progress bar, and the command
        process = psutil.Popen([sys.executable, "-m", "inkfill", *words], stderr=stderr)
        while process.poll() is None:
            try:
                found.append(process.memory_info().rss)
                peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
                most = max(most, 1024 * int(peak[1]) if peak else found[-1])
            except (psutil.Error, OSError):  # it has just ended
                break
            time.sleep(0.1)
        stderr.seek(0)
        assert process.wait() == 0, stderr.read().decode()
    return most, found


def megabytes(count: float) -> str:
    return f"{count / 2**20:,.0f} MiB"


@pytest.mark.check
def test_many_digits(checkpoint, tmp_path, digits, record_property):
    peaks = {}
    for count in (2000, max(4000, DIGITS)):
        path, out = tmp_path / f"{count}.npy", tmp_path / f"{count}-filled.npy"
        many = np.lib.format.open_memmap(path, "w+", np.uint8, (count, 28, 28))
        for start in range(0, count, len(digits)):
            many[start : start + len(digits)] = digits[: count - start]
        many.flush()
        del many
        began = time.monotonic()
        words = f"inpaint {path} --mask half:left --samples 1 --steps 1 --checkpoint {checkpoint} --out {out}"
        peaks[count], seconds = held(words.split())[0], time.monotonic() - began
        assert np.load(out, mmap_mode="r").shape == (count, 1, 28, 28)
        out.unlink()
    few, many = peaks.values()
    record_property(
        "figures",
        f"load: {count:,} digits in {seconds:,.0f} s: at most {megabytes(many)}, as for 2,000: {megabytes(few)}",
    )
    assert many < few + MORE


@pytest.mark.check
def test_a_large_image_with_many_holes(checkpoint, tmp_path, record_property):
    """Memory does not grow with the number of holes."""
    rng = stream(0, "load")
    Image.fromarray(rng.integers(0, 256, (SIDE, SIDE)).astype(np.uint8)).save(tmp_path / "large.png")
    peaks = {}
    for holes in (HOLES, 4 * HOLES):  # more than go through the network together
        mask = np.zeros((SIDE, SIDE), np.uint8)
        for y, x in rng.integers(0, SIDE - 20, (holes, 2)):
            mask[y : y + 12, x : x + 12] = 255
        Image.fromarray(mask).save(tmp_path / "holes.png")
        words = f"inpaint {tmp_path / 'large.png'} --mask {tmp_path / 'holes.png'} --checkpoint {checkpoint} --steps 2"
        words += f" --samples 1 --overwrite --out {tmp_path / 'filled.png'}"
        began = time.monotonic()
        peaks[holes], _ = held(words.split())
        seconds = time.monotonic() - began
        filled = np.asarray(Image.open(tmp_path / "filled.png"))
        assert (filled == np.asarray(Image.open(tmp_path / "large.png")))[mask == 0].all()
    few, many = peaks.values()
    what = f"load: an image of {SIDE}x{SIDE} with {HOLES:,} holes: at most {megabytes(few)}"
    record_property("figures", f"{what}; with {4 * HOLES:,}, in {seconds:,.0f} s, {megabytes(many)}")
    assert many < few + MORE


@pytest.mark.check
def test_training_holds_its_memory(checkpoint, tmp_path, digits, record_property):
    np.save(tmp_path / "many.npy", digits)
    words = f"train --data {tmp_path / 'many.npy'} --start {checkpoint} --batch-size 8 --minutes {SECONDS / 60}"
    words += f" --save-seconds 2 --validate-every 200 --out {tmp_path / 'run'}"
    _, found = held(words.split())
    third = len(found) // 3
    early, late = max(found[third : 2 * third]), max(found[2 * third :])
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").open()][-1]
    what, when = f"load: {SECONDS / 60:,.1f} minutes of training, {steps:,} steps", "in the second third"
    record_property("figures", f"{what}: at most {megabytes(early)} {when}, {megabytes(late)} in the last")
    assert late < early + MORE / 2
