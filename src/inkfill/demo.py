"""The demonstration: what ``inkfill demo`` writes, and the sheet of masks."""

import html
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from inkfill import defaults, figures, masks
from inkfill.checkpoint import written_whole
from inkfill.data import Dataset, Images, check_size, to_uint8, to_x0
from inkfill.denoiser import Model
from inkfill.errors import InputError
from inkfill.evaluate import Cell, evaluate, machine, table
from inkfill.inpainting import fit_mask, inpaint
from inkfill.rng import SampleNoise, stream

GALLERY = ("half:left", "half:random", "box:14", "quadrants:3", "pixels:0.9", "strokes", "stripes:3", "all")
SCORED_IMAGES, SCORED_SAMPLES = 100, 4
FRAMES = 40  # steps of the animation: more than needed, to see it happen
TITLE = "inkfill demo"
Bar = Callable[[int, str], AbstractContextManager[Callable[[int], object]]]


def forward_strip(model: Model, image: Images, seed: int) -> figures.RGB:
    """One image at ten noise levels, all with the same noise."""
    levels = [int(t) for t in np.linspace(0, model.schedule.T, 10)]
    x0 = to_x0(image[None])
    eps = SampleNoise(seed, [0], [0], tuple(x0.shape[1:]))()
    tiles = [figures.grey(to_uint8(model.schedule.q_sample(x0, t, eps))[0]) for t in levels]
    return figures.sheet([tiles], [f"t = {t}" for t in levels])


def reverse_frames(
    model: Model, images: Images, mask: NDArray[np.bool_], seed: int
) -> tuple[list[int], list[Images], list[Images]]:
    """Levels, and at each what the sampler holds and what the network believes; uint8 ``[N, H, W]`` each."""
    levels, states, beliefs = [], [], []

    def watch(t: int, x_t: torch.Tensor, x0_hat: torch.Tensor) -> None:
        levels.append(t)
        states.append(np.where(mask, to_uint8(x_t), images))
        beliefs.append(to_uint8(x0_hat))

    filled = inpaint(model, images, mask, 1, steps=FRAMES, seed=seed, rows=len(images), watch=watch)[:, 0]
    return [*levels, 0], [*states, filled], [*beliefs, filled]


def reverse_strip(model: Model, image: Images, mask: NDArray[np.bool_], seed: int) -> figures.RGB:
    """One masked image becoming whole: above the state, below the network's belief, at ten levels."""
    levels, states, beliefs = reverse_frames(model, image[None], mask[None], seed)
    shown = [int(i) for i in np.linspace(0, len(levels) - 1, 10).round()]
    rows = [
        [figures.masked(image, mask), *(figures.grey(states[i][0]) for i in shown), figures.grey(image)],
        [figures.masked(image, mask), *(figures.grey(beliefs[i][0]) for i in shown), figures.grey(image)],
    ]
    columns = ["masked", *(f"t = {levels[i]}" for i in shown), "original"]
    return figures.sheet(rows, columns, ["x_t", "x0_hat"])


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
    drawn = [masks.parse(spec).draw(6, size, size, stream(seed, "sheet"), digits) for spec in specs]
    rows = [[figures.masked(d, m) for d, m in zip(digits, mask, strict=True)] for mask in drawn]
    half = (len(rows) + 1) // 2
    left = figures.sheet(rows[:half], names=specs[:half], zoom=2)
    right = figures.sheet(rows[half:] + [rows[-1]] * (2 * half - len(rows)), names=specs[half:], zoom=2)
    return np.concatenate([left, right], 1)


def is_demo(folder: Path) -> bool:
    """Whether a folder holds an earlier demonstration."""
    page = folder / "index.html"
    return page.is_file() and TITLE in page.read_text(errors="replace")


def write_demo(model: Model, dataset: Dataset, out: Path, seed: int, bar: Bar) -> Path:
    """Write the demonstration into ``out`` and give the page to open. Only test images are shown and scored."""
    images = dataset.test
    check_size(images, dataset.name)
    if len(images) < 9 + 2 * len(GALLERY):
        raise InputError(f"{dataset.name}: {len(images)} test images are too few for the demonstration")

    figures.save_picture(forward_strip(model, images[0], seed), out / "forward.png")

    chosen = images[1:9]
    mask = fit_mask("half:left", chosen, seed)
    figures.save_picture(reverse_strip(model, chosen[0], mask[0], seed), out / "reverse.png")
    levels, states, _ = reverse_frames(model, chosen, mask, seed)
    frames = [
        figures.sheet([[figures.grey(image) for image in state]], ["" for _ in chosen], [f"t = {t:4d}"])
        for t, state in zip(levels, states, strict=True)
    ]
    figures.save_animation(frames, out / "denoising.gif")

    shown = images[9 : 9 + 2 * len(GALLERY)]
    specs = [spec for spec in GALLERY for _ in range(2)]
    hidden = np.concatenate([fit_mask(spec, shown[i : i + 1], seed + i) for i, spec in enumerate(specs[: len(shown)])])
    with bar(len(shown) * 8, "gallery") as progress:
        filled = inpaint(model, shown, hidden, samples=8, seed=seed, progress=progress)
    figures.save_picture(figures.gallery(shown, hidden, filled, specs), out / "gallery.png")

    scored = images[:SCORED_IMAGES]
    rows = []
    with bar(len(defaults.EVALUATION_MASKS) * len(scored) * SCORED_SAMPLES, "scores") as progress:
        for spec in defaults.EVALUATION_MASKS:
            rows.append(evaluate(model, scored, Cell(spec, samples=SCORED_SAMPLES, seed=seed), progress))

    page = out / "index.html"
    with written_whole(page) as temporary:
        temporary.write_text(_page(model, dataset, table(rows), seed))
    return page


def _page(model: Model, dataset: Dataset, scores: str, seed: int) -> str:
    where = machine(model)
    if dataset.name == "mnist":
        notice = "MNIST's test split, which the network never saw"
    elif dataset.name == "rendered":
        notice = "the built-in <b>rendered</b> digits (from fonts: this is <b>not MNIST</b>, which was not at hand)"
    else:
        notice = f"the test split of {html.escape(dataset.name)}"
    evaluate_masks = " ".join(f"--mask {spec}" for spec in defaults.EVALUATION_MASKS)
    sections = [
        (
            "Forward: noise is added",
            "forward.png",
            "One digit at growing noise levels t. At the last level nothing of it is left.",
            f"inkfill demo --seed {seed}",
        ),
        (
            "Reverse: a masked digit becomes whole",
            "reverse.png",
            "Above, what the sampler holds (noise, less and less of it, where pixels are missing). Below, what the "
            "network believes the digit to be, at the same moment: first an average, then one digit.",
            f"inkfill demo --seed {seed}",
        ),
        ("The same, moving", "denoising.gif", "Eight digits, left half missing.", f"inkfill demo --seed {seed}"),
        (
            "Completions",
            "gallery.png",
            "Blue pixels are missing. Four of eight completions, then the mean of all eight and their spread (bright: "
            "completions disagree, so the model is unsure there), then the original. Several completions can be right.",
            "inkfill inpaint digits.npy --mask half:left --samples 8 --out filled.png",
        ),
    ]
    body = "\n".join(
        f'<h2>{title}</h2>\n<p>{text}</p>\n<img src="{name}" alt="{title}">\n<p><code>{command}</code></p>'
        for title, name, text, command in sections
    )
    scored_text = (
        f"The first {min(SCORED_IMAGES, len(dataset.test))} test images, {SCORED_SAMPLES} completions each, "
        f"{defaults.STEPS} network evaluations each, over missing pixels only, intensities in [0, 1]. CRPS: lower is "
        "better. bbox:8 is placed from the digit itself, as no real mask could be."
    )
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{TITLE}</title>
<style>
body {{ font: 16px/1.5 sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
img {{ max-width: 100%; image-rendering: pixelated }}
pre, code {{ background: #f3f3f3; padding: .2em .4em; overflow-x: auto }}
pre {{ padding: 1em }}
</style>
<h1>inkfill: holes in digits, filled by diffusion</h1>
<p>Every digit on this page is from {notice}.</p>
{body}
<h2>Figures</h2>
<p>{scored_text}</p>
<pre>{html.escape(scores)}</pre>
<p><code>inkfill evaluate --count {SCORED_IMAGES} --samples {SCORED_SAMPLES} {evaluate_masks}</code></p>
<p>Measured on {html.escape(where["device"])}, {where["threads"]} threads, {where["dtype"]}, torch {where["torch"]}.
Weights trained on {html.escape(str(model.recipe.get("trained_on")))} for {model.recipe.get("step", 0):,} steps of
{model.recipe.get("batch_size")} images.</p>
</html>
"""
