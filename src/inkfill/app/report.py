"""The pages of ``inkfill evaluate`` and ``inkfill inpaint --report``, and the figures of a training."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkfill.app import figures
from inkfill.app.files import Stack
from inkfill.app.html import Page
from inkfill.data import Dataset, Images, ValueRange, masks
from inkfill.data.images import BYTES, as_bytes
from inkfill.evaluation import metrics
from inkfill.evaluation.classifier import WHOLE, judge, load_classifier
from inkfill.evaluation.protocol import Evaluation, Result
from inkfill.evaluation.scores import COLUMNS, LABEL_COLUMNS, LEAST_IMAGES, NEW_COLUMNS, planes
from inkfill.files import folder_written_whole, written_whole
from inkfill.filling.inpaint import inpaint
from inkfill.models.adapters import Foreign
from inkfill.models.model import Model

SHOWN = 6  # images of a gallery
Results = Sequence[Result]

# ---- evaluation ------------------------------------------------------------------------------------------------------


def rank_histograms(results: Results, path: Path) -> None:
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


def cost_curves(results: Results, path: Path) -> bool:
    """Scores against NFE and seconds; False where no mask and method has several numbers of steps."""
    curves: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        curves.setdefault(f"{result.cell.mask} {result.cell.method}", []).append(result.row)
    curves = {label: sorted(rows, key=lambda r: r["evaluations"]) for label, rows in curves.items() if len(rows) > 1}
    if not curves:
        return False
    costs = {"evaluations": "network evaluations per sample", "seconds": "core-seconds per sample"}
    scores = {"energy": "energy score", "crps": "CRPS", "frechet": "Fréchet distance"}
    panels = [(y, x) for y in scores for x in costs if all(y in rows[0] for rows in curves.values())]
    ticks = sorted({row["evaluations"] for rows in curves.values() for row in rows})
    with figures.plot(path, len(panels), 2, (4.5, 3.0)) as axes:
        for (y, x), axis in zip(panels, axes, strict=False):
            for label, rows in curves.items():
                axis.plot([row[x] for row in rows], [row[y] for row in rows], "o-", markersize=3, label=label)
            axis.set_xscale("log")
            axis.minorticks_off()
            if x == "evaluations":
                axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.set_xlabel(costs[x], fontsize=8)
            axis.set_ylabel(scores[y], fontsize=8)
            axis.tick_params(labelsize=7)
        axes[0].legend(fontsize=6)
    return True


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
        page.heading("Labels and realism")
        page.table(found.rows, LABEL_COLUMNS)
        page.text(
            "Classifier labels of whole filled images, beside those of a classifier trained on masked digits, an "
            "estimate of the label posterior. Fréchet distance: in classifier features (not FID), for at least "
            f"{LEAST_IMAGES} images. Columns named real: the same for the original images."
        )
    for line in found.advice:
        page.text(line)
    if found.generated:
        page.heading("Unconditional samples")
        page.table(found.generated, NEW_COLUMNS)
        page.text(
            "As many samples as real images. Imbalance: distance of their label frequencies from uniform. Nearest: "
            "mean distance to the nearest training image, beside that of real images."
        )
    page.heading("Calibration")
    page.text(
        "Rank of the true pixel value among the samples. Flat: calibrated. High ends: overconfident. High centre: "
        "underconfident."
    )
    rank_histograms(found.results, out / "ranks.png")
    page.image("ranks.png", "rank histograms", plot=True)
    if cost_curves(found.results, out / "cost.png"):
        page.heading("Scores against cost")
        page.image("cost.png", "scores against cost", plot=True)
    page.heading("Samples")
    for i, result in enumerate(found.results):
        _show(page, found.images, result, f"cell-{i}", found.values)
    return page.write("report.html")


def _show(page: Page, images: Images, result: Result, name: str, values: ValueRange) -> None:
    """The first images of a cell, the best and the worst."""
    cell, done = result.cell, result.done
    page.heading(f"{cell.mask}, {cell.method}, {cell.steps} steps", 3)

    def gallery(chosen: Sequence[int], suffix: str) -> None:
        page.tiles(error_gallery(images, result, chosen, values), f"{name}{suffix}.png", f"samples{suffix}")

    gallery(range(min(SHOWN, len(images))), "")
    truth, flat = planes(images, done, values)
    energy = metrics.energy_score(truth, flat.filled, flat.mask)
    measured = int(np.isfinite(energy).sum())
    if measured >= 4 * SHOWN:
        order = np.argsort(energy)[:measured]  # NaN, for images without missing pixels, comes last
        for chosen, word in ((order[:3], "best"), (order[::-1][:3], "worst")):
            page.text(f"The {word} three of {len(images)} by energy score:")
            gallery(list(chosen), f"-{word}")


def error_gallery(images: Images, result: Result, chosen: Sequence[int], values: ValueRange = BYTES) -> figures.Tiles:
    """The chosen images of a cell, with the absolute error of the mean."""
    rows, done = list(chosen), result.done
    names = [str(i) for i in rows]
    shown, filled = (as_bytes(x[rows], values) for x in (images, done.filled))
    return figures.gallery(shown, done.mask[rows], filled, names, error=True)


# ---- inpainting ------------------------------------------------------------------------------------------------------


def write_inpainting(out: Path, stacks: list[Stack], names: Sequence[str] | None, model: Model | Foreign) -> Path:
    """Write ``report.html`` into ``out``: samples, mean and standard deviation of each image; returns the page.

    Beside it go ``filled.npy`` ``[N, K, ...]`` and ``std.npy``, the standard deviation per pixel as a fraction of the
    data range, float32 ``[N, H, W]`` (for colour, the root mean square over channels). Images of several sizes give
    ``filled.npz`` and ``std.npz``, with one array per image under its number. For weights trained on MNIST and images
    of its size there is ``labels.npy`` too: the distribution of the samples' labels, float32 ``[N, 10]``.
    """
    missing = [mask for stack in stacks for mask in stack.mask]
    shown = [pair for stack in stacks for pair in zip(*stack.as_bytes(), strict=True)]
    std = [(figures.std(samples) / 255).astype(np.float32) for _, samples in shown]
    with folder_written_whole(out) as folder:
        page = Page(folder, "inkfill: samples")
        page.text(
            f"{stacks[0].samples.shape[1]} samples of each image. Blue pixels are missing. The standard deviation "
            "(std) is bright where samples disagree: one sample there is one of many possible values."
        )
        page.text(repr(model).split("; run it")[0].strip("<>"))
        labels = _label_probabilities(model, [samples for _, samples in shown])
        if labels is not None:
            _save(folder / "labels", [metrics.vote(labels).astype(np.float32)])
        for i, (image, samples) in enumerate(shown):
            name, mask = names[i] if names else f"image {i}", missing[i]
            page.heading(name)
            page.text(
                f"Standard deviation {std[i][mask].mean():.3f}, mean over {mask.sum()} missing pixels."
                if mask.any()
                else "No pixel is missing."
            )
            if labels is not None:
                page.text("Classifier labels:", label_words(labels[i]))
            tiles = figures.gallery(image[None], mask[None], samples[None], show=8, original=False)
            page.tiles(tiles, f"image-{i}.png", name)
        one = len(stacks) == 1
        _save(folder / "filled", [stacks[0].samples] if one else [stack.samples[0] for stack in stacks])
        _save(folder / "std", [np.stack(std)] if one else std)
        page.write("report.html")
    return out / "report.html"


def _save(path: Path, arrays: Sequence[Any]) -> None:
    """Write one array as ``.npy``, several as ``.npz``."""
    with written_whole(path.with_suffix(".npy" if len(arrays) == 1 else ".npz")) as temporary:
        if len(arrays) == 1:
            np.save(temporary, arrays[0])
        else:
            np.savez_compressed(temporary, **{str(i): array for i, array in enumerate(arrays)})


def _label_probabilities(model: Model | Foreign, samples: list[Images]) -> NDArray[np.floating] | None:
    """Classifier probabilities of samples, ``[N, K, 10]``; None unless the model was trained on MNIST's digits."""
    mnist = isinstance(model, Model) and model.recipe.trained_on == "mnist"
    if not mnist or any(each.shape[1:] != (28, 28) for each in samples):
        return None
    found = judge(load_classifier(WHOLE), np.concatenate(samples))[0]
    return found.reshape(len(samples), -1, found.shape[1])


def label_words(probabilities: NDArray[np.floating]) -> str:
    """The labels of K samples, the most frequent first, from probabilities ``[K, L]``: "7: 3 of 4, 8: 1 of 4"."""
    counts = np.bincount(probabilities.argmax(1), minlength=probabilities.shape[1])
    order = np.argsort(-counts, kind="stable")
    return ", ".join(f"{label}: {counts[label]} of {len(probabilities)}" for label in order if counts[label])


# ---- training --------------------------------------------------------------------------------------------------------


def training_pictures(folder: Path) -> Callable[[int, Model, Dataset], None]:
    """A callback for validations in a training: writes ``STEP.png`` with samples of validation images."""

    def show(step: int, model: Model, dataset: Dataset) -> None:
        images = dataset.validation[:8]
        specs = [spec for spec in ("half:left", "box:0.5", "pixels:0.9", "all") for _ in range(2)][: len(images)]
        mask = masks.fit_each(specs, images)
        filled = as_bytes(inpaint(model, images, mask, samples=4), model.value_range)
        shown = as_bytes(images, model.value_range)
        figures.save_picture(figures.gallery(shown, mask, filled).picture(), folder / f"{step:07d}.png")

    return show
