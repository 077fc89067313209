"""The demonstration: what ``inkfill demo`` writes, and the sheet of masks."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from inkfill import defaults
from inkfill.app import figures
from inkfill.app.html import Page
from inkfill.core.masks import parse
from inkfill.core.rng import SampleNoise, stream
from inkfill.data import Dataset, Images, masks, to_uint8
from inkfill.data.images import as_bytes, of_values
from inkfill.errors import InputError
from inkfill.evaluation.cells import Cell, machine
from inkfill.evaluation.scores import COLUMNS, evaluate
from inkfill.filling.inpaint import inpaint
from inkfill.models.model import Model
from inkfill.progress import Bar
from inkfill.web.page import write_page

GALLERY = ("half:left", "half:random", "box:14", "quadrants:3", "pixels:0.9", "strokes", "stripes:3", "all")
SCORED_IMAGES, SCORED_SAMPLES = 100, 4
FRAMES = 40  # steps of the animation: more than needed, to see it happen
TITLE = "inkfill demo"
NOTICES = {
    "mnist": "MNIST's test split, which the network never saw.",
    "rendered": "the built-in rendered digits (from fonts: this is not MNIST, which was not at hand).",
}


def forward_strip(model: Model, image: Images, seed: int) -> figures.Tiles:
    """One image at ten noise levels, all with the same noise."""
    levels = [int(t) for t in np.linspace(0, model.schedule.T, 10)]
    x0 = model.value_range.to_x0(image[None])
    eps = SampleNoise(seed, [0], [0], tuple(x0.shape[1:]))()
    tiles = [figures.tile(to_uint8(model.schedule.q_sample(x0, t, eps))[0]) for t in levels]
    return figures.Tiles([tiles], [f"t = {t}" for t in levels])


def reverse_frames(
    model: Model, images: Images, mask: NDArray[np.bool_], seed: int
) -> tuple[list[int], list[Images], list[Images]]:
    """Levels, and at each what the sampler holds and what the network believes; uint8 ``[N, H, W]`` each."""
    levels, states, beliefs, shown = [], [], [], as_bytes(images, model.value_range)

    def watch(t: int, x_t: torch.Tensor, x0_hat: torch.Tensor) -> None:
        levels.append(t)
        states.append(np.where(of_values(mask, shown), to_uint8(x_t), shown))
        beliefs.append(to_uint8(x0_hat))

    filled = inpaint(model, images, mask, 1, steps=FRAMES, seed=seed, rows=len(images), watch=watch)[:, 0]
    last = as_bytes(filled, model.value_range)
    return [*levels, 0], [*states, last], [*beliefs, last]


def reverse_strip(model: Model, image: Images, mask: NDArray[np.bool_], seed: int) -> figures.Tiles:
    """One masked image becoming whole: above the state, below the network's belief, at ten levels."""
    levels, states, beliefs = reverse_frames(model, image[None], mask[None], seed)
    shown = [int(i) for i in np.linspace(0, len(levels) - 1, 10).round()]
    first, last = figures.masked(states[-1][0], mask), figures.tile(as_bytes(image, model.value_range))
    rows = [[first, *(figures.tile(each[i][0]) for i in shown), last] for each in (states, beliefs)]
    columns = ["masked", *(f"t = {levels[i]}" for i in shown), "original"]
    return figures.Tiles(rows, columns, ["x_t", "x0_hat"])


def mask_sheet(size: int, seed: int) -> figures.RGB:
    """Six draws of every mask family, over a rendered digit."""
    digit = np.zeros((size, size), np.uint8)
    font = ImageFont.load_default(size * 0.9)
    picture = Image.fromarray(digit)
    ImageDraw.Draw(picture).text((size / 2, size / 2), "5", fill=255, font=font, anchor="mm")
    digits = np.repeat(np.asarray(picture)[None], 6, 0)
    specs = [
        *(f"half:{side}" for side in ("left", "right", "top", "bottom", "random")),
        *("box:10", "box:10:random", "box:0.2-0.8:random", "bbox:8"),
        *(f"quadrants:{n}" for n in ("1", "2", "3", "random")),
        *("pixels:0.5", "pixels:0.9", "strokes", "stripes:3", "not:box:12", "half:random+strokes", "training"),
        *("all", "none"),
    ]
    drawn = [parse(spec).draw(6, size, size, stream(seed, "sheet"), digits) for spec in specs]
    rows = [[figures.masked(d, m) for d, m in zip(digits, mask, strict=True)] for mask in drawn]
    half = (len(rows) + 1) // 2
    left = figures.sheet(rows[:half], names=specs[:half], zoom=2)
    right = figures.sheet(rows[half:] + [rows[-1]] * (2 * half - len(rows)), names=specs[half:], zoom=2)
    return np.concatenate([left, right], 1)


def is_demo(folder: Path) -> bool:
    """Whether a folder holds an earlier demonstration."""
    page = folder / "index.html"
    return page.is_file() and f"<title>{TITLE}" in page.read_text(errors="replace")[:1000]


def write_demo(model: Model, dataset: Dataset, out: Path, seed: int, bar: Bar, checkpoint: Path | None = None) -> Path:
    """Write the demonstration into ``out`` and give the page to open. Only test images are shown and scored.

    ``checkpoint`` is what the model was loaded from: the page to paint on is made of it.
    """
    images = dataset.test
    if len(images) < 9 + 2 * len(GALLERY):
        raise InputError(f"{dataset.name}: {len(images)} test images are too few for the demonstration")
    page = Page(out, f"{TITLE}: holes in digits, filled by diffusion")
    page.text("Every digit on this page is from", NOTICES.get(dataset.name, f"the test split of {dataset.name}."))
    _link_to_paint(page, checkpoint)
    _show_process(page, model, images, seed)
    _show_completions(page, model, images[9 : 9 + 2 * len(GALLERY)], seed, bar)
    _show_scores(page, model, images[:SCORED_IMAGES], seed, bar)
    where, recipe = machine(model), model.recipe
    page.text(
        f"Measured on {where['device']}, {where['threads']} threads, {where['dtype']}, torch {where['torch']}. Weights "
        f"trained on {recipe.trained_on} for {recipe.step:,} steps of {recipe.batch_size} images."
    )
    return page.write("index.html")


def _link_to_paint(page: Page, checkpoint: Path | None) -> None:
    """The page to paint on, where these weights can be run in a browser."""
    page.heading("Paint a hole, and watch it filled")
    try:
        name = write_page(checkpoint, page.folder / "paint.html").name
    except InputError as error:
        page.text(f"There is no page to paint on: {error}.")
        return
    page.text("The network runs in your browser: nothing is sent anywhere.")
    page.frame(name, "Paint holes into a digit, and see them filled")
    page.link(name, "The same in a window of its own")
    page.command("inkfill page --out inkfill.html")


def _show_tiles(page: Page, tiles: figures.Tiles, name: str, alt: str) -> None:
    """Tiles on the page; beside it, with their words, as one picture to take along."""
    page.tiles(tiles, f"{name}-tiles.png", alt)
    figures.save_picture(tiles.picture(), page.folder / f"{name}.png")
    page.link(f"{name}.png", "as one picture")


def _show_process(page: Page, model: Model, images: Images, seed: int) -> None:
    """The forward process of a digit, and the reverse process of eight masked ones."""
    page.heading("Forward: noise is added")
    page.text("One digit at growing noise levels t. At the last level nothing of it is left.")
    _show_tiles(page, forward_strip(model, images[0], seed), "forward", "a digit at ten noise levels")

    chosen = images[1:9]
    mask = masks.fit("half:left", chosen, seed)
    page.heading("Reverse: a masked digit becomes whole")
    page.text(
        "Above, what the sampler holds (noise, less and less of it, where pixels are missing). Below, what the network "
        "believes the digit to be, at the same moment: first an average, then one digit."
    )
    _show_tiles(page, reverse_strip(model, chosen[0], mask[0], seed), "reverse", "a masked digit becoming whole")

    levels, states, _ = reverse_frames(model, chosen, mask, seed)
    frames = [
        figures.sheet([[figures.tile(image) for image in state]], ["" for _ in chosen], [f"t = {t:4d}"])
        for t, state in zip(levels, states, strict=True)
    ]
    figures.save_animation(frames, page.folder / "denoising.gif")
    page.heading("The same, moving")
    page.text("Eight digits, left half missing.")
    page.image("denoising.gif", "eight masked digits becoming whole")
    page.command(f"inkfill demo --seed {seed}")


def _show_completions(page: Page, model: Model, images: Images, seed: int, bar: Bar) -> None:
    """A gallery: two digits a mask family."""
    specs = [spec for spec in GALLERY for _ in range(2)]
    hidden = masks.fit_each(specs, images, seed)
    with bar(len(images) * 8, "gallery") as progress:
        filled = inpaint(model, images, hidden, samples=8, seed=seed, progress=progress)
    page.heading("Completions")
    page.text(
        "Blue pixels are missing. Four of eight completions, then the mean of all eight and their spread (bright: "
        "completions disagree, so the model is unsure there), then the original. Several completions can be right."
    )
    shown, filled = as_bytes(images, model.value_range), as_bytes(filled, model.value_range)
    _show_tiles(page, figures.gallery(shown, hidden, filled, specs), "gallery", "completions")
    page.command("inkfill inpaint digits.npy --mask half:left --samples 8 --out filled.npy --sheet filled.png")


def _show_scores(page: Page, model: Model, images: Images, seed: int, bar: Bar) -> None:
    """A table of scores."""
    specs, rows = defaults.EVALUATION_MASKS, []
    with bar(len(specs) * len(images) * SCORED_SAMPLES, "scores") as progress:
        for spec in specs:
            cell = Cell(spec, model.method, model.steps, samples=SCORED_SAMPLES, seed=seed, sampler=model.sampler)
            rows.append(evaluate(model, images, cell, progress))
    page.heading("Figures")
    page.text(
        f"The first {len(images)} test images, {SCORED_SAMPLES} completions each, {model.steps} network evaluations "
        "each, over missing pixels only, intensities in [0, 1]. CRPS: lower is better. bbox:8 is placed from the digit "
        "itself, as no real mask could be."
    )
    page.table(rows, COLUMNS)
    words = " ".join(f"--mask {spec}" for spec in specs)
    page.command(f"inkfill evaluate --count {SCORED_IMAGES} --samples {SCORED_SAMPLES} {words}")
