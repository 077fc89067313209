"""What the pages say can be typed: every command in the README and in docs/ parses, and local links lead somewhere."""

import re
import shlex
from pathlib import Path

import click
import pytest

from inkfill.app.cli import cli

ROOT = Path(__file__).parent.parent
MADE = [page for page in sorted((ROOT / "docs").glob("*.md")) if not page.name.endswith(".template.md")]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *MADE]


def commands(text):
    """Lines of code blocks that call inkfill, continued ones joined."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            line = re.sub(r"^(\.venv/bin/|torchrun \S+ \S+ -m )", "", line.strip())
            if line.startswith("inkfill "):
                yield re.split(r"\s+#\s", line)[0]


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
            assert (page.parent / target).exists(), f"{page.name}: {target}"
