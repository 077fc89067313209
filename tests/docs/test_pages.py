"""What the pages say can be typed: every command in the README and in docs/ parses, and local links lead somewhere."""

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

NOT_YET = ("template", "extending")  # filled in by a script; commands of what is added there, which are run below
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
    assert len(list(commands((ROOT / "README.md").read_text()))) > 12


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not re.match(r"[a-z]+:", target):
            places = (page.parent / target, page.parent.parent / target)  # the site has copies of the notebooks
            assert any(place.exists() for place in places), f"{page.name}: {target}"


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the source with every change of docs/extending.md, and digits to use it on."""
    folder = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    changes = re.findall(r"^```diff\n(.*?)^```", (ROOT / "docs" / "extending.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(changes) == 3
    for change in changes:
        subprocess.run(["git", "apply", "-"], cwd=folder, input=change, text=True, check=True)
    np.save(folder / "digits.npy", rendered(40, 1, 1).train)
    np.savetxt(folder / "heights.csv", np.linspace(0, 1, 28 * 28).reshape(28, 28), delimiter=",")
    return folder


@pytest.mark.parametrize(
    "words",
    [
        "inpaint digits.npy --mask half:left --method relaxed --set pull=0.8 --steps 3 --samples 1 --out filled.npy",
        "train --data digits.npy --objective x0 --steps 2 --out runs/x0",
        "inpaint heights.csv --mask box:10 --range 0 1 --steps 2 --samples 2 --out filled2.npy",
    ],
)
def test_what_is_added_by_the_page_works(words, extended):
    done = subprocess.run(
        [sys.executable, "-m", "inkfill", *words.split()], cwd=extended, text=True, capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": str(extended / "src")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (extended / words.split()[-1]).exists()
