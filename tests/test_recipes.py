"""Every command of the recipes, run as it stands on small data made here: trainings make two steps."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inkfill.core.rng import stream
from test_cli import run
from test_docs import ROOT, commands

PAGES = [ROOT / "docs" / "recipes.md", *sorted((ROOT / "docs" / "recipes").glob("*.md"))]


def made(folder: Path, digits: np.ndarray) -> None:
    """What the recipes speak of."""
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


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_recipes_run_as_they_stand(page, tmp_path, monkeypatch, capsys, digits):
    """In their order, since some need what others made; every one ends well and writes what it says."""
    made(tmp_path, digits)
    monkeypatch.chdir(tmp_path)
    lines = list(commands(page.read_text()))
    for line in lines:
        words = re.sub(r"--minutes \d+", "--steps 2 --batch-size 2", line)
        if "ddpm-icons" in words:  # needs a folder of diffusers: tests/test_adapters.py
            continue
        out = Path(re.search(r"--(?:out|report) (\S+)", words + " --out -")[1])
        shutil.rmtree(out, ignore_errors=True)
        out.unlink(missing_ok=True)
        if "runs/imputer" in words:
            python(page)
        assert run(*shlex.split(words)[1:]) == 0, f"{line}\n{capsys.readouterr().err}"
        assert out.exists() or str(out) == "-", line
    if page.stem == "gaps":
        python(page)
    assert lines


def python(page: Path) -> None:
    """Run what a page has of Python."""
    for code in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        exec(code.replace("minutes=10", "steps=2"), {})
