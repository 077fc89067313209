"""Every command of docs/recipes.md, run as it stands on small data made here: trainings make two steps."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inkfill.rng import stream
from test_cli import run
from test_docs import ROOT, commands

WORDS = list(commands((ROOT / "docs" / "recipes.md").read_text()))


def made(folder: Path, digits: np.ndarray) -> None:
    """What the recipes speak of."""
    rng = stream(0, "recipes")
    for name in ("scans", "torn", "holes", "icons", "photos", "letters"):
        (folder / name).mkdir()
    for i, digit in enumerate(digits[:12]):
        hole = rng.random(digit.shape) < 0.3
        colour = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)
        Image.fromarray(np.stack([digit, np.where(hole, 0, 255).astype(np.uint8)], -1)).save(folder / f"torn/{i}.png")
        Image.fromarray(digit).save(folder / f"scans/{i}.png")
        Image.fromarray(hole.astype(np.uint8) * 255).save(folder / f"holes/{i}.png")
        Image.fromarray(colour).save(folder / f"icons/{i}.png")
        Image.fromarray(digit).save(folder / f"letters/{i}.png")
        Image.fromarray(colour).resize((24, 20)).save(folder / f"photos/{i}.png")
    np.save(folder / "digits.npy", digits[:3])
    np.save(folder / "heights.npy", np.where(rng.random((24, 16, 16)) < 0.3, np.nan, rng.normal(10, 2, (24, 16, 16))))
    photo = np.full((40, 48, 3), (10, 200, 90), np.uint8)
    Image.fromarray(photo).save(folder / "photo.png")
    photo[10:14, 5:40] = (255, 0, 0)
    Image.fromarray(photo).save(folder / "scratched.png")


@pytest.fixture(scope="module")
def place(tmp_path_factory, digits):
    folder = tmp_path_factory.mktemp("recipes")
    made(folder, digits)
    return folder


@pytest.mark.slow
def test_recipes_run_as_they_stand(place, monkeypatch, capsys):
    """In their order, since some need what others made; every one ends well and writes what it says."""
    monkeypatch.chdir(place)
    ran = 0
    for line in WORDS:
        words = re.sub(r"--minutes \d+", "--steps 2 --batch-size 2", line)
        if "ddpm-icons" in words:  # needs a folder of diffusers: tests/test_adapters.py
            continue
        out = Path(re.search(r"--(?:out|report) (\S+)", words + " --out -")[1])
        shutil.rmtree(out, ignore_errors=True)
        out.unlink(missing_ok=True)
        assert run(*shlex.split(words)[1:]) == 0, f"{line}\n{capsys.readouterr().err}"
        assert out.exists() or str(out) == "-", line
        ran += 1
    assert ran > 12
