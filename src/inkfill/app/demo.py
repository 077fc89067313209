"""The page of ``inkfill demo``, and the sheet of mask families."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from inkfill.app import figures
from inkfill.app.html import Page
from inkfill.core.masks import FAMILIES, parse
from inkfill.core.rng import SampleNoise, stream
from inkfill.data import Dataset, Images, masks, to_uint8
from inkfill.data.images import Mask, as_bytes, of_values
from inkfill.errors import InputError
from inkfill.evaluation.cells import machine
from inkfill.evaluation.protocol import evaluate
from inkfill.evaluation.scores import COLUMNS
from inkfill.files import folder_written_whole
from inkfill.filling.inpaint import inpaint
from inkfill.models.model import Model
from inkfill.progress import Bar
from inkfill.web.page import write_page

GALLERY = ("half:left", "half:random", "box:14", "quadrants:3", "pixels:0.9", "strokes", "stripes:3", "all")
VARIANTS = (  # of families in the sheet of masks, beside an example of each
    *("half:left", "half:top", "box:10", "box:0.2-0.8:random", "quadrants:1", "quadrants:2", "quadrants:random"),
    *("pixels:0.5", "not:box:12", "half:random+strokes", "training"),
)
IMAGES = 9 + 2 * len(GALLERY)  # one for the forward process, eight for the reverse process, two per mask of the gallery
SCORED_IMAGES, SCORED_SAMPLES = 100, 4
FRAMES = 40  # steps of the animation
TITLE = "inkfill demo"
NOTICES = {
    "mnist": "MNIST's test split, on which the network was not trained.",
    "rendered": "the built-in rendered digits (from fonts: this is not MNIST, which was not found).",
}


# ---- figures ---------------------------------------------------------------------------------------------------------


def forward_strip(model: Model, image: Images, seed: int) -> figures.RGB:
    """One image at ten timesteps, all with the same noise."""
    timesteps = [int(t) for t in np.linspace(0, model.schedule.T, 10)]
    x0 = model.value_range.to_x0(image[None])
    eps = SampleNoise(seed, [0], [0], tuple(x0.shape[1:]))()
    tiles = [figures.tile(to_uint8(model.schedule.q_sample(x0, t, eps))[0]) for t in timesteps]
    return figures.sheet([tiles], [f"t = {t}" for t in timesteps])


def reverse_frames(model: Model, images: Images, mask: Mask, seed: int) -> tuple[list[int], list[Images], list[Images]]:
    """The timesteps of a sampler, its states x_t and the predictions x0_hat, uint8 ``[N, H, W]`` each."""
    timesteps, states, predictions, shown = [], [], [], as_bytes(images, model.value_range)

    def watch(t: int, x_t: torch.Tensor, x0_hat: torch.Tensor) -> None:
        timesteps.append(t)
        states.append(np.where(of_values(mask, shown), to_uint8(x_t), shown))
        predictions.append(to_uint8(x0_hat))

    filled = inpaint(model, images, mask, 1, steps=FRAMES, seed=seed, rows=len(images), watch=watch)[:, 0]
    last = as_bytes(filled, model.value_range)
    return [*timesteps, 0], [*states, last], [*predictions, last]


def reverse_strip(model: Model, image: Images, mask: Mask, seed: int) -> figures.RGB:
    """The reverse process of one masked image at ten timesteps: states above, predictions of x0 below."""
    timesteps, states, predictions = reverse_frames(model, image[None], mask[None], seed)
    chosen = [int(i) for i in np.linspace(0, len(timesteps) - 1, 10).round()]
    first, last = figures.masked(states[-1][0], mask), figures.tile(as_bytes(image, model.value_range))
    rows = [[first, *(figures.tile(each[i][0]) for i in chosen), last] for each in (states, predictions)]
    columns = ["masked", *(f"t = {timesteps[i]}" for i in chosen), "original"]
    return figures.sheet(rows, columns, ["x_t", "x0_hat"])


def mask_sheet(size: int, seed: int) -> figures.RGB:
    """Six masks of every family, and of some variants, over a rendered digit."""
    picture = Image.new("L", (size, size))
    font = ImageFont.load_default(size * 0.9)
    ImageDraw.Draw(picture).text((size / 2, size / 2), "5", fill=255, font=font, anchor="mm")
    digits = np.repeat(np.asarray(picture)[None], 6, 0)
    specs = [*(family.example for family in FAMILIES.values()), *VARIANTS]
    specs += specs[-1:] * (len(specs) % 2)  # two columns of equal length
    drawn = [parse(spec).draw(6, size, size, stream(seed, "sheet"), digits) for spec in specs]
    rows = [[figures.masked(digit, mask) for digit, mask in zip(digits, each, strict=True)] for each in drawn]
    halves = (slice(len(specs) // 2), slice(len(specs) // 2, None))
    return np.concatenate([figures.sheet(rows[half], names=specs[half], zoom=2) for half in halves], 1)


# ---- the page --------------------------------------------------------------------------------------------------------


def is_demo(folder: Path) -> bool:
    """Whether a folder holds an earlier demonstration."""
    page = folder / "index.html"
    return page.is_file() and f"<title>{TITLE}" in page.read_text(errors="replace")[:1000]


def write_demo(model: Model, dataset: Dataset, out: Path, seed: int, bar: Bar, checkpoint: Path | None = None) -> Path:
    """Write the demonstration into ``out``, from test images alone; returns the page.

    ``checkpoint`` is the file of the model, for the browser page. Raises InputError for too few test images.
    """
    images = dataset.test
    if len(images) < IMAGES:
        raise InputError(f"--data {dataset.name}: {len(images)} test images: the demonstration needs {IMAGES}")
    with folder_written_whole(out) as folder:
        page = Page(folder, f"{TITLE}: masked digits, filled by diffusion")
        page.text(f"Every digit on this page is from {NOTICES.get(dataset.name, f'the test split of {dataset.name}.')}")
        _link_to_paint(page, checkpoint)
        _show_process(page, model, images[:9], seed)
        _show_samples(page, model, images[9:IMAGES], seed, bar)
        _show_scores(page, model, images[:SCORED_IMAGES], seed, bar)
        where, recipe = machine(model), model.recipe
        page.text(
            f"Measured on {where['device']}, {where['threads']} threads, {where['dtype']}, torch {where['torch']}. "
            f"Weights trained on {recipe.trained_on} for {recipe.step:,} steps of {recipe.batch_size} images."
        )
        page.write("index.html")
    return out / "index.html"


def _link_to_paint(page: Page, checkpoint: Path | None) -> None:
    """The browser page, for weights that run in a browser."""
    page.text("Paint a mask, and see it filled", "h2")
    try:
        name = write_page(checkpoint, page.folder / "paint.html").name
    except InputError as error:
        page.text(f"No browser page for these weights: {error}.")
        return
    page.text("The network runs in your browser; nothing is sent anywhere.")
    page.link(name, "Paint a mask on a digit")
    page.text("inkfill page --out inkfill.html", "pre")


def _show_process(page: Page, model: Model, images: Images, seed: int) -> None:
    """The forward process of the first image, and the reverse process of the others."""
    page.text("Forward process: noise is added", "h2")
    page.text("One digit at ten timesteps, from the clean image (t = 0) to almost pure noise.")
    page.image("forward.png", "a digit at ten timesteps", forward_strip(model, images[0], seed))

    chosen = images[1:]
    mask = masks.fit("half:left", chosen, seed)
    page.text("Reverse process: a masked digit is filled", "h2")
    page.text(
        "Top: the state x_t of the sampler, noisy where pixels are missing. Bottom: the prediction x0_hat of the "
        "network at the same timestep, an average of digits at first, one digit in the end."
    )
    page.image("reverse.png", "reverse process of a masked digit", reverse_strip(model, chosen[0], mask[0], seed))

    timesteps, states, _ = reverse_frames(model, chosen, mask, seed)
    frames = [
        figures.sheet([[figures.tile(image) for image in state]], ["" for _ in chosen], [f"t = {t:4d}"])
        for t, state in zip(timesteps, states, strict=True)
    ]
    figures.save_animation(frames, page.folder / "denoising.gif")
    page.text("Animation", "h2")
    page.text("The reverse process of eight digits, left half missing.")
    page.image("denoising.gif", "reverse process of eight masked digits")
    page.text(f"inkfill demo --seed {seed}", "pre")


def _show_samples(page: Page, model: Model, images: Images, seed: int, bar: Bar) -> None:
    """A gallery: two digits per mask family."""
    specs = [spec for spec in GALLERY for _ in range(2)]
    missing = masks.fit_each(specs, images, seed)
    with bar(len(images) * 8, "gallery") as progress:
        filled = inpaint(model, images, missing, samples=8, seed=seed, progress=progress)
    page.text("Samples", "h2")
    page.text(
        "Blue pixels are missing. Four of eight samples, the mean and the standard deviation (std) of all eight, and "
        "the original. The standard deviation is bright where samples disagree. A sample may differ from the original "
        "and still be plausible."
    )
    shown, filled = as_bytes(images, model.value_range), as_bytes(filled, model.value_range)
    page.image("gallery.png", "samples", figures.gallery(shown, missing, filled, specs))
    page.text("inkfill inpaint digits.npy --mask half:left --samples 8 --out filled.npy --sheet filled.png", "pre")


def _show_scores(page: Page, model: Model, images: Images, seed: int, bar: Bar) -> None:
    """A table of scores."""
    rows = evaluate(model, images, samples=SCORED_SAMPLES, seed=seed, bar=bar)
    page.text("Scores", "h2")
    page.text(
        f"The first {len(images)} test images, {SCORED_SAMPLES} samples per image, {model.steps} network evaluations "
        "per sample. Missing pixels only, intensities in [0, 1]. CRPS: lower is better. bbox:8 is placed from the "
        "digit itself, which no real mask could be."
    )
    page.table(rows, COLUMNS)
