"""``inkfill inpaint`` and ``inkfill sample``."""

from pathlib import Path

import click

from inkfill import defaults
from inkfill.app import options
from inkfill.app.options import PATH, Network, bar, echo, numbers, option, shared
from inkfill.errors import InputError


@click.command()
@click.argument("images", type=PATH, nargs=-1, required=True)
@option("--mask", help="Mask: spec (half:left), image (white = fill), .npy, folder, nan, alpha, value:V.")
@option("--ignore", metavar="MASK", help="Unknown pixels that stay as they are; a mask like --mask.")
@option("--out", type=PATH, help="FILE.npy, FILE.png, FILE.tif, or a folder for images.")
@option(
    "--samples",
    type=click.IntRange(1, 10_000),
    help=f"Samples per image [default: {defaults.SAMPLES}; 1 into one .png or .tif].",
)
@option("--first-sample", type=click.IntRange(0, 2**31 - 1), default=0, help="Number of the first sample.")
@option("--only", metavar="NAME|NUMBER", help="Fill one image of the set: its name, or number from 0.")
@option(
    "--keep",
    type=click.Choice(["all", "mean", "central"]),
    default="all",
    help="Write all samples, their mean, or the most central one.",
)
@option("--palette", type=click.Choice(["rgb", "keep"]), default="rgb", help="Write palette images as RGB, or keep it.")
@option("--grey", is_flag=True, help="Convert colour images to grey first.")
@options.value_range
@option("--mask-colour", metavar="COLOUR", help="Colour of missing pixels in the mask image, as red or #ff0000.")
@option("--invert-mask", is_flag=True, help="Invert the mask.")
@option("--grow", type=click.IntRange(0, 1000), default=0, help="Dilate the mask, in pixels.")
@option(
    "--observation-noise",
    type=click.FloatRange(0),
    default=0.0,
    metavar="S",
    help="Standard deviation of noise in observed pixels, which are then estimated too.",
)
@options.seed
@options.method
@options.set_
@options.steps
@options.sampler
@options.network
@options.overwrite
@option("--sheet", type=PATH, help="FILE.png for masked inputs, samples, mean and standard deviation.")
@option("--report", type=PATH, help="Folder for a page with samples and arrays.")
def inpaint(
    images: tuple[Path, ...],
    mask: str | None,
    ignore: str | None,
    out: Path | None,
    samples: int | None,
    first_sample: int,
    only: str | None,
    keep: str,
    palette: str,
    grey: bool,
    value_range: tuple[float, float] | None,
    mask_colour: str | None,
    invert_mask: bool,
    grow: int,
    observation_noise: float,
    seed: int,
    method: str | None,
    settings: tuple[str, ...],
    steps: int | None,
    sampler: str | None,
    network: Network,
    overwrite: bool,
    sheet: Path | None,
    report: Path | None,
) -> None:
    """Draw samples of the missing pixels of IMAGES.

    IMAGES is a .npy [N,H,W] or [N,H,W,C] of any dtype, an IDX file (.gz too), images, or a folder of them, grey or
    colour, of any size. The dtype stays, and observed pixels come back bit for bit.

    \b
    inkfill inpaint digit.png --mask hole.png --out filled.png
    inkfill inpaint scans/ --mask masks/ --out filled/                             paired by file name
    inkfill inpaint dem.tif --mask nan --range 0 4000 --out filled.tif             with its tags
    inkfill inpaint stack.npy --mask nan --range 0 1 --samples 16 --out filled.npy      float32 [N,16,H,W]
    torchrun --nproc-per-node 2 -m inkfill inpaint long.npy --mask strokes --out filled.npy       two processes

    One image into one .png gives one sample. Large images are filled in windows. --report DIR writes report.html with
    the samples of each image, their mean and their standard deviation, and filled.npy and std.npy.
    """
    from inkfill.app import files, fill
    from inkfill.data import masks
    from inkfill.filling.inpaint import Options
    from inkfill.progress import no_bar

    with shared(network) as (group, network):
        files.check_outputs(out, sheet, report, overwrite, (*images, mask, ignore, network.checkpoint))
        one = only is not None or (len(images) == 1 and images[0].is_file() and files.is_picture(images[0]))
        alone = one and not sheet and not report and keep == "all"
        into_one = alone and out is not None and out.suffix.lower() in files.ONE_IMAGE
        colour = masks.parse_colour(mask_colour) if mask_colour else None
        given = masks.read_mask(mask, masks.MaskOptions(colour, invert_mask, grow))
        if colour and (given.of_images or given.spec):
            raise InputError(f"--mask-colour: needs a mask image: --mask {mask} is none")
        unread = masks.read_mask(ignore) if ignore is not None else None
        how = Options(
            method, steps, seed, sampler, numbers(settings), None, observation_noise, value_range, first_sample
        )
        count = samples or (1 if into_one else defaults.SAMPLES)
        request = fill.Request(
            images, given, out, sheet, report, count, keep, grey, palette == "keep", how, unread, only
        )
        for text in fill.run(request, network.prior(), bar if group.first else no_bar, group):
            echo(f"wrote {text}")


@click.command()
@option("--out", type=PATH, required=True, help="FILE.npy, FILE.png, FILE.tif, or a folder for images.")
@option("--count", type=click.IntRange(1, 1_000_000), default=64, help="Number of samples.")
@option("--size", type=click.IntRange(8, 1024), help="Side of the samples in pixels [default: as in training].")
@options.seed
@options.steps
@options.sampler
@options.network
@options.overwrite
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
    """Draw unconditional samples.

    \b
    inkfill sample --count 64 --out digits.png
    inkfill sample --count 10000 --out digits.npy        uint8 [N,H,W]

    By default each sample takes 16 network evaluations, or fewer with a few-step model.
    """
    from inkfill.app import files
    from inkfill.filling import inpaint as filling

    files.check_outputs(out, None, None, overwrite, (network.checkpoint,))
    files.check_sheet(out, count, files.SAMPLES_SHEET)
    model = network.prior()
    with bar(count, "sample") as progress:
        drawn = filling.sample(model, count, (size, size) if size else None, steps, seed, sampler, progress)
    written = files.write_samples(out, drawn, model.value_range)
    echo(f"wrote {written} of {drawn.shape[1]}x{drawn.shape[2]}")
