"""``inkfill demo``, ``page`` and ``export``."""

from pathlib import Path

import click

from inkfill.app import options
from inkfill.app.options import PATH, Network, bar, echo, option


@click.command()
@option("--out", type=PATH, default="inkfill-demo", help="Folder to write.")
@options.data
@options.seed
@options.network
@options.overwrite
def demo(out: Path, data: str, seed: int, network: Network, overwrite: bool) -> None:
    """Fill masked test digits, and write a page that shows how.

    The page has figures, an animation and scores, and takes under two minutes on two cores. An earlier demonstration in
    the folder is replaced; a folder with other files is refused.
    """
    from inkfill.app.demo import is_demo, write_demo
    from inkfill.app.files import check_folder
    from inkfill.data import load

    check_folder(out, overwrite or is_demo(out), (data, network.checkpoint))
    page = write_demo(network.load(), load(data), out, seed, bar, network.checkpoint)
    echo(f"open {page}")


@click.command()
@option("--out", type=PATH, required=True, help="FILE.html, or a folder for index.html.")
@options.checkpoint
@option("--float32", is_flag=True, help="Store weights in float32: twice the size, same samples as Python.")
@options.overwrite
def page(out: Path, checkpoint: Path | None, float32: bool, overwrite: bool) -> None:
    """Write a web page for painting masks and filling them: one file that works offline.

    \b
    inkfill page --out inkfill.html
    inkfill page --out mine.html --checkpoint runs/mine
    """
    from inkfill.app.files import check_file
    from inkfill.web.page import page_file, write_page

    check_file(page_file(out), overwrite, (".html", ".htm"), (checkpoint,))
    echo(f"open {write_page(checkpoint, out, float32)}")


@click.command()
@option("--out", type=PATH, required=True, help="Folder to write.")
@option(
    "--format",
    "kind",
    type=click.Choice(["onnx", "diffusers"]),
    required=True,
    help="onnx: networks and coefficients; diffusers: an unconditional pipeline.",
)
@options.checkpoint
@options.steps
@options.sampler
@options.overwrite
def export(
    out: Path, kind: str, checkpoint: Path | None, steps: int | None, sampler: str | None, overwrite: bool
) -> None:
    """Export a network to ONNX or diffusers.

    \b
    inkfill export --format onnx --out onnx/                       embed.onnx, step.onnx, sampler.json, README.md
    inkfill export --format diffusers --out ddpm-digits/ --checkpoint runs/mine
    """
    from inkfill.app.files import check_folder
    from inkfill.models import export as write
    from inkfill.models.model import load

    check_folder(out, overwrite, (checkpoint,))
    model = load(checkpoint, "cpu", "float32")
    if kind == "onnx":
        write.write_onnx(model, out, sampler, steps)
    else:
        write.write_diffusers(model, out)
    echo(f"wrote {out}; see {out / 'README.md'}")
