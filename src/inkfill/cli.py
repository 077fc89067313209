"""The command line: parses, calls, prints. Bad input is one line on stderr and a non-zero exit status."""

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inkfill import __version__, defaults
from inkfill.errors import InputError

if TYPE_CHECKING:  # torch takes a second to import; a command imports it when it runs
    from inkfill.denoiser import Model

option = click.option
checkpoint_option = option("--checkpoint", type=click.Path(path_type=Path), help="Weights to use [default: shipped].")
seed_option = option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything random.")
steps_option = option(
    "--steps",
    type=click.IntRange(1, 10_000),
    default=defaults.STEPS,
    show_default=True,
    help="Noise levels visited; most methods evaluate the network once at each.",
)
sampler_option = option(
    "--sampler",
    type=click.Choice(defaults.SAMPLERS),
    default=defaults.SAMPLER,
    show_default=True,
    help="How to go from noise to image.",
)
method_option = option(
    "--method", default=defaults.METHOD, show_default=True, help="Inpainting method; see inkfill methods."
)
overwrite_option = option("--overwrite", is_flag=True, help="Replace what is at --out.")
device_option = option("--device", help="cpu or cuda [default: cuda where there is one].")
data_option = option(
    "--data", default="auto", show_default=True, help="auto (MNIST, else rendered), mnist, rendered, or a path."
)


samples_option = option(
    "--samples",
    type=click.IntRange(1, 10_000),
    default=defaults.SAMPLES,
    show_default=True,
    help="Completions per image.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="inkfill")
def cli() -> None:
    """Fill holes in small images with denoising diffusion.

    \b
    inkfill demo                                              see it work
    inkfill inpaint photo.png --mask hole.png --out filled.png
    inkfill inpaint digits.npy --mask half:left --samples 8 --out filled.npy
    inkfill train --data my-pictures/ --minutes 10 --out runs/mine

    In a mask, True or white means missing: to be filled.
    """


@cli.command()
@option("--out", type=click.Path(path_type=Path), default="inkfill-demo", show_default=True, help="Folder to write.")
@data_option
@seed_option
@checkpoint_option
@device_option
@overwrite_option
def demo(out: Path, data: str, seed: int, checkpoint: Path | None, device: str | None, overwrite: bool) -> None:
    """Complete digits that nobody trained on, and show how it is done.

    Writes pictures, an animation and a page that shows them together. Takes under two minutes on two cores. An
    earlier demonstration in the same folder is replaced; a folder with anything else in it is left alone.
    """
    from inkfill.demo import is_demo, write_demo

    if not is_demo(out):
        _check_out(out, overwrite, ())
    page = write_demo(_model(checkpoint, device), _data(data), out, seed, _bar)
    click.echo(f"open {page}")


@cli.command()
@option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@data_option
@option("--minutes", type=click.FloatRange(0.01, 100_000), help="Train for about this long.")
@option("--steps", type=click.IntRange(1), help="Train for this many steps [default: 14000].")
@option("--resume", is_flag=True, help="Go on from the last save; every other setting comes from there.")
@overwrite_option
@option("--masks", help="Mask mixture to train on [default: a broad one].")
@option(
    "--objective",
    type=click.Choice(["noise", "regression"]),
    help="noise: diffusion. regression: one best guess, a reference for inkfill evaluate [default: noise].",
)
@option(
    "--start", metavar="FILE", help="Start from a checkpoint's weights (shipped: the shipped ones), to fine-tune them."
)
@option("--batch-size", type=click.IntRange(1), help="Images per step [default: 64].")
@option("--learning-rate", type=float, help="AdamW's, at the top of its curve [default: 0.003].")
@option("--schedule", type=click.Choice(["cosine", "linear"]), help="Noise schedule [default: cosine].")
@option("--float32", is_flag=True, help="No bfloat16.")
@option("--save-seconds", type=click.FloatRange(0), default=60.0, show_default=True, help="Between two saves.")
@option("--look-every", type=click.IntRange(1), default=1000, show_default=True, help="Steps between validations.")
@option("--seed", type=click.IntRange(0), help="Of everything random [default: 0].")
def train(
    out: Path,
    minutes: float | None,
    steps: int | None,
    resume: bool,
    overwrite: bool,
    float32: bool,
    save_seconds: float,
    look_every: int,
    **settings: Any,
) -> None:
    """Train a network from scratch.

    \b
    inkfill train --out runs/mnist --minutes 10
    inkfill train --out runs/mine --data my-pictures/ --start shipped --minutes 5
    inkfill train --out runs/mnist --resume            after Ctrl-C, a crash or a power cut
    torchrun --nproc-per-node 2 -m inkfill train --out runs/mnist --steps 5000

    Ctrl-C saves and stops. The folder gets model.safetensors (for --checkpoint), metrics.jsonl and pictures of
    completions on validation images.
    """
    from inkfill.train import TrainConfig
    from inkfill.train import train as run

    context = click.get_current_context()
    given = {k: v for k, v in settings.items() if context.get_parameter_source(k) != click.core.ParameterSource.DEFAULT}
    if float32:
        given["bfloat16"] = False
    if steps is not None:
        given["steps"] = steps
    if steps is not None and minutes is not None:
        raise InputError("give --minutes or --steps, not both")
    if resume and (given or minutes is not None):
        raise InputError("--resume takes every setting from the run: give --out alone")
    if not resume and not overwrite and (out / "state.pt").exists():
        raise InputError(
            f"{out} holds a run already: give --resume to go on, --overwrite to start again, or another --out"
        )
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: name a folder for the run")
    run(TrainConfig(**given), out, minutes, resume, save_seconds, look_every)


@cli.command()
@click.argument("images", type=click.Path(path_type=Path))
@option("--mask", required=True, help="A .npy file, a picture (white = fill), a folder of them, or a spec: half:left.")
@option("--out", type=click.Path(path_type=Path), required=True, help="FILE.npy, FILE.png, or a folder for pictures.")
@samples_option
@seed_option
@method_option
@steps_option
@sampler_option
@checkpoint_option
@device_option
@overwrite_option
@option("--report", type=click.Path(path_type=Path), help="Folder for a page on every image: see below.")
def inpaint(
    images: Path,
    mask: str,
    out: Path,
    samples: int,
    seed: int,
    method: str,
    steps: int,
    sampler: str,
    checkpoint: Path | None,
    device: str | None,
    overwrite: bool,
    report: Path | None,
) -> None:
    """Fill the holes in IMAGES, --samples times over.

    IMAGES is a .npy of uint8 [N,H,W], an IDX file (.gz too), one grey picture, or a folder of pictures.

    \b
    inkfill inpaint photo.png --mask hole.png --samples 1 --out filled.png
    inkfill inpaint scans/ --mask box:10 --out filled/
    inkfill inpaint digits.npy --mask masks.npy --samples 16 --out filled.npy     uint8 [N,16,H,W]

    With one completion of one picture, a .png is that picture; otherwise it is a sheet of masked images, completions,
    their mean and their spread. Pixels that are known are returned bit for bit.

    --report DIR writes report.html with the completions of each image, their mean, a map of their spread and, with
    weights trained on MNIST, the digits they show ("3: 0.61, 8: 0.35"); and the same as arrays.
    """
    from inkfill import data, files, inpainting

    _check_out(out, overwrite, (".npy", ".png"))
    if report:
        _check_out(report, overwrite, ())
    pictures = data.read_images(images)
    data.check_size(pictures, str(images))
    files.check_sheet(out, len(pictures))
    hidden = inpainting.fit_mask(files.read_mask(mask), pictures, seed)
    model = _model(checkpoint, device)
    _note_size(model, pictures.shape[1:])
    with _bar(len(pictures) * samples, "inpaint") as progress:
        filled = inpainting.inpaint(model, pictures, hidden, samples, method, steps, seed, sampler, progress=progress)
    names = [file.stem for file in data.picture_files(images)] if images.is_dir() else None
    files.write_completions(out, pictures, hidden, filled, names)
    click.echo(f"wrote {out}: {len(pictures)} x {samples} completions of {pictures.shape[1]}x{pictures.shape[2]}")
    if report:
        from inkfill.report import write_inpainting

        digits = model.recipe.get("trained_on") == "mnist" and pictures.shape[1:] == (28, 28)
        titles = names or [f"image {i}" for i in range(len(pictures))]
        click.echo(f"wrote {write_inpainting(report, pictures, hidden, filled, titles, digits)}")


@cli.command()
@option("--out", type=click.Path(path_type=Path), required=True, help="FILE.npy, FILE.png, or a folder for pictures.")
@option("--count", type=click.IntRange(1, 1_000_000), default=64, show_default=True, help="How many.")
@option("--size", type=click.IntRange(16, 1024), help="Side in pixels [default: that of the training images].")
@seed_option
@steps_option
@sampler_option
@checkpoint_option
@device_option
@overwrite_option
def sample(
    out: Path,
    count: int,
    size: int | None,
    seed: int,
    steps: int,
    sampler: str,
    checkpoint: Path | None,
    device: str | None,
    overwrite: bool,
) -> None:
    """Draw new images from nothing.

    \b
    inkfill sample --count 64 --out digits.png
    inkfill sample --count 10000 --out digits.npy        uint8 [N,H,W]
    """
    from inkfill import files, inpainting

    _check_out(out, overwrite, (".npy", ".png"))
    files.check_sheet(out, count, 10_000)
    model = _model(checkpoint, device)
    shape = (size, size) if size else model.image_size
    with _bar(count, "sample") as progress:
        drawn = inpainting.sample(model, count, shape, steps, seed, sampler, progress)
    files.write_samples(out, drawn)
    click.echo(f"wrote {out}: {count} images of {shape[0]}x{shape[1]}")


@cli.command()
@data_option
@option("--split", type=click.Choice(["test", "validation"]), default="test", show_default=True)
@option(
    "--mask",
    "specs",
    multiple=True,
    help=f"Mask spec; may be repeated [default: {', '.join(defaults.EVALUATION_MASKS)}].",
)
@option("--count", type=click.IntRange(1), default=1000, show_default=True, help="Images, from the first on.")
@samples_option
@option(
    "--method",
    "names",
    multiple=True,
    default=[defaults.METHOD],
    show_default=True,
    help="As in inkfill methods, or mean, nearest, empirical, regression; may be repeated.",
)
@option(
    "--steps",
    "counts",
    type=click.IntRange(1),
    multiple=True,
    default=[defaults.STEPS],
    show_default=True,
    help="Noise levels visited; repeated, it gives a curve.",
)
@sampler_option
@seed_option
@checkpoint_option
@option("--regression", type=click.Path(path_type=Path), help="Checkpoint trained with --objective regression.")
@device_option
@option("--out", type=click.Path(path_type=Path), help="Folder for results.json and report.html.")
@overwrite_option
def evaluate(
    data: str,
    split: str,
    specs: tuple[str, ...],
    count: int,
    samples: int,
    names: tuple[str, ...],
    counts: tuple[int, ...],
    sampler: str,
    seed: int,
    checkpoint: Path | None,
    regression: Path | None,
    device: str | None,
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
    evaluations per completion. bbox:N is placed from the digit itself, which a real mask cannot be.
    """
    import json
    import shutil

    from inkfill import masks
    from inkfill.checkpoint import SHIPPED, file_hash, written_whole
    from inkfill.data import array_hash
    from inkfill.denoiser import load
    from inkfill.evaluate import (
        LABEL_COLUMNS,
        Cell,
        Judges,
        check_method,
        complete,
        kept,
        machine,
        score,
        strict_json,
        table,
    )
    from inkfill.processes import processes
    from inkfill.references import REFERENCES
    from inkfill.report import write_evaluation

    result = out / "results.json" if out else None
    if out and not (out / "cells").is_dir():
        _check_out(out, overwrite, ())
    specs = tuple(dict.fromkeys(specs or defaults.EVALUATION_MASKS))
    for spec in specs:
        masks.parse(spec)
    for name in names:
        check_method(name)
    plain = (*REFERENCES, "regression")  # these have no steps
    if "regression" in names and regression is None:
        raise InputError("the method regression needs --regression FILE (inkfill train --objective regression)")
    dataset = _data(data)
    images, labels = dataset.split(split)[:count], dataset.labels.get(split)
    labels = labels[:count] if labels is not None else None
    data_hash = array_hash(images)
    cells = [
        Cell(spec, name, steps, samples, seed, sampler)
        for spec in specs
        for name in dict.fromkeys(names)
        for steps in ((1,) if name in plain else dict.fromkeys(counts))
    ]
    results = []
    with processes(cpu=device == "cpu") as here:
        leader = here.rank == 0
        at = device if here.world == 1 else str(here.device)
        model, regressor = _model(checkpoint, at), load(regression, at) if regression else None
        weights = file_hash(checkpoint or SHIPPED)
        if out and overwrite and leader:
            shutil.rmtree(out / "cells", ignore_errors=True)
        judges = Judges.of(dataset) if leader and labels is not None else None
        for i, cell in enumerate(cells):
            title = f"{i + 1}/{len(cells)} {cell.mask} {cell.method}"
            with _bar(len(images) * samples // here.world, title) as progress:

                def run(cell: Cell = cell, progress: Callable[[int], object] = progress) -> Any:
                    return complete(model, images, cell, dataset.train, regressor, here, progress)

                about = {"data": data_hash}
                if cell.method in REFERENCES:
                    about["train"] = dataset.fingerprint()
                else:
                    about["weights"] = file_hash(regression) if cell.method == "regression" and regression else weights
                    about["dtype"] = str(model.dtype)
                done = kept(out, cell, about, run, here) if out else run()
            if leader:
                results.append((cell, done, score(images, done, cell, labels, judges)))
    if not leader:
        return
    rows = [row for _, _, row in results]
    said = f"{dataset.name}, {split} split, {len(images)} images, K = {samples}, seed {seed}, sampler {sampler}"
    click.echo(said)
    click.echo(table(rows))
    if judges:
        click.echo(table(rows, LABEL_COLUMNS))
    if result and out:
        provenance = {
            "inkfill": __version__,
            "data": dataset.name,
            "data_hash": data_hash,
            "split": split,
            "checkpoint": str(checkpoint or "shipped"),
            "checkpoint_hash": weights,
            "regression_hash": file_hash(regression) if regression else None,
            "machine": machine(model),
        }
        with written_whole(result) as temporary:
            temporary.write_text(json.dumps(strict_json({**provenance, "rows": rows}), indent=1))
        machines = "; ".join(dict.fromkeys(done.machine for _, done, _ in results))
        made = f"{said}. Weights {provenance['checkpoint']} ({weights}). Completions made on: {machines}."
        click.echo(f"wrote {result} and {write_evaluation(out, images, results, made)}")


@cli.command("train-classifier")
@option("--out", type=click.Path(path_type=Path), required=True, help="FILE.safetensors to write.")
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
    from inkfill.classifier import train_classifier as run

    _check_out(out, overwrite, (".safetensors",))
    accuracy = run(_data(data), masks, out, steps, seed=seed)
    click.echo(f"wrote {out}: {accuracy:.2%} of validation images right")


@cli.command()
@option("--out", type=click.Path(path_type=Path), required=True, help="Picture to write.")
@option("--size", type=click.IntRange(16, 1024), default=28, show_default=True, help="Side in pixels.")
@seed_option
@overwrite_option
def masks(out: Path, size: int, seed: int, overwrite: bool) -> None:
    """Draw a sheet of every mask family.

    \b
    inkfill masks --out sheet.png

    Blue is missing. Write not:SPEC to swap missing and known, SPEC+SPEC to join two, SPEC@2,SPEC@1 for a mixture.
    """
    from inkfill.demo import mask_sheet
    from inkfill.figures import save_picture

    _check_out(out, overwrite, (".png",))
    save_picture(mask_sheet(size, seed), out)
    click.echo(f"wrote {out}")


@cli.command()
def methods() -> None:
    """List the inpainting methods: paper, cost, when exact."""
    from inkfill.inpainting import METHODS

    steps = defaults.STEPS
    rows = [("method", f"nfe at {steps} steps", "gradient", "a draw from the posterior when", "paper")]
    for name, method in METHODS.items():
        cost = str(method.evaluations(steps))
        rows.append((name, cost, "yes" if method.gradient else "no", method.exact, method.paper))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


# ---- shared by the commands ------------------------------------------------------------------------------------------


def _model(checkpoint: Path | None, device: str | None) -> "Model":
    from inkfill.denoiser import load

    return load(checkpoint, device)


def _data(name: str) -> Any:
    from inkfill.data import load

    return load(name)


def _note_size(model: "Model", size: tuple[int, ...]) -> None:
    if tuple(size) != model.image_size:
        trained = "x".join(map(str, model.image_size))
        click.echo(
            f"inkfill: note: these weights were trained on {trained} images, these are {size[0]}x{size[1]}", err=True
        )


def _check_out(out: Path, overwrite: bool, suffixes: tuple[str, ...]) -> None:
    """Refuse now what could not be written after minutes of work."""
    if not suffixes and out.is_file():
        raise InputError(f"{out} is a file, and a folder is to be written: give another --out")
    if suffixes and out.suffix and out.suffix not in suffixes:
        raise InputError(f"{out}: cannot write {out.suffix} files: use {' or '.join(suffixes)}")
    if out.exists() and not overwrite and (out.is_file() or any(out.iterdir())):
        raise InputError(f"{out} exists: give --overwrite to replace it, or another --out")
    if out.is_dir() and out.suffix in suffixes:
        raise InputError(f"{out} is a folder: give another --out")
    if out.is_file() and not out.suffix:
        raise InputError(f"{out} is a file, and a folder is to be written: give another --out")


@contextmanager
def _bar(total: int, name: str) -> Iterator[Callable[[int], object]]:
    """A progress bar on stderr that shows itself only when the work takes over two seconds."""
    from tqdm import tqdm

    with tqdm(total=total, desc=name, delay=2, leave=False, dynamic_ncols=True) as bar:
        yield bar.update


def main() -> None:
    """Run the command line; the exit status is 0, 1 for bad input, 2 for wrong usage, or 130 after Ctrl-C."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        sys.exit(130)
    except click.ClickException as error:
        _fail(f"{error.format_message()} (see inkfill --help)", 2)
    except InputError as error:
        _fail(str(error), 1)
    except MemoryError:
        _fail("not enough memory: use fewer or smaller images", 1)
    except OSError as error:
        reason = "no room left on the disk" if error.errno == errno.ENOSPC else error.strerror or str(error)
        _fail(f"{error.filename or 'a file'}: {reason}; nothing was written over", 1)


def _fail(message: str, status: int) -> None:
    line = " ".join(message.split())
    click.echo(f"inkfill: {line}", err=True)
    sys.exit(status)
