"""``inkfill evaluate``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from inkfill import defaults
from inkfill.app import options
from inkfill.app.choices import CHOICES
from inkfill.app.options import COUNT, PATH, Network, bar, echo, numbers, option, shared

if TYPE_CHECKING:
    from inkfill.evaluation.protocol import Evaluation


@click.command(epilog=f"Baselines: {', '.join(CHOICES['baselines'])}, regression.")
@options.data
@option("--data-mask", metavar="MASK", help="Missing pixels of the images: filled, and not scored.")
@options.value_range
@option("--split", type=click.Choice(["test", "validation"]), default="test", help="Data split.")
@option(
    "--mask",
    "specs",
    multiple=True,
    default=defaults.EVALUATION_MASKS,
    help="Mask: spec, file or folder; repeatable.",
)
@option("--count", type=COUNT, default=1000, help="Number of images.")
@option("--samples", type=click.IntRange(1, 10_000), default=defaults.SAMPLES, help="Samples per image.")
@option("--method", "names", multiple=True, help="Method or baseline; repeatable [default: set by the weights].")
@options.set_
@option(
    "--steps", "counts", type=COUNT, multiple=True, help="Sampling steps; repeatable [default: set by the weights]."
)
@options.sampler
@options.seed
@options.network
@option("--regression", type=PATH, help="Weights trained with --objective regression.")
@option("--out", type=PATH, help="Folder for results.json and report.html.")
@options.overwrite
def evaluate(
    data: str,
    data_mask: str | None,
    value_range: tuple[float, float] | None,
    split: str,
    specs: tuple[str, ...],
    count: int,
    samples: int,
    names: tuple[str, ...],
    settings: tuple[str, ...],
    counts: tuple[int, ...],
    sampler: str | None,
    seed: int,
    network: Network,
    regression: Path | None,
    out: Path | None,
    overwrite: bool,
) -> None:
    """Score samples of held-out images, over missing pixels only.

    \b
    inkfill evaluate
    inkfill evaluate --mask half:left --mask strokes --samples 16 --count 200 --out results/
    inkfill evaluate --method conditional --method ddnm --method nearest --steps 10 --steps 50 --out results/
    inkfill evaluate --data scans/ --data-mask alpha --mask strokes --checkpoint runs/scans
    torchrun --nproc-per-node 2 -m inkfill evaluate --out results/        two processes

    With --out, samples are stored as they are drawn: the same command continues after a stop, and a command with more
    masks or methods draws only the new ones. The page and results.json show the last command.

    CRPS and energy score (lower is better) reward sharp and calibrated samples; the data range is [0, 1] there, and
    "units" are those of the images. NFE: network evaluations per sample. A folder of masks, or a .npy [N,H,W], has one
    for each image of --data. With --data-mask, --mask hides more pixels, and only those are scored. --mask all adds a
    table of unconditional samples. bbox:N is placed from missing pixels, as no real mask could be.
    """
    from inkfill.app.files import check_growing
    from inkfill.data import load as load_data
    from inkfill.evaluation import protocol
    from inkfill.models.model import load

    if out:
        check_growing(out, overwrite, "evaluate", (data, network.checkpoint, regression, *specs))
    given, masks = numbers(settings), [protocol.scorable(spec) for spec in specs]
    protocol.plan(
        specs, names or [defaults.METHOD], [1], settings=given, named=specs
    )  # raises before anything is loaded
    with shared(network) as (group, at):
        model = at.prior()
        networks = protocol.Networks(model, load(regression, at.device, at.dtype) if regression else None)
        steps, sampler = counts or [model.steps or defaults.STEPS], sampler or model.sampler or defaults.SAMPLER
        methods = names or [model.method or defaults.METHOD]
        cells = protocol.plan(specs, methods, steps, samples, seed, sampler, given, value_range, specs)
        dataset = load_data(data, data_mask or "", seed)
        of_files = protocol.file_masks(masks, dataset, data, split)
        found = protocol.run(networks, dataset, split, count, cells, out, overwrite, group, bar, of_files)
    if found is not None:
        _report(found, out)


def _report(found: "Evaluation", out: Path | None) -> None:
    """Write an evaluation, then print it: printing fails where the reader of a pipe has closed it."""
    from inkfill.app.report import write_evaluation
    from inkfill.evaluation.scores import LABEL_COLUMNS, NEW_COLUMNS
    from inkfill.tables import table

    if out:
        found.write(out / "results.json")
        page = write_evaluation(out, found)
    echo(found.summary)
    echo(table(found.rows, found.columns))
    if found.labelled:
        echo(table(found.rows, LABEL_COLUMNS))
    for line in found.advice:
        echo(line)
    if found.generated:
        echo("Unconditional samples:\n" + table(found.generated, NEW_COLUMNS))
    if out:
        echo(f"wrote {out / 'results.json'} and {page}")
