"""README and docs: every command parses, local links exist, and the additions of extending.md work."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import click
import numpy as np
import pytest

from helpers import ROOT, commands
from inkfill.app.cli import cli
from inkfill.data.rendered import rendered

EXTENDING = ROOT / "docs" / "extending.md"
NOT_YET = ("template", "extending")  # a script fills templates in; the commands of extending.md need its additions
MADE = [page for page in sorted((ROOT / "docs").rglob("*.md")) if not any(word in page.name for word in NOT_YET)]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *MADE]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page):
    for line in commands(page.read_text()):
        name, *words = shlex.split(line.removeprefix("inkfill "))
        command = cli.commands.get(name)
        assert command is not None, line
        context = click.Context(command, info_name=name)
        try:
            command.parse_args(context, [word for word in words if word != "..."])
        except click.UsageError as error:
            pytest.fail(f"{page.name}: {line}: {error.format_message()}")


def test_there_are_commands_to_parse():
    assert sum(len(list(commands(page.read_text()))) for page in PAGES) > 12


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not re.match(r"[a-z]+:", target):
            places = (page.parent / target, page.parent.parent / target)  # the site has copies of the notebooks
            assert any(place.exists() for place in places), f"{page.name}: {target}"


# ---- docs/extending.md -----------------------------------------------------------------------------------------------


def additions() -> dict[str, str]:
    """The code blocks of extending.md by the file that the text before each of them names."""
    parts = re.split(r"^```python\n(.*?)^```", EXTENDING.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {re.findall(r"`(src/[\w/]+\.py)`", text)[-1]: code for text, code in zip(parts[::2], parts[1::2])}  # noqa: B905


def test_seven_additions_of_about_ten_lines():
    found = additions()
    assert len(found) == 7
    for path, code in found.items():
        compile(code, path, "exec")
        assert (ROOT / path).is_file()
        assert len([line for line in code.splitlines() if line]) <= 10
    assert len(EXTENDING.read_text().split()) <= 400


@pytest.mark.check
def test_the_additions_work(tmp_path):
    """Applied to a copy of the package: the names are registered, and the commands of the page run."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for path, code in additions().items():
        with (tmp_path / path).open("a") as file:
            file.write("\n\n" + code)
    np.save(tmp_path / "digits.npy", rendered(3, 1, 1).train)
    np.savetxt(tmp_path / "heights.csv", np.linspace(0, 1, 28 * 28).reshape(28, 28), delimiter=",")

    def python(*words):
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=tmp_path, text=True, capture_output=True, check=False,
            env={**os.environ, "PYTHONPATH": str(tmp_path / "src")},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    python("inkfill.app.choices")
    names = {
        name for each in json.loads((tmp_path / "src/inkfill/app/choices.json").read_text()).values() for name in each
    }
    assert {"relaxed", "half-ancestral", "sigmoid", "x0", "squares"} <= names
    for line in commands(EXTENDING.read_text()):
        python("inkfill", *shlex.split(line.replace("--steps 500", "--steps 2"))[1:])
        assert (tmp_path / line.split()[-1]).exists()
    assert np.load(tmp_path / "filled.npy").shape == (3, 8, 28, 28)
    assert np.load(tmp_path / "heights.npy").shape == (1, 8, 28, 28)
