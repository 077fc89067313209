"""The command line: parses, calls, prints. Bad input is one line on stderr and a non-zero exit status."""

import contextlib
import errno
import functools
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inkfill import defaults
from inkfill.errors import InputError, remark, shown

if TYPE_CHECKING:  # torch takes a second to import; a command imports it when it runs
    from inkfill.adapters import Foreign
    from inkfill.evaluation.protocol import Evaluation
    from inkfill.model import Model
    from inkfill.training.processes import Processes

option = click.option
PATH = click.Path(path_type=Path)


@dataclass(frozen=True)
class Network:
    """What --checkpoint, --device and --dtype chose; loaded when it is needed."""

    checkpoint: Path | None
    device: str | None
    dtype: str | None

    def load(self) -> "Model":
        """Raises InputError."""
        from inkfill.model import load

        return load(self.checkpoint, self.device, self.dtype)

    def prior(self) -> "Model | Foreign":
        """The same, or a foreign model from a folder of diffusers. Raises InputError."""
        from inkfill import adapters
        from inkfill.model import find_device

        if self.checkpoint and adapters.is_diffusers(self.checkpoint):
            return adapters.from_diffusers(self.checkpoint, find_device(self.device))
        return self.load()


def network_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that choose a network, given to a command as one ``network``."""

    @functools.wraps(command)
    def called(checkpoint: Path | None, device: str | None, dtype: str | None, **other: Any) -> None:
        command(network=Network(checkpoint, device, dtype), **other)

    for add in (dtype_option, device_option, checkpoint_option):
        called = add(called)
    return called


SEED = click.IntRange(0, 2**64 - 1)
checkpoint_option = option(
    "--checkpoint", type=PATH, help="A file, mnist or mnist-few; for inpaint and sample a folder of diffusers too."
)
seed_option = option("--seed", type=SEED, default=0, show_default=True, help="Of everything random.")
steps_option = option(
    "--steps",
    type=click.IntRange(1, 10_000),
    help="Noise levels visited; most methods evaluate the network once at each [default: what suits the weights].",
)
sampler_option = option(
    "--sampler",
    type=click.Choice(defaults.SAMPLERS),
    help="How to go from noise to image [default: what suits the weights].",
)
method_option = option("--method", help="Inpainting method; see inkfill methods [default: what suits the weights].")
set_option = option(
    "--set", "settings", metavar="NAME=VALUE", multiple=True, help="A setting of the method, as strength=2; repeatable."
)
json_option = option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
overwrite_option = option("--overwrite", is_flag=True, help="Replace what is at --out.")
device_option = option("--device", help="cpu, cuda or mps [default: cuda where there is one].")
dtype_option = option("--dtype", type=click.Choice(defaults.DTYPES), help="Compute in [default: the faster here].")
range_option = option(
    "--range", "value_range", nargs=2, type=float, metavar="LOW HIGH", help="What black and white are [default: found]."
)
data_option = option(
    "--data", default="auto", show_default=True, help="auto (MNIST, else rendered), mnist, rendered, or a path."
)


def options_of_0_1(command: Callable[..., None]) -> Callable[..., None]:
    """What ``train`` called otherwise in version 0.1: it still works, and says how it is called now."""

    @functools.wraps(command)
    def called(look_every: int | None, float32: bool, **given: Any) -> None:
        renamed = {"--look-every": ("validate_every", look_every), "--float32": ("dtype", float32 and "float32")}
        for old, (name, value) in renamed.items():
            if value:
                remark(f"{old} will go: it is --{name.replace('_', '-')} {value} now")
                click.get_current_context().set_parameter_source(name, click.core.ParameterSource.COMMANDLINE)
                given[name] = value
        command(**given)

    called = option("--look-every", type=click.IntRange(1), hidden=True)(called)
    return option("--float32", is_flag=True, hidden=True)(called)


@click.group(
    invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(defaults.VERSION, prog_name="inkfill")
@click.pass_context
def cli(context: click.Context) -> None:
    """Fill holes in small images with denoising diffusion.

    \b
    inkfill demo                                              see it work
    inkfill inpaint digit.png --mask hole.png --out filled.png
    inkfill inpaint digits.npy --mask half:left --samples 8 --out filled.npy
    inkfill train --data my-pictures/ --minutes 10 --out runs/mine

    In a mask, True or white means missing: to be filled.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command()
@option("--out", type=PATH, default="inkfill-demo", show_default=True, help="Folder to write.")
@data_option
@seed_option
@network_options
@overwrite_option
def demo(out: Path, data: str, seed: int, network: Network, overwrite: bool) -> None:
    """Complete digits that nobody trained on, and show how it is done.

    Writes pictures, an animation and a page that shows them together. Takes under two minutes on two cores. An
    earlier demonstration in the same folder is replaced; a folder with anything else in it is left alone.
    """
    from inkfill.app.demo import is_demo, write_demo
    from inkfill.app.files import check_folder
    from inkfill.data import load

    check_folder(out, overwrite or is_demo(out))
    page = write_demo(network.load(), load(data), out, seed, _bar, network.checkpoint)
    _echo(f"open {page}")


@cli.command()
@option("--out", type=PATH, required=True, help="Folder of the run.")
@data_option
@option("--minutes", type=click.FloatRange(0.01, 100_000), help="Train for this long by the clock.")
@option("--steps", type=click.IntRange(1), help="Train for this many steps [default: 14000].")
@option("--resume", is_flag=True, help="Go on from the last save; every other setting comes from there.")
@overwrite_option
@option(
    "--data-mask",
    metavar="MASK",
    help="What of the images was never seen (nan, alpha, a file or folder of masks, a spec): none need be whole.",
)
@option(
    "--rounds", type=click.IntRange(1, 1000), help="Of --data-mask: how often images are completed anew [default: 4]."
)
@option("--augment", metavar="WHAT", help="Of few images: flip,shift,rotate90, where they leave an image what it is.")
@option("--masks", help="Mask mixture to train on [default: a broad one].")
@option(
    "--objective",
    type=click.Choice(defaults.OBJECTIVES),
    help="v or eps: diffusion, by the error of v or of the noise. few: draws in one or two evaluations. regression: "
    "one best guess, a reference for inkfill evaluate [default: v].",
)
@option(
    "--start",
    "--start-from",
    "start",
    metavar="FILE",
    help="Start from a checkpoint's weights (mnist: the shipped ones), to fine-tune them. The second name is for "
    "torchrun, which takes the first for its own.",
)
@option("--teacher", metavar="FILE", help="Of --objective few: a checkpoint to learn completions from as well (mnist).")
@option("--pairs", type=click.IntRange(1), help="Holes that the teacher completes first [default: 65536].")
@option("--batch-size", type=click.IntRange(1), help="Images per step [default: 64].")
@option("--learning-rate", type=float, help="AdamW's, at the top of its curve [default: 0.003].")
@option("--muon-rate", type=float, help="Muon's, of the weights inside; 0 leaves all to AdamW [default: 0.02].")
@option("--weight-decay", type=float, help="Of all weights, against learning by heart [default: 0.01].")
@option("--ema", type=float, help="Decay of the running mean of the weights, a step [default: 0.9995].")
@option("--schedule", type=click.Choice(defaults.SCHEDULES), help="Noise schedule [default: cosine].")
@dtype_option
@option("--save-seconds", type=click.FloatRange(0), default=60.0, show_default=True, help="Between two saves.")
@option(
    "--validate-every", type=click.IntRange(1), help="Steps between validations [default: 1000; of few images 250]."
)
@range_option
@option("--seed", type=SEED, help="Of everything random [default: 0].")
@options_of_0_1
def train(
    out: Path, resume: bool, overwrite: bool, save_seconds: float, validate_every: int | None, **settings: Any
) -> None:
    """Train a network from scratch.

    \b
    inkfill train --out runs/mnist --minutes 10
    inkfill train --out runs/mine --data my-pictures/ --start mnist --minutes 5
    inkfill train --out runs/scans --data scans/ --data-mask alpha --minutes 20      pictures of which none is whole
    inkfill train --out runs/few --objective few --start mnist --teacher mnist --minutes 60
    inkfill train --out runs/mnist --resume            after Ctrl-C, a crash or a power cut
    torchrun --nproc-per-node 2 -m inkfill train --out runs/mnist --steps 5000

    Ctrl-C saves and stops. The folder gets model.safetensors (for --checkpoint), metrics.jsonl and pictures of
    completions on validation images. With --minutes the clock decides when it ends, on a slow machine after fewer
    steps; with --steps two runs end in the same weights.
    """
    from inkfill.app.report import training_pictures
    from inkfill.training.config import TrainConfig
    from inkfill.training.run import train as run

    context = click.get_current_context()
    given = {k: v for k, v in settings.items() if context.get_parameter_source(k) != click.core.ParameterSource.DEFAULT}
    if "value_range" in given:
        given["low"], given["high"] = given.pop("value_range")
    if "steps" in given and "minutes" in given:
        raise InputError("give --minutes or --steps, not both")
    for name, needed in (("rounds", "data_mask"), ("pairs", "teacher")):
        if name in given and needed not in given:
            raise InputError(f"--{name} is of use with --{needed.replace('_', '-')} alone")
    if resume and given:
        raise InputError("--resume takes every setting from the run: give --out alone")
    pictures = training_pictures(out / "completions")
    run(TrainConfig(**given), out, resume, overwrite, save_seconds, validate_every, on_validation=pictures)


@cli.command()
@click.argument("images", type=PATH, nargs=-1, required=True)
@option("--mask", help="A spec (half:left), a picture (white = fill), a .npy, a folder of them, nan or alpha.")
@option("--out", type=PATH, help="FILE.npy, FILE.png, or a folder for pictures.")
@option(
    "--samples",
    type=click.IntRange(1, 10_000),
    help=f"Completions per image [default: {defaults.SAMPLES}; 1 for one picture into one .png].",
)
@option("--keep", type=click.Choice(["all", "mean", "central"]), default="all", show_default=True, help="Of samples.")
@option("--grey", is_flag=True, help="Make grey of colour first.")
@range_option
@option("--mask-colour", metavar="COLOUR", help="The mask picture has its holes in this colour: red or #ff0000.")
@option("--invert-mask", is_flag=True, help="Fill what the mask keeps, and keep what it fills.")
@option("--grow", type=click.IntRange(0, 1000), default=0, show_default=True, help="Grow the holes by so many pixels.")
@option(
    "--observation-noise",
    type=click.FloatRange(0),
    default=0.0,
    metavar="S",
    help="The known pixels have noise of this standard deviation, in the images' numbers: they are estimated too.",
)
@seed_option
@method_option
@set_option
@steps_option
@sampler_option
@network_options
@overwrite_option
@option("--sheet", type=PATH, help="Write one .png of all: masked, completions, mean and spread.")
@option("--report", type=PATH, help="Folder for a page on every image: see below.")
def inpaint(
    images: tuple[Path, ...],
    mask: str | None,
    out: Path | None,
    samples: int | None,
    mask_colour: str | None,
    invert_mask: bool,
    grow: int,
    seed: int,
    method: str | None,
    settings: tuple[str, ...],
    steps: int | None,
    sampler: str | None,
    network: Network,
    overwrite: bool,
    sheet: Path | None,
    report: Path | None,
    observation_noise: float,
    **other: Any,
) -> None:
    """Fill the holes in IMAGES, --samples times over.

    IMAGES is a .npy [N,H,W] or [N,H,W,C] of any number type, an IDX file (.gz too), pictures, or a folder of them, grey
    or colour, of any size. What comes in goes out: the number type, and every known pixel bit for bit.

    \b
    inkfill inpaint digit.png --mask hole.png --out filled.png
    inkfill inpaint scans/ --mask masks/ --out filled/                             paired by file name
    inkfill inpaint stack.npy --mask nan --range 0 1 --samples 16 --out filled.npy      float32 [N,16,H,W]
    inkfill inpaint - --mask hole.png --out - < digit.png > filled.png             standard input and output
    torchrun --nproc-per-node 2 -m inkfill inpaint long.npy --mask strokes --out filled.npy       by two processes

    One picture into one .png gives the picture, filled; --sheet FILE.png shows several completions side by side, with
    their mean and their spread; --keep mean or central writes one for all. Large pictures are filled through windows.

    --report DIR writes report.html with the completions of each image, their mean, a map of their spread and, with
    weights trained on MNIST, the digits that they are read as ("3: 5 of 8, 8: 3 of 8"); and the same as arrays.
    """
    from inkfill.app import files, fill
    from inkfill.data import masks
    from inkfill.evaluation.protocol import no_bar

    piped = out == files.PIPE
    with files.piped(images, out) as (images, out), _shared(network) as (group, network):
        files.check_outputs(out, sheet, report, overwrite)
        one = len(images) == 1 and images[0].is_file() and files.is_picture(images[0]) and not sheet and not report
        into_one = one and out is not None and out.suffix.lower() == ".png" and other["keep"] == "all"
        if mask_colour and mask is not None and (mask in masks.IN_IMAGES or masks.is_spec(mask)):
            raise InputError("--mask-colour looks for holes in a picture, and --mask names none")
        options = masks.MaskOptions(masks.parse_colour(mask_colour) if mask_colour else None, invert_mask, grow)
        how: dict[str, Any] = {"method": method, "steps": steps, "seed": seed, "sampler": sampler}
        how |= {"settings": _numbers(settings), "observation_noise": observation_noise}
        request = fill.Request(
            images, mask, out, sheet, report, samples or (1 if into_one else defaults.SAMPLES), mask_options=options,
            how=how, **other,
        )  # fmt: skip
        for text in fill.run(request, network.prior(), _bar if group.first else no_bar, group):
            if not piped:
                _echo(f"wrote {text}")


@cli.command()
@option("--out", type=PATH, required=True, help="FILE.npy, FILE.png, or a folder for pictures.")
@option("--count", type=click.IntRange(1, 1_000_000), default=64, show_default=True, help="How many.")
@option("--size", type=click.IntRange(8, 1024), help="Side in pixels [default: that of the training images].")
@seed_option
@steps_option
@sampler_option
@network_options
@overwrite_option
def sample(
    out: Path,
    count: int,
    size: int | None,
    seed: int,
    steps: int | None,
    sampler: str | None,
    network: Network,
    overwrite: bool,
) -> None:
    """Draw new images from nothing.

    \b
    inkfill sample --count 64 --out digits.png
    inkfill sample --count 10000 --out digits.npy        uint8 [N,H,W]

    By default with 16 network evaluations an image, few-step weights with
    their own.
    """
    from inkfill import inpainting
    from inkfill.app import files

    files.check_pictures(out, overwrite)
    files.check_sheet(out, count, files.SAMPLES_SHEET)
    model = network.prior()
    with _bar(count, "sample") as progress:
        drawn = inpainting.sample(model, count, (size, size) if size else None, steps, seed, sampler, progress)
    written = files.write_samples(out, drawn, model.value_range)
    _echo(f"wrote {written} of {drawn.shape[1]}x{drawn.shape[2]}")


@cli.command()
@data_option
@option("--split", type=click.Choice(["test", "validation"]), default="test", show_default=True)
@option(
    "--mask",
    "specs",
    multiple=True,
    default=defaults.EVALUATION_MASKS,
    help=f"Mask spec; may be repeated [default: {', '.join(defaults.EVALUATION_MASKS)}].",
)
@option("--count", type=click.IntRange(1), default=1000, show_default=True, help="Images, from the first on.")
@option("--samples", type=click.IntRange(1, 10_000), default=defaults.SAMPLES, show_default=True, help="Per image.")
@option(
    "--method",
    "names",
    multiple=True,
    help="As in inkfill methods, or mean, nearest, empirical, regression, biharmonic, telea, navier-stokes; may be "
    "repeated [default: what suits the weights].",
)
@set_option
@option(
    "--steps",
    "counts",
    type=click.IntRange(1),
    multiple=True,
    help="Noise levels visited; repeated, it gives a curve [default: what suits the weights].",
)
@sampler_option
@seed_option
@network_options
@option("--regression", type=PATH, help="Checkpoint trained with --objective regression.")
@option("--out", type=PATH, help="Folder for results.json and report.html.")
@overwrite_option
def evaluate(
    data: str,
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
    """Measure completions of held-out images, over missing pixels only.

    \b
    inkfill evaluate
    inkfill evaluate --mask half:left --mask strokes --samples 16 --count 200 --out results/
    inkfill evaluate --method conditional --method ddnm --method nearest --steps 10 --steps 50 --out results/
    torchrun --nproc-per-node 2 -m inkfill evaluate --out results/        the same figures, by two processes

    With --out, completions are kept as they are made: the same command after a stop goes on where it was, and one that
    asks for more masks or methods makes only those. The page and results.json show what the last command asked for.

    CRPS and energy score (lower is better) reward completions that are sharp and right about what is uncertain;
    intensities are in [0, 1]. PSNR of the mean of the completions, and of one completion, in dB. nfe: network
    evaluations per completion. confident: completions that a classifier reads with over 90 %, beside real digits.
    --mask all adds a table of images from nothing: imbalance of labels, distance to the nearest training image. bbox:N
    is placed from the digit itself, which a real mask cannot be.
    """
    from inkfill.app.files import check_folder
    from inkfill.data import load
    from inkfill.evaluation import protocol

    if out:
        # The lock alone is of an evaluation that could not begin.
        ours = out.is_dir() and {path.name for path in out.iterdir()} <= {"evaluate.lock"}
        check_folder(out, overwrite or ours or (out / "cells").is_dir())
    if "regression" in names and regression is None:
        raise InputError("the method regression needs --regression FILE (inkfill train --objective regression)")
    given = _numbers(settings)
    protocol.plan(
        specs, names or [defaults.METHOD], [1], settings=given
    )  # says what is wrong before anything is loaded
    with _shared(network) as (group, at):
        networks = protocol.Networks.load(at.checkpoint, regression, at.device, at.dtype)
        steps, sampler = counts or [networks.model.steps], sampler or networks.model.sampler
        cells = protocol.plan(specs, names or [networks.model.method], steps, samples, seed, sampler, given)
        found = protocol.run(networks, load(data), split, count, cells, out, overwrite, group, _bar)
    if found is not None:
        _tell(found, out)


def _tell(found: "Evaluation", out: Path | None) -> None:
    """Write an evaluation, and only then print it: whoever reads along may have gone."""
    from inkfill.app.report import write_evaluation
    from inkfill.evaluation.scores import COLUMNS, LABEL_COLUMNS, NEW_COLUMNS
    from inkfill.evaluation.tables import table

    if out:
        found.write(out / "results.json")
        page = write_evaluation(out, found)
    _echo(found.summary)
    _echo(table(found.rows, COLUMNS))
    if found.labelled:
        _echo(table(found.rows, LABEL_COLUMNS))
    for line in found.advice:
        _echo(line)
    if found.generated:
        _echo("Images from nothing:\n" + table(found.generated, NEW_COLUMNS))
    if out:
        _echo(f"wrote {out / 'results.json'} and {page}")


@cli.command("train-classifier")
@option("--out", type=PATH, required=True, help="FILE.safetensors to write.")
@option("--data", default="mnist", show_default=True, help="A data set of 28x28 images with labels.")
@option("--masks", default="none", show_default=True, help="none: whole digits. training: digits with holes.")
@option("--steps", type=click.IntRange(1), default=2500, show_default=True, help="Of 128 images each.")
@seed_option
@overwrite_option
def train_classifier(out: Path, data: str, masks: str, steps: int, seed: int, overwrite: bool) -> None:
    """Train a classifier that judges completions (or, with --masks training, the yardstick for them).

    \b
    inkfill train-classifier --out classifier.safetensors
    inkfill train-classifier --out masked-classifier.safetensors --masks training
    """
    from inkfill.app.files import check_file
    from inkfill.data import load
    from inkfill.evaluation.classifier import train_classifier as run

    check_file(out, overwrite, (".safetensors",))
    accuracy = run(load(data), masks, out, steps, seed=seed)
    _echo(f"wrote {out}: {accuracy:.2%} of validation images right")


@cli.command()
@option("--out", type=PATH, required=True, help="Picture to write.")
@option("--size", type=click.IntRange(16, 1024), default=28, show_default=True, help="Side in pixels.")
@seed_option
@overwrite_option
def masks(out: Path, size: int, seed: int, overwrite: bool) -> None:
    """Draw a sheet of every mask family.

    \b
    inkfill masks --out sheet.png

    Blue is missing. Write not:SPEC to swap missing and known, SPEC+SPEC to join two, SPEC@2,SPEC@1 for a mixture.
    """
    from inkfill.app.demo import mask_sheet
    from inkfill.app.figures import save_picture
    from inkfill.app.files import check_file

    check_file(out, overwrite, (".png",))
    save_picture(mask_sheet(size, seed), out)
    _echo(f"wrote {out}")


@cli.command()
@option("--out", type=PATH, required=True, help="FILE.html, or a folder that gets an index.html.")
@checkpoint_option
@option("--float32", is_flag=True, help="Hold 32-bit weights: twice the size, exactly Python's completions.")
@overwrite_option
def page(out: Path, checkpoint: Path | None, float32: bool, overwrite: bool) -> None:
    """Write a page that fills holes in the browser while one paints them: one file, opened by double click, offline.

    \b
    inkfill page --out inkfill.html
    inkfill page --out mine.html --checkpoint runs/mine/model.safetensors
    """
    from inkfill.app.files import check_file
    from inkfill.app.page import page_file, write_page

    check_file(page_file(out), overwrite, (".html", ".htm"))
    _echo(f"open {write_page(checkpoint, out, float32)}")


@cli.command()
@option("--out", type=PATH, required=True, help="Folder to write.")
@option(
    "--format",
    "kind",
    type=click.Choice(["onnx", "diffusers"]),
    required=True,
    help="onnx: two networks and every coefficient. diffusers: a pipeline for new images.",
)
@checkpoint_option
@steps_option
@sampler_option
@overwrite_option
def export(
    out: Path, kind: str, checkpoint: Path | None, steps: int | None, sampler: str | None, overwrite: bool
) -> None:
    """Write a network for other programs.

    \b
    inkfill export --format onnx --out onnx/                       embed.onnx, step.onnx, sampler.json, README.md
    inkfill export --format diffusers --out ddpm-digits/ --checkpoint runs/mine/model.safetensors
    """
    from inkfill.app import export as write
    from inkfill.app.files import check_folder
    from inkfill.model import load

    check_folder(out, overwrite)
    model = load(checkpoint, "cpu", "float32")
    if kind == "onnx":
        write.write_onnx(model, out, sampler, steps)
    else:
        write.write_diffusers(model, out)
    _echo(f"wrote {out}; {out / 'README.md'} says how it is used")


@cli.command()
@click.argument("checkpoint", metavar="FILE", type=PATH, required=False)
@json_option
def info(checkpoint: Path | None, as_json: bool) -> None:
    """Say what a checkpoint is, or the run in a folder: what it reads, how it was trained, how it is run best.

    \b
    inkfill info mnist
    inkfill info runs/mine
    """
    from dataclasses import asdict

    from inkfill.checkpoint import find_checkpoint
    from inkfill.model import load

    path = find_checkpoint(checkpoint)
    model = load(path, "cpu")
    if as_json:
        parameters = sum(p.numel() for p in model.net.parameters())
        about = {"path": str(path), "parameters": parameters, "network": asdict(model.net.config)}
        _echo(json.dumps({**about, "recipe": model.recipe.to_json()}, indent=1))
        return
    _echo(f"{path}\n{model!r}")
    for name, value in asdict(model.recipe).items():
        lines = value.items() if isinstance(value, dict) else [("", value)]
        for key, each in lines:
            _echo(f"  {name}{'.' * bool(key)}{key}: {each}")


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete inkfill's commands and options.

    \b
    eval "$(inkfill completion bash)"                        in ~/.bashrc; zsh alike
    inkfill completion fish > ~/.config/fish/completions/inkfill.fish
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(cli, {}, "inkfill", "_INKFILL_COMPLETE").source())


@cli.command()
@json_option
def methods(as_json: bool) -> None:
    """List the inpainting methods: paper, cost, settings, when exact, whether what is known may be noisy."""
    from inkfill.evaluation.tables import markdown
    from inkfill.methods import METHODS

    steps, lines = defaults.STEPS, []
    if as_json:
        each = {
            name: {
                "paper": method.paper,
                "exact": method.exact,
                "evaluations": method.evaluations(steps),
                "steps": steps,
                "gradient": method.gradient,
                "noisy": method.noisy,
                "settings": method.defaults(),
            }
            for name, method in METHODS.items()
        }
        _echo(json.dumps(each, indent=1))
        return
    for name, method in METHODS.items():
        chosen = ", ".join(f"{key}={value:g}" for key, value in method.defaults().items())
        gradient, noisy = ("yes" if is_so else "no" for is_so in (method.gradient, method.noisy))
        lines.append([name, method.evaluations(steps), gradient, noisy, method.exact, chosen, method.paper])
    headings = (
        "method",
        f"nfe at {steps} steps",
        "gradient",
        "noise",
        "a draw from the posterior when",
        "--set",
        "paper",
    )
    _echo(markdown(headings, lines, left=len(headings)))


# ---- shared by the commands ------------------------------------------------------------------------------------------


def _numbers(settings: tuple[str, ...]) -> dict[str, float]:
    """Settings of a method from NAME=VALUE. Raises InputError."""
    found = {}
    for text in settings:
        name, _, value = text.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise InputError(f"--set {shown(text)}: write NAME=NUMBER, as strength=2") from None
    return found


@contextmanager
def _shared(network: Network) -> Iterator[tuple["Processes", Network]]:
    """The processes that torchrun started, and what was chosen with a device for this one; only the first remarks."""
    from inkfill.model import find_device
    from inkfill.training.processes import processes

    with processes(find_device(network.device) if network.device else None) as group:
        if not group.first:
            logging.getLogger("inkfill").setLevel(logging.ERROR)
        yield group, replace(network, device=network.device or str(group.device))


@contextmanager
def _bar(total: int, name: str) -> Iterator[Callable[[int], object]]:
    """A progress bar on stderr that shows itself only when the work takes over two seconds."""
    from inkfill import progress

    with progress.bar(total, desc=name, delay=2, leave=False) as bar:
        yield bar.update


def _echo(text: str) -> None:
    """Print; names of files may hold anything."""
    try:
        click.echo("\n".join(shown(line) for line in text.splitlines()))
    except OSError as error:
        if error.errno == errno.EPIPE:  # whoever read has read enough
            raise
        raise OSError(error.errno, error.strerror, "standard output") from None


def _leave(number: int, frame: object) -> None:
    """On a signal: as on Ctrl-C, what is unfinished is removed on the way out."""
    sys.exit(128 + number)


def main() -> None:
    """Run the command line; the exit status is 0, 1 for bad input, 2 for wrong usage, or 130 after Ctrl-C."""
    notes = logging.StreamHandler(sys.stderr)
    notes.setFormatter(logging.Formatter("inkfill: %(message)s"))
    logging.getLogger("inkfill").addHandler(notes)
    ends = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    caught = [number for number in ends if signal.getsignal(number) == signal.SIG_DFL]
    for number in caught:
        signal.signal(number, _leave)
    try:
        os.getcwd()
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except click.ClickException as error:
        _fail(f"{error.format_message()} (see inkfill --help)", 2)
    except InputError as error:
        _fail(str(error), 1)
    except MemoryError:
        _fail("not enough memory: use fewer or smaller images", 1)
    except RuntimeError as error:
        if "memory" not in str(error):  # torch's word for what numpy and Python call MemoryError
            raise
        _fail("not enough memory: use fewer or smaller images", 1)
    except OSError as error:
        reason = "no room left on the disk" if error.errno == errno.ENOSPC else error.strerror or str(error)
        _fail(f"{error.filename or 'a file'}: {reason}", 1)
    finally:
        logging.getLogger("inkfill").removeHandler(notes)
        for number in caught:
            signal.signal(number, signal.SIG_DFL)


def _fail(message: str, status: int) -> None:
    with contextlib.suppress(OSError, ValueError):  # a closed standard error is no second failure
        click.echo(f"inkfill: {shown(' '.join(message.split()))}", err=True)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:  # torch's own exit would wait for a process that hangs
        os._exit(status)
    sys.exit(status)
