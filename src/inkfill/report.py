"""The page that ``inkfill evaluate`` and ``inkfill inpaint --report`` write: tables, pictures and curves side by
side."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkfill import figures, metrics
from inkfill.checkpoint import written_whole
from inkfill.classifier import WHOLE, judge, load_classifier
from inkfill.data import Images
from inkfill.evaluate import LABEL_COLUMNS, Cell, Completed, table

STYLE = """
body { font: 16px/1.5 sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
img { max-width: 100%; image-rendering: pixelated; display: block; margin: .5rem 0 1.5rem }
img.plot { image-rendering: auto }
pre, code { background: #f3f3f3; padding: .2em .4em }
pre { padding: 1em; overflow-x: auto; font-size: 13px }
"""
SHOWN = 6  # images of a gallery
Results = Sequence[tuple[Cell, Completed, dict[str, Any]]]


def page(title: str, body: Sequence[str]) -> str:
    """A whole HTML page around a body."""
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n<h1>{html.escape(title)}</h1>\n" + "\n".join(body) + "\n</html>\n"
    )


def _picture(pixels: figures.RGB, folder: Path, name: str, alt: str) -> str:
    figures.save_picture(pixels, folder / name)
    return f'<img src="{name}" alt="{html.escape(alt)}">'


def error_gallery(images: Images, done: Completed, chosen: Sequence[int]) -> figures.RGB:
    """A row an image: masked, four completions, mean, spread, absolute error of the mean on the same scale,
    original."""
    rows, show = [], min(4, done.filled.shape[1])
    for i in chosen:
        completions, image = done.filled[i], images[i]
        mean = completions.astype(np.float64).mean(0)
        rows.append(
            [
                figures.masked(image, done.mask[i]),
                *(figures.grey(c) for c in completions[:show]),
                figures.grey(mean.round().astype(np.uint8)),
                figures.spread(completions),
                figures.heat(np.abs(mean - image)),
                figures.grey(image),
            ]
        )
    columns = ["masked", *(f"sample {k + 1}" for k in range(show)), "mean", "spread", "|error|", "original"]
    return figures.sheet(rows, columns, [str(i) for i in chosen])


def rank_histograms(results: Results, path: Path) -> None:
    """One small histogram a cell: flat is calibrated, a bowl is too sure, a hill too unsure."""
    several = [(cell, row) for cell, done, row in results if done.filled.shape[1] > 1 and sum(row["ranks"]) > 0]
    with figures.plot(path, len(several), 4, (2.6, 1.8)) as axes:
        for (cell, row), axis in zip(several, axes, strict=False):
            share = np.array(row["ranks"]) / sum(row["ranks"]) * len(row["ranks"])
            axis.bar(np.arange(len(share)), share, width=0.9, color="#4660a0")
            axis.axhline(1, color="black", linewidth=0.8)
            axis.set_title(f"{cell.mask} {cell.method} {cell.steps}", fontsize=7)
            axis.set_ylim(0, max(2.0, share.max() * 1.05))
            axis.tick_params(labelsize=6)


def cost_curves(results: Results, path: Path) -> bool:
    """Energy score, CRPS and Frechet distance against evaluations and seconds; False where no cell has a curve."""
    lines: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell, _, row in results:
        lines.setdefault((cell.mask, cell.method), []).append(row)
    lines = {key: sorted(rows, key=lambda r: r["evaluations"]) for key, rows in lines.items() if len(rows) > 1}
    if not lines:
        return False
    panels = [(y, x) for y in ("energy", "crps", "frechet") for x in ("evaluations", "seconds")]
    names = {"evaluations": "network evaluations", "seconds": "core-seconds", "energy": "energy score", "crps": "CRPS"}
    names["frechet"] = "Frechet distance"
    with figures.plot(path, len(panels), 2, (4.5, 3.0)) as axes:
        for (y, x), axis in zip(panels, axes, strict=False):
            for (mask, method), rows in lines.items():
                if y in rows[0]:
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


def write_evaluation(out: Path, images: Images, results: Results, about: str) -> Path:
    """Write ``report.html`` and its pictures into ``out``; gives the page."""
    rows = [row for _, _, row in results]
    body = [f"<p>{html.escape(about)}</p>", f"<pre>{html.escape(table(rows))}</pre>"]
    body.append(
        "<p>Pixels: missing ones only, intensities in [0, 1]. CRPS and energy score: lower is better, they reward "
        "completions that are sharp and honest about what cannot be known. The 90 % interval should cover 0.90.</p>"
    )
    if "vote" in rows[0]:
        body.append(f"<h2>Labels and realism</h2>\n<pre>{html.escape(table(rows, LABEL_COLUMNS))}</pre>")
        body.append(
            "<p>Of whole completed images. The yardstick is a classifier that was trained on masked digits: an "
            "estimate of what can be known. The floor of the Frechet distance is that of as many real images.</p>"
        )
    rank_histograms(results, out / "ranks.png")
    body.append(
        "<h2>Calibration</h2>\n<p>Rank of the truth among the completions. Flat is calibrated; a bowl is too "
        'sure, a hill too unsure.</p>\n<img class="plot" src="ranks.png" alt="rank histograms">'
    )
    if cost_curves(results, out / "cost.png"):
        body.append('<h2>Quality against cost</h2>\n<img class="plot" src="cost.png" alt="quality against cost">')
    body.append("<h2>Completions</h2>")
    for i, (cell, done, _) in enumerate(results):
        body.append(f"<h3>{html.escape(cell.mask)}, {html.escape(cell.method)}, {cell.steps} steps</h3>")
        first = list(range(min(SHOWN, len(images))))
        body.append(_picture(error_gallery(images, done, first), out, f"cell-{i}.png", "completions"))
        energy = metrics.energy_score(images, done.filled, done.mask)
        if np.isfinite(energy).sum() >= 4 * SHOWN:
            order = np.argsort(energy)[: np.isfinite(energy).sum()]  # NaN, where nothing is missing, comes last
            sides = ((order[:3], "best"), (order[::-1][:3], "worst"))
            for chosen, word in sides:
                body.append(f"<p>The {word} three of {len(images)} by energy score:</p>")
                body.append(_picture(error_gallery(images, done, list(chosen)), out, f"cell-{i}-{word}.png", word))
    path = out / "report.html"
    with written_whole(path) as temporary:
        temporary.write_text(page("inkfill: evaluation", body))
    return path


def label_words(posterior: NDArray[np.floating]) -> str:
    """A label posterior as words: what is at least 2 % likely, most likely first."""
    order = np.argsort(-posterior)
    return ", ".join(f"{label}: {posterior[label]:.2f}" for label in order if posterior[label] >= 0.02)


def write_inpainting(
    out: Path, images: Images, mask: NDArray[np.bool_], filled: Images, names: Sequence[str], digits: bool
) -> Path:
    """Write ``report.html`` into ``out``: each image's completions, mean, per-pixel spread and label posterior.

    Beside it go ``filled.npy``, ``spread.npy`` (float32 ``[N, H, W]``, standard deviation in [0, 0.5]) and, where
    ``digits`` says that the classifier knows such images, ``labels.npy`` (float32 ``[N, 10]``).
    """
    body = [
        f"<p>{filled.shape[1]} completions of each image. Blue is missing. In the spread, bright means that "
        "completions disagree: there the model is unsure, and one completion is one guess of many.</p>"
    ]
    spread = (filled / np.float32(255)).std(1, dtype=np.float32)
    arrays = {"filled.npy": filled, "spread.npy": spread}
    posterior = None
    if digits:
        found = judge(load_classifier(WHOLE), filled.reshape(-1, *filled.shape[2:]))[0]
        posterior = metrics.vote(found.reshape(*filled.shape[:2], -1))
        arrays["labels.npy"] = posterior.astype(np.float32)
    for i, name in enumerate(names):
        hole = mask[i]
        width = f"mean spread {spread[i][hole].mean():.3f} over {hole.sum()} missing pixels" if hole.any() else "whole"
        body.append(f"<h2>{html.escape(name)}</h2>\n<p>{width}</p>")
        if posterior is not None:
            body.append(f"<p>read as a digit: <b>{label_words(posterior[i])}</b></p>")
        tiles = figures.gallery(images[i : i + 1], mask[i : i + 1], filled[i : i + 1], show=8, original=False)
        body.append(_picture(tiles, out, f"image-{i}.png", name))
    for name, array in arrays.items():
        with written_whole(out / name) as temporary:
            np.save(temporary, array)
    path = out / "report.html"
    with written_whole(path) as temporary:
        temporary.write_text(page("inkfill: completions", body))
    return path
