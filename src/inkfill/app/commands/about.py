"""``inkfill info``, ``methods``, ``masks`` and ``completion``."""

from pathlib import Path

import click

from inkfill import defaults
from inkfill.app import options
from inkfill.app.options import PATH, echo, option


@click.command()
@click.argument("checkpoint", metavar="FILE", type=PATH, required=False)
def info(checkpoint: Path | None) -> None:
    """Describe a checkpoint or a run: network, training, sampling.

    \b
    inkfill info mnist
    inkfill info runs/mine
    """
    from dataclasses import asdict

    from inkfill.models.checkpoint import find_checkpoint
    from inkfill.models.model import load

    path = find_checkpoint(checkpoint)
    model = load(path, "cpu")
    echo(f"{path}\n{model!r}")
    for name, value in asdict(model.recipe).items():
        lines = value.items() if isinstance(value, dict) else [("", value)]
        for key, each in lines:
            echo(f"  {name}{'.' * bool(key)}{key}: {each}")


@click.command()
def methods() -> None:
    """List the inpainting methods: paper, NFE, settings, and when they are exact."""
    from inkfill.methods import METHODS
    from inkfill.tables import markdown

    steps = defaults.STEPS
    lines = []
    for name, method in METHODS.items():
        settings = ", ".join(f"{key}={value:g}" for key, value in method.defaults().items())
        gradient, noisy = ("yes" if flag else "no" for flag in (method.gradient, method.noisy))
        lines.append([name, method.evaluations(steps), gradient, noisy, method.exact, settings, method.paper])
    headings = ("method", f"NFE at {steps} steps", "gradient", "noisy y", "exact when", "--set", "paper")
    echo(markdown(headings, lines, left=len(headings)))


@click.command()
@option("--out", type=PATH, required=True, help="FILE.png to write.")
@option("--size", type=click.IntRange(16, 1024), default=28, help="Side of a mask in pixels.")
@options.seed
@options.overwrite
def masks(out: Path, size: int, seed: int, overwrite: bool) -> None:
    """Draw a sheet of all mask families.

    \b
    inkfill masks --out sheet.png

    Blue pixels are missing. not:SPEC inverts, SPEC+SPEC is a union, SPEC@2,SPEC@1 a mixture with weights.
    """
    from inkfill.app.demo import mask_sheet
    from inkfill.app.figures import save_picture
    from inkfill.app.files import check_file

    check_file(out, overwrite, (".png",))
    save_picture(mask_sheet(size, seed), out)
    echo(f"wrote {out}")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the shell's completion script.

    \b
    eval "$(inkfill completion bash)"                        in ~/.bashrc; zsh alike
    inkfill completion fish > ~/.config/fish/completions/inkfill.fish
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    root = click.get_current_context().find_root().command
    click.echo(made(root, {}, "inkfill", "_INKFILL_COMPLETE").source())
