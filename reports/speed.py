"""Rewrite the tables and figures of reports/speed.md from reports/speed/*.json, which these commands write:

.venv/bin/python reports/speed_throughput.py --rounds 9
.venv/bin/python reports/speed_formats.py
.venv/bin/python reports/speed_variants.py --minutes 0.6 --rounds 2
.venv/bin/python reports/speed_steps.py --count 60
.venv/bin/python reports/speed_steps.py --steps 8 1000 --count 12 --name steps-1000
.venv/bin/python reports/speed_scaling.py
runs/peers/bin/python reports/speed_libraries.py --rounds 3 --digits 12
.venv/bin/python reports/speed.py
"""

from statistics import mean
from typing import Any

import numpy as np

from common import Row, distinct, folder, run, saved, write_tables
from inkfill import defaults
from inkfill.app import figures
from inkfill.core.samplers import SAMPLERS
from inkfill.evaluation.metrics import standard_error
from inkfill.tables import markdown, table

REPORT = "speed"
THROUGHPUT = {  # quantity: format
    "peak": "{peak_gflops:.0f} GFLOP/s",
    "training": "{training_images_per_s:.0f} images/s; {training_share_of_peak:.0%}",
    "training, forward and backward alone": "{passes_share_of_peak:.0%}",
    "inpainting, {inpaint_steps} NFE": "{rate:.0f} samples/s; {inpaint_share_of_peak:.0%}",
    "the same in float32": "{float32_rate:.0f} samples/s",
    "few-step model, 1 NFE": "{few}",
    "`inkfill inpaint` on one image, start of Python included": "{one_picture_seconds:.1f} s",
}


def throughput(found: Any) -> str:
    """Rates and shares of the peak, a column for each kind of processor."""
    machines = []
    for r in found.values():
        rate, slower = (r["inpaint_digits"] / r[key] for key in ("inpaint_seconds", "inpaint_float32_seconds"))
        few = f"{r['inpaint_digits'] / r['few_seconds']:,.0f} samples/s" if "few_seconds" in r else "not measured"
        machines.append({**r, "rate": rate, "float32_rate": slower, "few": few})
    lines = [[what.format(**machines[0]), *(form.format(**r) for r in machines)] for what, form in THROUGHPUT.items()]
    return markdown(["two cores with", *found], lines)


def formats(found: Any) -> str:
    """Times relative to the default."""
    cells = {(r["work"], r["way"]): r for r in found}
    kinds, (default, *others) = distinct(found, "work"), distinct(found, "way")
    lines = [["default", *(f"{1000 * cells[kind, default]['seconds']:.1f} ms" for kind in kinds)]]
    for way in others:
        row = [cells.get((kind, way)) for kind in kinds]
        lines.append([way, *(f"{r['ratio']:.2f}" if r else "" for r in row)])
    return markdown(["", *kinds], lines)


def variants(found: Any) -> str:
    """Means over the rounds, and relative to the base of the same round."""
    base, rows = {r["round"]: r for r in found if r["variant"] == "base"}, []
    for name in distinct(found, "variant"):
        same = [r for r in found if r["variant"] == name]
        row = {key: mean(r[key] for r in same) for key in ("step", "noise", "v")}
        rows.append({"variant": name, **row, "over": mean(r["v"] / base[r["round"]]["v"] for r in same)})
    heads = {"variant": ("variant", "{}"), "step": ("steps", "{:.0f}"), "noise": ("noise error", "{:.4f}")}
    return table(rows, heads | {"v": ("v error", "{:.4f}"), "over": ("v error / base", "{:.3f}")})


def averages(rows: list[Row], key: str) -> dict[tuple[int, str], Any]:
    """Means over the masks, by NFE and sampler."""
    pairs = sorted({(r["steps"], r["sampler"]) for r in rows}, key=lambda pair: pair[0])
    return {pair: np.mean([r[key] for r in rows if (r["steps"], r["sampler"]) == pair], axis=0) for pair in pairs}


def steps(found: Any) -> str:
    """CRPS by sampler and NFE, and its difference from the default, digit by digit."""
    each, default = averages(found["rows"], "each"), (defaults.STEPS, defaults.SAMPLER)
    base, cells = each[default], {}
    for pair, scores in each.items():
        over, error = ((scores - base).mean() / base.mean(), standard_error(scores - base) / base.mean())
        cells[pair] = f"{scores.mean():.4f}" + (f" ({over:+.1%} ± {error:.1%})" if pair != default else "")
    samplers = [name for name in SAMPLERS if name in {sampler for _, sampler in cells}]
    lines = [[f"{n:,}", *(cells[n, sampler] for sampler in samplers)] for n in dict.fromkeys(n for n, _ in cells)]
    return markdown(["NFE", *(f"`{sampler}`" for sampler in samplers)], lines, left=0)


def draw_steps(found: Any) -> None:
    """CRPS against NFE."""
    crps = averages(found["rows"], "crps")
    with figures.plot(folder(REPORT) / "steps.png", 1, 1, (5.0, 3.2)) as (axis,):
        for name in distinct(found["rows"], "sampler"):
            line = [(n, value) for (n, sampler), value in crps.items() if sampler == name]
            axis.plot(*zip(*line, strict=True), "o-", markersize=3, label=name)
        axis.set_xscale("log")
        axis.set_xlabel("NFE", fontsize=8)
        axis.set_ylabel("CRPS", fontsize=8)
        axis.legend(fontsize=7)


def draw_scaling(found: Any) -> None:
    """Time and memory."""
    panels = [
        ("size", "side", "seconds", "side, pixels", "seconds per sample"),
        ("batch", "rows", "seconds", "samples per batch", "seconds per sample"),
        ("images", "images", "megabytes", "images", "working memory, MB"),
        ("completions", "samples", "megabytes", "samples of each of 20 images", "working memory, MB"),
    ]
    with figures.plot(folder(REPORT) / "scaling.png", 4, 2, (4.0, 2.6)) as axes:
        for (key, x, y, across, up), axis in zip(panels, axes, strict=True):
            axis.plot([row[x] for row in found[key]], [row[y] for row in found[key]], "o-", color="#4660a0")
            axis.set_xscale("linear" if key == "size" else "log")
            axis.set_ylim(0)
            axis.set_xlabel(across, fontsize=8)
            axis.set_ylabel(up, fontsize=8)
            axis.tick_params(labelsize=7)


def methods(found: Any) -> str:
    """Methods of other libraries on inkfill's weights."""
    masks, lines = distinct(found["methods"], "mask"), []
    for name in distinct(found["methods"], "method"):
        rows = {r["mask"]: r for r in found["methods"] if r["method"] == name}
        evaluations, seconds = (mean(r[key] for r in rows.values()) for key in ("evaluations", "seconds"))
        scores = [f"{rows[m]['crps']:.4f} ± {rows[m]['crps_se']:.4f}" if m in rows else "" for m in masks]
        lines.append([name, f"{evaluations:.0f}", f"{seconds:.3f}", *scores])
    return markdown(["method", "NFE", "seconds", *(f"CRPS {mask}" for mask in masks)], lines)


def networks(found: Any) -> str:
    """U-Nets in training."""
    ours = next(r["images_per_s"] for r in found["training"] if r["network"] == "inkfill")
    rows = [{**r, "millions": r["parameters"] / 1e6, "ratio": ours / r["images_per_s"]} for r in found["training"]]
    heads = {"network": ("network", "{}"), "millions": ("parameters", "{:.2f} M")}
    return table(rows, heads | {"images_per_s": ("images/s", "{:.0f}"), "ratio": ("inkfill / it", "{:.1f}")})


def main(draw: bool = False) -> None:
    """Rewrite the tables; ``draw`` redraws the figures."""
    scaling = saved(REPORT, "scaling")
    processes = {"processes": ("processes", "{:d}"), "threads": ("threads each", "{:d}")}
    libraries = saved(REPORT, "libraries")
    tables = {
        "throughput": throughput(saved(REPORT, "throughput")),
        "formats": formats(saved(REPORT, "formats")),
        "variants": variants(saved(REPORT, "variants")),
        "steps": steps(saved(REPORT, "steps")),
        "steps-1000": steps(saved(REPORT, "steps-1000")),
        "processes": table(scaling["processes"], processes | {"images_per_s": ("training, images/s", "{:.0f}")}),
        "networks": networks(libraries),
        "methods": methods(libraries),
    }
    write_tables(REPORT, tables)
    if draw:
        draw_steps(saved(REPORT, "steps"))
        draw_scaling(scaling)


if __name__ == "__main__":
    run(main)
