"""Every command and Python block of docs/own-images.md, run in order on small data: trainings take two steps."""

import importlib.util
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import ROOT, commands, run
from inkfill.core.rng import stream

PAGE = ROOT / "docs" / "own-images.md"
BLOCK = re.compile(r"^```(\w*)\n.*?^```", re.MULTILINE | re.DOTALL)
TRAINING = re.compile(r"--minutes \d+|--steps 300 --batch-size 16")


def made(folder: Path, digits: np.ndarray) -> None:
    """Write the files that the page names."""
    rng = stream(0, "recipes")
    for name in ("scans", "torn", "holes", "icons", "sprites", "photos", "letters"):
        (folder / name).mkdir()
    for i, digit in enumerate(digits[:12]):
        hole = rng.random(digit.shape) < 0.3
        colour = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)
        Image.fromarray(np.stack([digit, np.where(hole, 0, 255).astype(np.uint8)], -1)).save(folder / f"torn/{i}.png")
        Image.fromarray(digit).save(folder / f"scans/{i}.png")
        Image.fromarray(hole.astype(np.uint8) * 255).save(folder / f"holes/{i}.png")
        Image.fromarray(colour).save(folder / f"icons/{i}.png")
        Image.fromarray(np.concatenate([colour, colour[..., :1]], -1)).save(folder / f"sprites/{i}.png")
        Image.fromarray(digit).save(folder / f"letters/{i}.png")
        Image.fromarray(colour).resize((24, 20)).save(folder / f"photos/{i}.png")
    np.save(folder / "digits.npy", digits[:3])
    np.save(folder / "heights.npy", np.where(rng.random((24, 16, 16)) < 0.3, np.nan, rng.normal(10, 2, (24, 16, 16))))
    photo = np.full((40, 48, 3), (10, 200, 90), np.uint8)
    Image.fromarray(photo).save(folder / "photo.png")
    photo[10:14, 5:40] = (255, 0, 0)
    Image.fromarray(photo).save(folder / "scratched.png")


@pytest.mark.check
def test_the_page_runs_as_it_stands(tmp_path, monkeypatch, capsys, digits):
    """Blocks run in order, since some need the files of others; each command succeeds and writes its output."""
    made(tmp_path, digits)
    monkeypatch.chdir(tmp_path)
    blocks = list(BLOCK.finditer(PAGE.read_text(encoding="utf-8")))
    assert any(block[1] == "python" for block in blocks)
    for block in blocks:
        if block[1] == "python":
            python(block[0])
        for line in commands(block[0]):
            command(line, capsys)


def command(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run one command, with two training steps in place of minutes."""
    if "ddpm-icons" in line:  # needs a folder of diffusers: tests/test_adapters.py
        return
    resumed = "--resume" in line
    words = TRAINING.sub("--steps 2" if resumed else "--steps 2 --batch-size 2", line)
    places = [Path(place) for place in re.findall(r"--(?:out|report|sheet) (\S+)", words)]
    for place in places:
        assert resumed == place.exists(), f"{line}: an earlier command wrote {place}"
    assert run(*shlex.split(words)[1:]) == 0, f"{line}\n{capsys.readouterr().err}"
    for place in places:
        assert place.exists(), line


def python(block: str) -> None:
    """Run one Python block; one that needs a package that is not installed is left out."""
    code = re.sub(r"^```.*$", "", block, flags=re.MULTILINE)
    if "scans.zarr" in code:
        if not all(importlib.util.find_spec(package) for package in ("dask", "zarr")):
            return
        importlib.import_module("zarr").save("scans.zarr", np.load("heights.npy"))
    exec(code.replace("minutes=10", "steps=2"), {})
