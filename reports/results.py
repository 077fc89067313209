"""The evaluation protocol on MNIST's test split, from samples that are kept and drawn only once.

    .venv/bin/inkfill train --data mnist --objective regression --start mnist --learning-rate 0.001 --steps 3000 \\
        --out runs/regression
    .venv/bin/python reports/results_original.py train --bfloat16 --out runs/original
    .venv/bin/python reports/results_published.py
    .venv/bin/python reports/results.py measure --regression runs/regression/model.safetensors \\
        --original runs/original/model.safetensors
    .venv/bin/python reports/results.py page

``measure`` keeps samples in runs/results and writes reports/results/; ``page`` rewrites the tables of
reports/results.md.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

import inkfill
import results_original as original_network
from common import MASKS, Row, bar, distinct, folder, run, save, saved, show, write_tables
from inkfill import data
from inkfill.app import figures, report
from inkfill.evaluation import metrics, protocol
from inkfill.evaluation.cells import Cell
from inkfill.evaluation.protocol import Result
from inkfill.methods import mean_methods
from inkfill.tables import table

REPORT, METHODS = "results", mean_methods()
SOME = ("half:left", "box:10", "quadrants:3")
BASELINES = ("mean", "nearest", "empirical")
EQUAL = 48  # NFE at which methods are compared


def cells_of(group: str) -> list[Cell]:
    """The cells of a group of rows."""
    if group == "main":
        return [Cell(mask) for mask in MASKS]
    if group == "calibration":
        return [Cell(mask, samples=32) for mask in MASKS]
    if group == "regression":
        return [Cell(mask, "regression", 1, 1) for mask in MASKS]
    if group == "baselines":
        return [Cell(mask, name, 1) for mask in MASKS for name in BASELINES]
    return [Cell(m, name, METHODS[name].steps_for(EQUAL), 4, 0, "ancestral") for m in SOME for name in METHODS]


class Measured:
    """Scored cells of MNIST's test split; samples are kept in a folder."""

    def __init__(self, kept: Path, regression: Path | None):
        self.kept, self.mnist = kept, data.load("mnist")
        network = inkfill.load(regression) if regression else None
        self.networks = protocol.Networks(inkfill.load(), network)

    def of(self, group: str, count: int) -> list[Result]:
        """A group on the first ``count`` test digits."""
        found = protocol.run(self.networks, self.mnist, "test", count, cells_of(group), self.kept, bar=bar)
        assert found is not None
        for row in found.rows:
            show({key: row[key] for key in ("mask", "method", "evaluations", "crps")})
        return found.results


def draw_figures(images: data.Images, results: Sequence[Result]) -> None:
    """Rank histograms, and the three best and worst digits of three masks by energy score."""
    report.rank_histograms(results, folder(REPORT) / "ranks.png")
    for result in (result for result in results if result.cell.mask in SOME):
        order = [int(i) for i in np.argsort(metrics.energy_score(images, result.done.filled, result.done.mask))]
        rows, done = [*order[:3], *order[::-1][:3]], result.done
        both = figures.gallery(images[rows], done.mask[rows], done.filled[rows], [str(row) for row in rows])
        figures.save_picture(both, folder(REPORT) / f"{result.cell.mask.replace(':', '-')}.png")


def paired(truth: data.Images, results: Sequence[Result]) -> list[Row]:
    """Every other method less ``conditional``, digit by digit: mean and standard error."""
    rows = []
    for mask in SOME:
        ours, *others = (result for result in results if result.cell.mask == mask)  # `conditional` is the first
        for other in others:
            row: Row = {"mask": mask, "method": other.cell.method, "images": len(truth)}
            row["cost"] = other.row["seconds"] / ours.row["seconds"]
            for key, measure in (("crps", metrics.crps), ("energy", metrics.energy_score)):
                gap = np.subtract(*(measure(truth, each.done.filled, each.done.mask) for each in (other, ours)))
                row |= {key: float(gap.mean()), f"{key}_se": metrics.standard_error(gap)}
            rows.append(row)
    return rows


def measure(
    samples: Path = Path("runs/results"),
    regression: Path | None = None,
    original: Path | None = None,
    digits: int = 1000,
    equal_digits: int = 300,
) -> None:
    """Complete and score all cells; without its checkpoint a row of ``regression`` or ``original`` stays as it is."""
    measured = Measured(samples, regression)
    counts = {"main": digits, "calibration": 300, "baselines": digits, "equal": equal_digits}
    counts |= {"regression": 300} if regression else {}
    found = {group: measured.of(group, min(count, digits)) for group, count in counts.items()}
    rows = [row | {"group": group} for group, results in found.items() for row in (r.row for r in results)]
    if original:
        rows.append(original_network.scored(original, measured.mnist, 100) | {"group": "original"})
    old = [row for row in saved(REPORT, "cells") if row["group"] not in distinct(rows, "group")]
    save(REPORT, "cells", [{k: v for k, v in row.items() if k != "ranks"} for row in (*rows, *old)])
    truth = measured.mnist.test
    save(REPORT, "paired", paired(truth[: min(equal_digits, digits)], found["equal"]))
    nearest = {
        r.cell.mask: float(
            np.nanmean(metrics.crps(truth[: len(r.done.filled)], r.done.filled, r.done.mask, draws=False))
        )
        for r in found["baselines"]
        if r.cell.method == "nearest"
    }
    save(REPORT, "nearest-discrete", nearest)
    draw_figures(truth[:digits], found["main"])


# ---- the page --------------------------------------------------------------------------------------------------------


def columns(*wanted: tuple[str, str, str]) -> dict[str, tuple[str, str]]:
    """Columns of a table: key, heading, format."""
    return {"mask": ("mask", "{}")} | {key: (heading, form) for key, heading, form in wanted}


def with_mean(rows: list[Row], *keys: str) -> list[Row]:
    """Rows, and the means of some columns over them."""
    return [*rows, {"mask": f"mean of {len(rows)}", **{key: float(np.mean([r[key] for r in rows])) for key in keys}}]


def joined(row: Row, key: str, form: str = ".4f") -> str:
    """A value and its standard error."""
    return f"{row[key]:{form}} ± {row[f'{key}_se']:{form}}"


def baseline_rows(group: dict[str, list[Row]]) -> list[Row]:
    """The network beside the baselines, mask by mask."""
    discrete, rows = saved(REPORT, "nearest-discrete"), []
    for ours in group["main"]:
        row: Row = {"mask": ours["mask"], "conditional": ours["crps"], "discrete": discrete[ours["mask"]]}
        row["psnr"] = ours["psnr_mean"]
        for other in (r for r in group["baselines"] if r["mask"] == ours["mask"]):
            row |= {other["method"]: other["crps"], f"psnr_{other['method']}": other["psnr_mean"]}
        rows.append(row)
    return with_mean(rows, "conditional", "discrete", "nearest", "empirical")


def equal_rows(group: dict[str, list[Row]]) -> list[Row]:
    """Methods at equal NFE, a mask a column."""
    rows, at = [], {(r["mask"], r["method"]): r for r in group["equal"]}
    for name in distinct(group["equal"], "method"):
        each = [at[mask, name] for mask in SOME]
        row: Row = {"method": f"`{name}`", "steps": each[0]["steps"], "nfe": each[0]["evaluations"]}
        row |= {mask: joined(r, "crps") for mask, r in zip(SOME, each, strict=True)}
        row["crps"], row["seconds"] = (float(np.mean([r[key] for r in each])) for key in ("crps", "seconds"))
        rows.append(row)
    return sorted(rows, key=lambda row: row["crps"])


def page() -> None:
    """Rewrite the tables of the page from JSON."""
    group: dict[str, list[Row]] = {}
    for row in saved(REPORT, "cells"):
        group.setdefault(row["group"], []).append(row)
    main, calibration = group["main"], group["calibration"]
    best = {row["mask"]: row["psnr_mean"] for row in group["regression"]}
    means = [r | {"best": best[r["mask"]], "over": r["psnr_limit"] - best[r["mask"]]} for r in calibration]
    gaps = [
        {**row, "method": f"`{row['method']}`", "crps": joined(row, "crps", ".4f"), "energy": joined(row, "energy")}
        for row in saved(REPORT, "paired")
    ]
    published = saved(REPORT, "published")["cvae"]
    tables: dict[str, str] = {
        "main": table(
            with_mean(main, "crps", "energy", "coverage90"),
            columns(
                ("crps", "CRPS", "{:.4f}"), ("crps_se", "±", "{:.4f}"), ("energy", "energy score", "{:.4f}"),
                ("energy_se", "±", "{:.4f}"), ("psnr_sample", "PSNR, sample", "{:.2f}"),
                ("psnr_mean", "PSNR, mean", "{:.2f}"),
            ),
        ),
        "realism": table(
            with_mean(main, "confident", "frechet", "ssim"),
            columns(
                ("confident", "classifier confidence > 0.9", "{:.3f}"), ("frechet", "Fréchet distance", "{:.2f}"),
                ("frechet_se", "±", "{:.2f}"), ("kernel", "kernel distance", "{:.3f}"), ("ssim", "SSIM", "{:.3f}"),
                ("diversity", "diversity", "{:.3f}"),
            ),
        ),
        "calibration": table(
            with_mean(calibration, "coverage50", "coverage90", "uneven50", "uneven90"),
            columns(
                ("coverage50", "50 %", "{:.3f}"), ("coverage50_se", "±", "{:.3f}"), ("coverage90", "90 %", "{:.3f}"),
                ("coverage90_se", "±", "{:.3f}"), ("uneven50", "50 %, without ties", "{:.3f}"),
                ("uneven50_se", "±", "{:.3f}"), ("uneven90", "90 %, without ties", "{:.3f}"),
                ("uneven90_se", "±", "{:.3f}"),
            ),
        ),
        "labels": table(
            with_mean(calibration, "vote", "masked_vote", "nll", "masked_nll", "brier", "masked_brier"),
            columns(
                ("vote", "majority label", "{:.3f}"), ("vote_se", "±", "{:.3f}"),
                ("masked_vote", "masked classifier", "{:.3f}"), ("nll", "NLL", "{:.3f}"), ("nll_se", "±", "{:.3f}"),
                ("masked_nll", "masked classifier", "{:.3f}"), ("brier", "Brier", "{:.3f}"),
                ("masked_brier", "masked classifier", "{:.3f}"),
            ),
        ),
        "means": table(
            with_mean(means, "psnr_sample", "psnr_mean", "psnr_limit", "best", "over"),
            columns(
                ("psnr_sample", "sample", "{:.2f}"), ("psnr_mean", "mean of 32", "{:.2f}"),
                ("psnr_limit", "K to infinity", "{:.2f}"), ("best", "regression", "{:.2f}"),
                ("over", "difference", "{:+.2f}"),
            ),
        ),
        "baselines": table(
            baseline_rows(group),
            columns(
                ("conditional", "conditional", "{:.4f}"), ("discrete", "nearest, discrete", "{:.4f}"),
                ("nearest", "nearest, as samples", "{:.4f}"), ("empirical", "empirical", "{:.4f}"),
                ("psnr", "PSNR: conditional", "{:.2f}"), ("psnr_mean", "mean", "{:.2f}"),
                ("psnr_nearest", "nearest", "{:.2f}"), ("psnr_empirical", "empirical", "{:.2f}"),
            ),
        ),
        "equal": table(
            equal_rows(group),
            {"method": ("method", "{}"), "steps": ("steps", "{:d}"), "nfe": ("NFE", "{:g}")}
            | {mask: (mask, "{:>}") for mask in SOME}
            | {"crps": ("mean", "{:.4f}"), "seconds": ("core-seconds", "{:.3f}")},
        ),
        "paired": table(
            gaps,
            {"mask": ("mask", "{}"), "method": ("method", "{}"), "crps": ("CRPS", "{:>}")}
            | {"energy": ("energy score", "{:>}"), "cost": ("core-seconds, ratio", "{:.1f}")},
        ),
        "published": table(
            [row | {"mask": row["seen"]} for row in published],
            {"mask": ("observed", "{}"), "direct": ("posterior mean at T", "{:.1f}")}
            | {"mean": ("mean of 16 samples", "{:.1f}"), "limit": ("K to infinity", "{:.1f}")}
            | {"baseline": ("Pyro's baseline network", "{:.1f}"), "floor": ("least possible", "{:.1f}")},
        ),
    }  # fmt: skip
    write_tables(REPORT, tables)


if __name__ == "__main__":
    run(measure, page)
