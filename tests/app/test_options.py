"""Options and help: registered names are current, and help needs no torch."""

import subprocess
import sys

import click
import numpy as np
import pytest

from helpers import refused, run
from inkfill.app.choices import CHOICES, registered
from inkfill.app.cli import cli
from inkfill.app.options import numbers
from inkfill.errors import InputError


def test_the_registered_names_are_current():
    """Otherwise run ``python -m inkfill.app.choices``."""
    assert registered() == CHOICES


@pytest.mark.parametrize("words", [["--help"], ["inpaint", "--help"]])
def test_help_imports_no_torch(words):
    code = f"import sys; sys.argv = ['inkfill', *{words}]; from inkfill.app.cli import main\n"
    code += "try: main()\nfinally: print({'torch', 'numpy'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: " in result.stdout
    assert result.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("command", ["", *cli.commands])
def test_help(command, capsys):
    assert run(*filter(None, [command]), "--help") == 0
    assert f"Usage: inkfill {command}".strip() in capsys.readouterr().out


def test_no_arguments_print_the_help(capsys):
    assert run() == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) > 15
    assert all(f"  {name} " in said for name in cli.commands)


@pytest.mark.parametrize("name", cli.commands)
def test_every_option_has_a_short_help_text(name):
    for option in cli.commands[name].params:
        if isinstance(option, click.Option):
            text = (option.help or "").split("[default")[0]
            assert 1 <= len(text.split()) <= 12, option.name
            assert text.strip()[0].isupper() or not text.strip()[0].isalpha() or text.startswith("onnx"), option.name


def test_settings_of_a_method_are_numbers():
    assert numbers(("strength=2", "eta=0.5")) == {"strength": 2.0, "eta": 0.5}
    for text in ("strength", "strength=", "=x", "strength=big"):
        with pytest.raises(InputError, match="NAME=NUMBER"):
            numbers((text,))


def test_bad_options(tmp_path, checkpoint, capsys, digits):
    images, out = tmp_path / "digits.npy", tmp_path / "o.npy"
    np.save(images, digits[:3])
    good = ["inpaint", images, "--mask", "half:left", "--out", out, "--checkpoint", checkpoint]
    refused(capsys, *good, "--method", "magic", says=["magic", "conditional"])
    refused(capsys, *good, "--sampler", "magic", says=["ddim"])
    refused(capsys, *good, "--steps", 0, says=["steps"])
    refused(capsys, *good, "--steps", 5000, says=["1000"])
    refused(capsys, *good, "--steps", 10**9, says=["steps"])
    refused(capsys, *good, "--samples", 0, says=["samples"])
    refused(capsys, *good, "--samples", 10**9, says=["samples"])
    refused(capsys, *good, "--nonsense", says=["--nonsense"])
    refused(capsys, *good, "--device", "nonsense", says=["nonsense", "cpu"])
    refused(capsys, *good, "--device", "cuda:99", says=["cuda:99", "cpu"])
    (tmp_path / "file").touch()
    refused(capsys, *good, "--report", tmp_path / "file", says=["folder"])
    refused(capsys, "inpaint", images, "--out", out, says=["--mask"])
    refused(capsys, "inpaint", images, "--mask", "half:left", says=["--out"])
    refused(capsys, "evaluate", "--data", "emnist", "--checkpoint", checkpoint, says=["emnist", "rendered"])
    refused(capsys, "evaluate", "--mask", "half:up", says=["half:left"])
    refused(capsys, "nonsense", says=["nonsense"])
    assert not out.exists()


def test_options_without_effect_are_refused(tmp_path, checkpoint, capsys, digits):
    images = tmp_path / "digits.npy"
    np.save(images, digits[:3])
    words = ["inpaint", images, "--checkpoint", checkpoint, "--out", tmp_path / "x.npy"]
    refused(capsys, *words, "--mask", "nan", says=["--mask nan", "nothing to fill"])
    refused(capsys, *words, "--mask", "half:left", "--mask-colour", "red", says=["--mask half:left is none"])
    refused(capsys, *words, "--mask", "half:left", "--sheet", tmp_path / "x.npy", says=["one name"])
