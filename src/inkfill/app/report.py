"""The pages of ``inkfill evaluate`` and ``inkfill inpaint --report``, and the figures of a training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inkfill.app import figures
from inkfill.app.files import Filled
from inkfill.app.html import Page
from inkfill.data import Dataset, Images, masks
from inkfill.data.images import as_bytes
from inkfill.data.readers import stacked
from inkfill.evaluation.protocol import Evaluation, Result
from inkfill.evaluation.scores import COLUMNS, LABEL_COLUMNS, LEAST_IMAGES, NEW_COLUMNS
from inkfill.files import folder_written_whole, written_whole
from inkfill.filling.inpaint import inpaint
from inkfill.models.adapters import Foreign
from inkfill.models.model import Model

SHOWN = 6  # images of a gallery

# ---- evaluation ------------------------------------------------------------------------------------------------------


def rank_histograms(results: Sequence[Result], path: Path) -> None:
    """One histogram per cell: calibrated samples give a flat one, overconfident samples one with high ends."""
    several = [r for r in results if r.done.filled.shape[1] > 1 and sum(r.row["ranks"]) > 0]
    with figures.plot(path, len(several), 4, (2.6, 1.8)) as axes:
        for result, axis in zip(several, axes, strict=False):
            ranks, cell = result.row["ranks"], result.cell
            share = np.array(ranks) / sum(ranks) * len(ranks)
            axis.bar(np.arange(len(share)), share, width=0.9, color="#4660a0")
            axis.axhline(1, color="black", linewidth=0.8)
            axis.set_title(f"{cell.mask} {cell.method} {cell.steps}", fontsize=7)
            axis.set_ylim(0, max(2.0, share.max() * 1.05))
            axis.tick_params(labelsize=6)


def write_evaluation(out: Path, found: Evaluation) -> Path:
    """Write ``report.html`` and its figures into ``out``; returns the page."""
    page = Page(out, "inkfill: evaluation")
    made = "; ".join(dict.fromkeys(result.done.machine for result in found.results))
    weights = f"Weights {found.about['checkpoint']} ({found.about['checkpoint_hash']})"
    page.text(f"{found.summary}. {weights}. Samples drawn on: {made}.")
    page.table(found.rows, COLUMNS)
    page.text(
        "Missing pixels only, intensities in [0, 1]. CRPS and energy score (lower is better) reward samples that are "
        "sharp and calibrated. A calibrated 90 % interval has a coverage of 0.90."
    )
    if found.labelled:
        page.text("Labels and realism", "h2")
        page.table(found.rows, LABEL_COLUMNS)
        page.text(
            "Classifier labels of whole filled images, beside those of a classifier trained on masked digits, an "
            "estimate of the label posterior. Fréchet distance: in classifier features (not FID), for at least "
            f"{LEAST_IMAGES} images. Columns named real: the same for the original images."
        )
    for line in found.advice:
        page.text(line)
    if found.generated:
        page.text("Unconditional samples", "h2")
        page.table(found.generated, NEW_COLUMNS)
        page.text(
            "As many samples as real images. Imbalance: distance of their label frequencies from uniform. Nearest: "
            "mean distance to the nearest training image, beside that of real images."
        )
    page.text("Calibration", "h2")
    page.text(
        "Rank of the true pixel value among the samples. Flat: calibrated. High ends: overconfident. High centre: "
        "underconfident."
    )
    rank_histograms(found.results, out / "ranks.png")
    page.image("ranks.png", "rank histograms")
    page.text("Samples", "h2")
    for i, result in enumerate(found.results):
        cell, done = result.cell, result.done
        page.text(f"{cell.mask}, {cell.method}, {cell.steps} steps", "h3")
        shown, filled = (as_bytes(x[:SHOWN], found.values) for x in (found.images, done.filled))
        names = [str(number) for number in range(len(shown))]
        page.image(f"cell-{i}.png", "samples", figures.gallery(shown, done.mask[:SHOWN], filled, names))
    return page.write("report.html")


# ---- inpainting ------------------------------------------------------------------------------------------------------


def write_inpainting(out: Path, filled: Sequence[Filled], names: Sequence[str] | None, model: Model | Foreign) -> Path:
    """Write ``report.html`` into ``out``: samples, mean and standard deviation of each image; returns the page.

    Beside it go ``filled.npy`` ``[N, K, ...]`` and ``std.npy``, the standard deviation per pixel as a fraction of the
    data range, float32 ``[N, H, W]`` (for colour, the root mean square over channels). Images of several sizes give
    ``filled.npz`` and ``std.npz``, with one array per image under its number.
    """
    with folder_written_whole(out) as folder:
        page, deviations = Page(folder, "inkfill: samples"), []
        page.text(
            f"{len(filled[0].samples)} samples of each image. Blue pixels are missing. The standard deviation "
            "(std) is bright where samples disagree: one sample there is one of many possible values."
        )
        page.text(repr(model).split("; run it")[0].strip("<>"))
        for i, each in enumerate(filled):
            (image, samples), mask, name = each.as_bytes(), each.mask, names[i] if names else f"image {i}"
            std = (figures.std(samples) / 255).astype(np.float32)
            deviations.append(std)
            about = "No pixel is missing."
            if mask.any():
                missing = mask.any(-1) if mask.ndim == 3 else mask
                about = f"Standard deviation {std[missing].mean():.3f}, mean over {missing.sum()} missing pixels."
            page.text(name, "h2")
            page.text(about)
            drawn = figures.gallery(image[None], mask[None], samples[None], show=8, original=False)
            page.image(f"image-{i}.png", name, drawn)
        _save(folder / "filled", [each.samples for each in filled])
        _save(folder / "std", deviations)
        page.write("report.html")
    return out / "report.html"


def _save(path: Path, arrays: list[Images]) -> None:
    """Write arrays of one size and dtype as one ``.npy``, others as ``.npz``."""
    one = stacked(arrays)
    with written_whole(path.with_suffix(".npz" if isinstance(one, list) else ".npy")) as temporary:
        if isinstance(one, list):
            named: dict[str, Any] = {str(i): array for i, array in enumerate(one)}
            np.savez_compressed(temporary, **named)
        else:
            np.save(temporary, one)


# ---- training --------------------------------------------------------------------------------------------------------


def training_picture(folder: Path, step: int, model: Model, dataset: Dataset) -> None:
    """Write ``STEP.png`` with samples of validation images, at a validation in a training."""
    images = dataset.validation[:8]
    specs = [spec for spec in ("half:left", "box:0.5", "pixels:0.9", "all") for _ in range(2)][: len(images)]
    mask = masks.fit_each(specs, images)
    filled = as_bytes(inpaint(model, images, mask, samples=4), model.value_range)
    shown = as_bytes(images, model.value_range)
    figures.save_picture(figures.gallery(shown, mask, filled), folder / f"{step:07d}.png")
