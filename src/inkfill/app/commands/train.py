"""``inkfill train``."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from inkfill.app import options
from inkfill.app.choices import CHOICES
from inkfill.app.options import COUNT, PATH, SEED, option
from inkfill.errors import InputError
from inkfill.files import check_apart

NEEDS = {"rounds": "data_mask", "pairs": "teacher"}  # options that require another


@click.command()
@option("--out", type=PATH, required=True, help="Folder of the run: weights, metrics, figures.")
@options.data
@option("--minutes", type=click.FloatRange(0.01, 100_000), help="Training time in minutes.")
@option("--steps", type=COUNT, help="Optimiser steps [default: 14000].")
@option("--resume", is_flag=True, help="Continue with the run's settings; --minutes or --steps then extend it.")
@options.overwrite
@option("--data-mask", metavar="MASK", help="Missing training pixels: nan, alpha, value:V, a file, a spec.")
@option("--rounds", type=click.IntRange(1, 1000), help="EM rounds for --data-mask [default: 4].")
@option("--augment", metavar="LIST", help="Augmentation: any of flip,shift,rotate90.")
@option("--masks", metavar="SPEC", help="Mask spec or mixture to train on [default: a broad mixture].")
@option("--objective", type=click.Choice(CHOICES["objectives"]), help="Training objective [default: v].")
@option(
    "--start", "--start-from", "start", metavar="FILE", help="Weights to start from; write --start-from under torchrun."
)
@option("--teacher", metavar="FILE", help="Weights of the teacher of a few-step model (--objective few).")
@option("--pairs", type=COUNT, help="Masked images that the teacher fills [default: 65536].")
@option("--batch-size", type=COUNT, help="Images per step [default: 64].")
@option("--learning-rate", type=float, help="Peak learning rate of AdamW [default: 0.003].")
@option("--muon-rate", type=float, help="Peak learning rate of Muon; 0 uses AdamW alone [default: 0.02].")
@option("--weight-decay", type=float, help="Weight decay, all parameters [default: 0.01].")
@option("--ema", type=float, help="EMA decay per step [default: 0.9995].")
@option("--decay", type=float, help="Share of the run in which the rate decays [default: 1].")
@option("--schedule", type=click.Choice(CHOICES["schedules"]), help="Noise schedule [default: cosine].")
@options.device
@options.dtype
@option("--save-seconds", type=click.FloatRange(0), default=60.0, help="Seconds between checkpoints.")
@option("--validate-every", type=COUNT, help="Steps between validations [default: 1000, or 250 with few images].")
@options.value_range
@option("--transform", type=click.Choice(CHOICES["transforms"]), help="Transform of values over several decades.")
@option("--floor", type=float, help="Samples within this of the lowest value become it [default: 4 or 0, by the data].")
@option("--seed", type=SEED, help="Random seed [default: 0].")
def train(
    out: Path,
    resume: bool,
    overwrite: bool,
    save_seconds: float,
    validate_every: int | None,
    device: str | None,
    value_range: tuple[float, float] | None,
    **settings: Any,
) -> None:
    """Train a network.

    \b
    inkfill train --out runs/mnist --minutes 10
    inkfill train --out runs/mine --data my-images/ --start mnist --minutes 5
    inkfill train --out runs/scans --data scans/ --data-mask alpha --minutes 20      incomplete images
    inkfill train --out runs/few --objective few --start mnist --teacher mnist --minutes 60
    inkfill train --out runs/mnist --resume            after Ctrl-C or a crash
    inkfill train --out runs/long --minutes 60 --decay 0.2
    inkfill train --out runs/long --resume --minutes 30    30 more, from the state before the decay
    torchrun --nproc-per-node 2 -m inkfill train --out runs/mnist --steps 5000

    Ctrl-C saves and stops. The folder gets model.safetensors (for --checkpoint), metrics.jsonl, and figures of samples
    for validation images. Two runs with equal --steps end in the same weights; with --minutes the clock decides.

    Objectives: v and eps train a diffusion model, few a few-step model (one or two network evaluations per sample),
    regression a baseline for inkfill evaluate.
    """
    from inkfill.app.report import training_picture
    from inkfill.training.config import TrainConfig
    from inkfill.training.folder import RunFolder
    from inkfill.training.run import train as run

    context = click.get_current_context()
    given = {k: v for k, v in settings.items() if context.get_parameter_source(k) != click.core.ParameterSource.DEFAULT}
    if value_range is not None:
        given["low"], given["high"] = value_range
    if "steps" in given and "minutes" in given:
        raise InputError("--minutes and --steps exclude each other: give one")
    for name, needed in NEEDS.items():
        if name in given and needed not in given:
            raise InputError(f"--{name} requires --{needed.replace('_', '-')}")
    more = {f"more_{name}": given.pop(name) for name in ("minutes", "steps") if resume and name in given}
    if resume and given:
        raise InputError("--resume takes all settings from the run: give --out alone, or --minutes or --steps more")
    check_apart(RunFolder(out).model, (given.get("start"), given.get("teacher")))
    show, config = partial(training_picture, RunFolder(out).figures), TrainConfig(**given)
    run(config, out, resume, overwrite, save_seconds, validate_every, on_validation=show, device=device, **more)
