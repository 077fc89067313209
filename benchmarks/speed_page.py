"""docs/speed.md, from what the other benchmarks wrote into docs/speed/.

    .venv/bin/python benchmarks/speed.py --rounds 9 --out docs/speed/throughput.json
    .venv/bin/python benchmarks/formats.py --out docs/speed/formats.json
    .venv/bin/python benchmarks/original.py train --out runs/original --bfloat16
    .venv/bin/python benchmarks/original.py loss --epochs 1 --json docs/speed/original.json
    .venv/bin/python benchmarks/race.py line --original runs/original/model.safetensors --out docs/speed/race.json
    .venv/bin/python benchmarks/race.py variants --minutes 0.6 --rounds 2 --out docs/speed/variants.json
    .venv/bin/python benchmarks/steps.py --count 60 --out docs/speed/steps.json
    .venv/bin/python benchmarks/steps.py --steps 8 1000 --count 12 --out docs/speed/steps_1000.json
    .venv/bin/python benchmarks/scaling.py --out docs/speed/scaling.json
    runs/peers/bin/python benchmarks/peers.py --rounds 3 --digits 12 --out docs/speed/peers.json
    .venv/bin/python benchmarks/speed_page.py

The text is in pages/speed.md. A part whose file is not there is left out of the page.
"""

from statistics import mean
from typing import Any

import numpy as np

from common import DOCS, Row, distinct, from_files, write_page
from inkfill import defaults
from inkfill.app import figures
from inkfill.evaluation.metrics import standard_error
from inkfill.tables import markdown
from inkfill.filling.inpaint import ROWS

FOLDER = DOCS / "speed"


THROUGHPUT = {  # what is measured, and how it is written
    "peak": "{peak_gflops:.0f} GFLOP/s",
    "training, whole steps": "{training_images_per_s:.0f} images/s; {training_share_of_peak:.0%}",
    "training, forward and backward alone": "{passes_share_of_peak:.0%}",
    "inpainting, {inpaint_steps} evaluations": "{rate:.0f} completions/s: 10,000 digits in {ten_thousand:.0f} s; {inpaint_share_of_peak:.0%}",
    "the same in float32": "{float32_rate:.0f} completions/s",
    "by few-step weights, 1 evaluation": "{few}",
    "`inkfill inpaint` on one picture, from the start of Python on": "{one_picture_seconds:.1f} s",
}


def throughput(found: Any) -> Row:
    """Shares of the peak, a column a kind of processor."""
    machines = []
    for r in found.values():
        rate, slower = (r["inpaint_digits"] / r[key] for key in ("inpaint_seconds", "inpaint_float32_seconds"))
        few = f"{r['inpaint_digits'] / r['few_seconds']:,.0f} completions/s" if "few_seconds" in r else "not measured"
        machines.append({**r, "rate": rate, "float32_rate": slower, "few": few, "ten_thousand": 10_000 / rate})
    first = machines[0]
    lines = [[what.format(**first), *(form.format(**r) for r in machines)] for what, form in THROUGHPUT.items()]
    shown = markdown(["two cores with", *found], lines)
    return {"parameters": first["parameters"] / 1e6, "mflops": first["forward_mflops"], "table": shown}


def formats(found: Any) -> Row:
    """Times over those of the way shipped, and what compiling costs and gains."""
    cells = {(r["work"], r["way"]): r for r in found}
    kinds, (shipped, *others) = distinct(found, "work"), distinct(found, "way")
    lines = [[shipped, *(f"{1000 * cells[kind, shipped]['seconds']:.1f} ms" for kind in kinds)]]
    for way in others:
        row = [cells.get((kind, way)) for kind in kinds]
        lines.append([way, *(f"{r['ratio']:.2f}" if r else "" for r in row)])
    many, *_, trained = compiled = [cells[kind, "torch.compile"] for kind in kinds]
    saved = cells[kinds[0], shipped]["seconds"] * (1 - many["ratio"]) / ROWS * defaults.STEPS  # of each completion
    gain = "gains nothing"
    if saved > 0:
        gain = f"pays for itself after {round(many['first'] / saved, -3):,.0f} completions"
    waits = [r["first"] for r in compiled]
    values = {"least": min(waits), "most": max(waits), "gain": gain, "ratio": trained["ratio"]}
    return {"table": markdown(["", *kinds], lines), **values}


def race(found: Any) -> Row:
    """The lines, and the trainings against them."""
    goals = [{**goal, "judged": ", ".join(goal["masks"])} for goal in found["lines"]]
    rows = []
    for row in found["rows"]:
        judged, slow = ", ".join(row["masks"]), row["original_seconds"]
        under = [goal["whose"] for goal in goals if goal["judged"] == judged and row["crps"] <= goal["crps"]]
        trained = "that mask" if row["only"] else "all masks"
        rows.append({**row, "trained": trained, "judged": judged, "under": " and ".join(under)})
        rows[-1] |= {"hours": slow / 3600, "times": slow / row["seconds"]}
    measured = any(goal["whose"].startswith("original") for goal in goals)
    return {"line": goals, "row": rows, "missing": "" if measured else " Its line is not measured yet."}


def original(found: Any) -> Row:
    """The original's loss in both precisions."""
    apart = [abs(row["bfloat16"] / row["float32"] - 1) for row in found["losses"]]
    speeds = {f"{name}_speed": speed for name, speed in found["images_per_s"].items()}
    return {**found["losses"][-1], **speeds, "mean": mean(apart), "most": max(apart)}


def variants(found: Any) -> Row:
    """Means over the rounds, and over the base of the same round."""
    base, rows = {r["round"]: r for r in found if r["variant"] == "base"}, []
    for name in distinct(found, "variant"):
        same = [r for r in found if r["variant"] == name]
        row = {key: mean(r[key] for r in same) for key in ("step", "noise", "v")}
        rows.append({"variant": name, **row, "over": mean(r["v"] / base[r["round"]]["v"] for r in same)})
    times = "once" if len(base) == 1 else f"{len(base)} times over"
    return {"seconds": 60 * found[0]["minutes"], "times": times, "row": rows}


def averages(rows: list[Row], key: str) -> dict[tuple[int, str], Any]:
    """Means over the masks, by number of evaluations and sampler."""
    pairs = sorted({(r["steps"], r["sampler"]) for r in rows}, key=lambda pair: pair[0])
    return {pair: np.mean([r[key] for r in rows if (r["steps"], r["sampler"]) == pair], axis=0) for pair in pairs}


def by_sampler(cells: dict[tuple[int, str], str]) -> str:
    """A table of samplers across and numbers of evaluations down."""
    samplers = [name for name in defaults.SAMPLERS if name in {sampler for _, sampler in cells}]
    lines = [[f"{n:,}", *(cells[n, sampler] for sampler in samplers)] for n in dict.fromkeys(n for n, _ in cells)]
    return markdown(["evaluations", *(f"`{sampler}`" for sampler in samplers)], lines, left=0)


def thousand(found: Any) -> Row:
    """CRPS of every sampler and number of evaluations, and what it is over that of the default, digit by digit."""
    each, default, first = averages(found["rows"], "each"), (defaults.STEPS, defaults.SAMPLER), found["rows"][0]
    base, best, cells = each[default], min(scores.mean() for scores in each.values()), {}
    for pair, scores in each.items():
        over, error = ((scores - base).mean() / base.mean(), standard_error(scores - base) / base.mean())
        value = f"**{scores.mean():.4f}**" if scores.mean() <= 1.02 * best else f"{scores.mean():.4f}"
        cells[pair] = value if pair == default else f"{value} ({over:+.1%} ± {error:.1%})"
    return {"images": first["images"], "samples": first["samples"], "grid": by_sampler(cells)}


def steps(found: Any) -> Row:
    """The same, with what 90 % intervals cover, and a picture."""
    crps, covers = averages(found["rows"], "crps"), averages(found["rows"], "coverage90")
    with figures.plot(FOLDER / "steps.png", 1, 1, (5.0, 3.2)) as (axis,):
        for name in distinct(found["rows"], "sampler"):
            line = [(n, value) for (n, sampler), value in crps.items() if sampler == name]
            axis.plot(*zip(*line, strict=True), "o-", markersize=3, label=name)
        axis.set_xscale("log")
        axis.set_xlabel("network evaluations per completion", fontsize=8)
        axis.set_ylabel("CRPS", fontsize=8)
        axis.legend(fontsize=7)
    coverage = by_sampler({pair: f"{value:.3f}" for pair, value in covers.items()})
    return {**thousand(found), "coverage": coverage, "sampler": defaults.SAMPLER, "steps": defaults.STEPS}


def scaling(found: Any) -> Row:
    """Cost and memory, as a picture, and training on several processes."""
    panels = [
        ("size", "side", "seconds", "side, pixels", "seconds a completion"),
        ("batch", "rows", "seconds", "completions that go through together", "seconds a completion"),
        ("images", "images", "megabytes", "images", "working memory, MB"),
        ("completions", "samples", "megabytes", "completions of each of 20 images", "working memory, MB"),
    ]
    with figures.plot(FOLDER / "scaling.png", 4, 2, (4.0, 2.6)) as axes:
        for (key, x, y, across, up), axis in zip(panels, axes, strict=True):
            axis.plot([row[x] for row in found[key]], [row[y] for row in found[key]], "o-", color="#4660a0")
            axis.set_xscale("linear" if key == "size" else "log")
            axis.set_ylim(0)
            axis.set_xlabel(across, fontsize=8)
            axis.set_ylabel(up, fontsize=8)
            axis.tick_params(labelsize=7)
    most, alone = max(found["images"], key=lambda r: r["images"]), found["processes"][0]
    values = {"images": most["images"], "megabytes": most["megabytes"], "step": 64_000 / alone["images_per_s"]}
    return {**values, "row": found["processes"]}


def peers(found: Any) -> Row:
    """Other libraries: their networks in training, and their methods on the same weights."""
    ours = next(r["images_per_s"] for r in found["training"] if r["network"] == "inkfill")
    masks, lines = distinct(found["methods"], "mask"), []
    base = mean(r["seconds"] for r in found["methods"] if r["method"] == "inkfill: conditional")
    for name in distinct(found["methods"], "method"):
        rows = {r["mask"]: r for r in found["methods"] if r["method"] == name}
        evaluations, seconds = (mean(r[key] for r in rows.values()) for key in ("evaluations", "seconds"))
        scores = [f"{rows[m]['crps']:.4f} ± {rows[m]['crps_se']:.4f}" if m in rows else "" for m in masks]
        lines.append([name, f"{evaluations:.0f}", f"{seconds:.3f}", f"{seconds / base:.1f}", *scores])
    headings = ["method", "evaluations", "seconds", "over `conditional`", *(f"CRPS {mask}" for mask in masks)]
    return {
        "versions": ", ".join(f"{name} {number}" for name, number in found["versions"].items()),
        "network": [
            {**r, "millions": r["parameters"] / 1e6, "ratio": ours / r["images_per_s"]} for r in found["training"]
        ],
        "digits": found["digits"],
        "samples": found["samples"],
        "methods": markdown(headings, lines),
    }


def main() -> None:
    """Write the page."""
    parts = (throughput, formats, race, original, variants, steps, scaling, peers)
    builders = {part.__name__: part for part in parts} | {"steps_1000": thousand}
    write_page(DOCS / "speed.md", {**from_files(FOLDER, builders), "gpu": {}})


if __name__ == "__main__":
    main()
