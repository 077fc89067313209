"""The pages that ``inkfill evaluate`` and ``inkfill inpaint --report`` write, and the pictures of a training."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkfill.app import figures
from inkfill.app.html import Page
from inkfill.data import Dataset, Images, ValueRange, masks
from inkfill.data.images import BYTES, as_bytes
from inkfill.evaluation import metrics
from inkfill.evaluation.classifier import WHOLE, judge, load_classifier
from inkfill.evaluation.protocol import Evaluation, Result
from inkfill.evaluation.scores import COLUMNS, LABEL_COLUMNS, NEW_COLUMNS, planes
from inkfill.files import UNFINISHED, written_whole
from inkfill.filling.inpaint import inpaint
from inkfill.models.adapters import Foreign
from inkfill.models.model import Model

SHOWN = 6  # images of a gallery
Results = Sequence[Result]

# ---- an evaluation ---------------------------------------------------------------------------------------------------


def rank_histograms(results: Results, path: Path) -> None:
    """One small histogram a cell: flat is calibrated, a bowl is too sure, a hill too unsure."""
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
    """Quality against network evaluations and seconds; False where no cell has a curve."""
    lines: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in results:
        lines.setdefault((result.cell.mask, result.cell.method), []).append(result.row)
    lines = {key: sorted(rows, key=lambda r: r["evaluations"]) for key, rows in lines.items() if len(rows) > 1}
    if not lines:
        return False
    names = {"evaluations": "network evaluations", "seconds": "core-seconds", "energy": "energy score", "crps": "CRPS"}
    names["frechet"] = "Frechet distance"
    measured = [y for y in ("energy", "crps", "frechet") if all(y in rows[0] for rows in lines.values())]
    panels = [(y, x) for y in measured for x in ("evaluations", "seconds")]
    with figures.plot(path, len(panels), 2, (4.5, 3.0)) as axes:
        for (y, x), axis in zip(panels, axes, strict=False):
            for (mask, method), rows in lines.items():
                axis.plot([r[x] for r in rows], [r[y] for r in rows], "o-", markersize=3, label=f"{mask} {method}")
            axis.set_xscale("log")
            axis.minorticks_off()
            if x == "evaluations":
                ticks = sorted({r[x] for rows in lines.values() for r in rows})
                axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.set_xlabel(names[x] + " per completion", fontsize=8)
            axis.set_ylabel(names[y], fontsize=8)
            axis.tick_params(labelsize=7)
        axes[0].legend(fontsize=6)
    return True


def write_evaluation(out: Path, found: Evaluation) -> Path:
    """Write ``report.html`` and its pictures into ``out``; gives the page."""
    page = Page(out, "inkfill: evaluation")
    made = "; ".join(dict.fromkeys(result.done.machine for result in found.results))
    weights = f"Weights {found.about['checkpoint']} ({found.about['checkpoint_hash']})"
    page.text(f"{found.summary}. {weights}. Completions made on: {made}.")
    page.table(found.rows, COLUMNS)
    page.text(
        "Pixels: missing ones only, intensities in [0, 1]. CRPS and energy score: lower is better, they reward "
        "completions that are sharp and honest about what cannot be known. The 90 % interval should cover 0.90."
    )
    if found.labelled:
        page.heading("Labels and realism")
        page.table(found.rows, LABEL_COLUMNS)
        page.text(
            "Of whole completed images. The yardstick is a classifier that was trained on masked digits: an estimate "
            "of what can be known. The floor of the Frechet distance is that of as many real images; neither is shown "
            "for few images. Confident: completions that a classifier reads with over 90 %, and real images."
        )
    for line in found.advice:
        page.text(line)
    if found.generated:
        page.heading("Images from nothing")
        page.table(found.generated, NEW_COLUMNS)
        page.text(
            "One for each real image. Imbalance: how far their labels are from equally many of each. Nearest: mean "
            "distance to the nearest training image, beside that of real images."
        )
    page.heading("Calibration")
    page.text("Rank of the truth among the completions. Flat is calibrated; a bowl is too sure, a hill too unsure.")
    rank_histograms(found.results, out / "ranks.png")
    page.image("ranks.png", "rank histograms", plot=True)
    if cost_curves(found.results, out / "cost.png"):
        page.heading("Quality against cost")
        page.image("cost.png", "quality against cost", plot=True)
    page.heading("Completions")
    for i, result in enumerate(found.results):
        _show(page, found.images, result, f"cell-{i}", found.values)
    return page.write("report.html")


def _show(page: Page, images: Images, result: Result, name: str, values: ValueRange) -> None:
    """The first completions of a cell, and the best and the worst."""
    cell, done = result.cell, result.done
    page.heading(f"{cell.mask}, {cell.method}, {cell.steps} steps", 3)

    def gallery(chosen: Sequence[int], suffix: str) -> None:
        page.tiles(error_gallery(images, result, chosen, values), f"{name}{suffix}.png", f"completions{suffix}")

    gallery(range(min(SHOWN, len(images))), "")
    truth, flat = planes(images, done, values)
    energy = metrics.energy_score(truth, flat.filled, flat.mask)
    measured = int(np.isfinite(energy).sum())
    if measured >= 4 * SHOWN:
        order = np.argsort(energy)[:measured]  # NaN, where nothing is missing, comes last
        for chosen, word in ((order[:3], "best"), (order[::-1][:3], "worst")):
            page.text(f"The {word} three of {len(images)} by energy score:")
            gallery(list(chosen), f"-{word}")


def error_gallery(images: Images, result: Result, chosen: Sequence[int], values: ValueRange = BYTES) -> figures.Tiles:
    """The chosen images of a cell, with the error of their means."""
    rows, done = list(chosen), result.done
    names = [str(i) for i in rows]
    shown, filled = (as_bytes(x[rows], values) for x in (images, done.filled))
    return figures.gallery(shown, done.mask[rows], filled, names, error=True)


# ---- completions of somebody's images --------------------------------------------------------------------------------


def label_words(probabilities: NDArray[np.floating]) -> str:
    """What K completions of an image are read as, most votes first, from probabilities ``[K, L]``: "7: 3 of 4"."""
    votes = np.bincount(probabilities.argmax(1), minlength=probabilities.shape[1])
    order = np.argsort(-votes, kind="stable")
    return ", ".join(f"{label}: {votes[label]} of {len(probabilities)}" for label in order if votes[label])


@contextmanager
def _replaced(out: Path) -> Iterator[Path]:
    """A folder to write a report into: an earlier one in ``out`` stays until this one is whole."""
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out, prefix=UNFINISHED) as name:
        beside = Path(name)
        yield beside
        for earlier in (*out.glob("image-*.png"), *out.glob("filled.np?"), *out.glob("spread.np?"), out / "labels.npy"):
            earlier.unlink(missing_ok=True)
        for made in sorted(beside.iterdir(), key=lambda path: path.suffix == ".html"):  # the page comes last
            made.replace(out / made.name)


def write_inpainting(
    out: Path,
    images: Images | Sequence[Images],
    mask: NDArray[np.bool_] | Sequence[NDArray[np.bool_]],
    filled: Images | Sequence[Images],
    names: Sequence[str] | None,
    model: Model | Foreign,
    values: Callable[[Images], ValueRange],
) -> Path:
    """Write ``report.html`` into ``out``: each image's completions, mean, per-pixel spread and what they are read as.

    Beside it go ``filled.npy``, ``spread.npy`` (float32 ``[N, H, W]``, standard deviation as a share of the range from
    black to white, for colour the root of the mean square over channels) and, for weights trained on MNIST and images
    of its size, ``labels.npy`` (float32 ``[N, 10]``). Images of several sizes have ``filled.npz`` and ``spread.npz``,
    with an array each under its number. ``values`` says what black and white are in an image.
    """
    with _replaced(out) as beside:
        page = Page(beside, "inkfill: completions")
        page.text(
            f"{len(filled[0])} completions of each image. Blue is missing. In the spread, bright means that "
            "completions disagree: there the model is unsure, and one completion is one guess of many."
        )
        page.text(repr(model).split("; run it")[0].removeprefix("<"))
        pairs = zip(images, filled, strict=True)
        shown = [(as_bytes(image, values(image)), as_bytes(completions, values(image))) for image, completions in pairs]
        spread = [(figures.spread_of(completions) / 255).astype(np.float32) for _, completions in shown]
        found = None
        if (
            isinstance(model, Model)
            and model.recipe.trained_on == "mnist"
            and all(image.shape == (28, 28) for image, _ in shown)
        ):
            found = judge(load_classifier(WHOLE), np.concatenate([k for _, k in shown]))[0]
            found = found.reshape(len(shown), -1, found.shape[1])
            _save(beside / "labels", metrics.vote(found).astype(np.float32))
        for i, name in enumerate(names or [f"image {i}" for i in range(len(images))]):
            hole = mask[i]
            width = (
                f"mean spread {spread[i][hole].mean():.3f} over {hole.sum()} missing pixels" if hole.any() else "whole"
            )
            image, completions = shown[i]
            page.heading(name)
            page.text(width)
            if found is not None:
                page.text("read as a digit:", label_words(found[i]))
            tiles = figures.gallery(image[None], hole[None], completions[None], show=8, original=False)
            page.tiles(tiles, f"image-{i}.png", name)
        _save(beside / "filled", filled)
        _save(beside / "spread", np.stack(spread) if isinstance(filled, np.ndarray) else spread)
        page.write("report.html")
    return out / "report.html"


def _save(path: Path, arrays: NDArray[Any] | Sequence[NDArray[Any]]) -> None:
    """Write an array as ``.npy``, or arrays of several sizes as ``.npz``."""
    whole = isinstance(arrays, np.ndarray)
    with written_whole(path.with_suffix(".npy" if whole else ".npz")) as temporary:
        if whole:
            np.save(temporary, arrays)
        else:
            np.savez_compressed(temporary, **{str(i): array for i, array in enumerate(arrays)})


def training_pictures(folder: Path) -> Callable[[int, Model, Dataset], None]:
    """What ``train`` calls after a validation: a small picture of completions of validation images, by step."""

    def show(step: int, model: Model, dataset: Dataset) -> None:
        images = dataset.validation[:8]
        specs = [spec for spec in ("half:left", "box:0.5", "pixels:0.9", "all") for _ in range(2)][: len(images)]
        mask = masks.fit_each(specs, images)
        filled = as_bytes(inpaint(model, images, mask, samples=4), model.value_range)
        shown = as_bytes(images, model.value_range)
        figures.save_picture(figures.gallery(shown, mask, filled).picture(), folder / f"{step:07d}.png")

    return show
