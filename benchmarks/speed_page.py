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
    runs/peers/bin/python benchmarks/peers.py --rounds 3 --digits 12 --original runs/original/model.safetensors --out docs/speed/peers.json
    .venv/bin/python benchmarks/speed_page.py

A part whose file is not there is left out of the page.
"""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkfill import defaults, figures
from inkfill.checkpoint import SHIPPED, file_hash, written_whole
from inkfill.inpainting import ROWS
from inkfill.metrics import standard_error

DOCS = Path(__file__).parent.parent / "docs"
FOLDER = DOCS / "speed"
Found = Any

HEAD = """# How fast, and how that was found

Figures are of 2 cores of a shared x86 machine with AMX, where nothing else is said. Such a machine changes speed by a factor of
two from hour to hour, so times stand beside the peak, or beside another time, of the same run.

*Made by `benchmarks/speed_page.py`; its help lists the commands that measure.*
"""


def throughput(found: Found) -> list[str]:
    kinds = list(found)
    first = found[kinds[0]]

    def row(what: str, cell: Callable[[Found], str]) -> str:
        return f"| {what} | " + " | ".join(cell(found[kind]) for kind in kinds) + " |"

    def filled(r: Found) -> str:
        rate = r["inpaint_digits"] / r["inpaint_seconds"]
        return f"{rate:.0f} completions/s: 10,000 digits in {10_000 / rate:.0f} s; {r['inpaint_share_of_peak']:.0%}"

    return [
        "## Share of the peak\n\nThe peak is that of a plain bfloat16 matrix product (2,048 square), alternating with the rest. "
        f"The network has {first['parameters'] / 1e6:.2f} M parameters and takes {first['forward_mflops']:.0f} MFLOP for a forward "
        "pass of one digit. Percentages are shares of the peak.\n",
        "| two cores with | " + " | ".join(kinds) + " |",
        "|---|" + "--:|" * len(kinds),
        row("peak", lambda r: f"{r['peak_gflops']:.0f} GFLOP/s"),
        row(
            "training, whole steps",
            lambda r: f"{r['training_images_per_s']:.0f} images/s; {r['training_share_of_peak']:.0%}",
        ),
        row("training, forward and backward alone", lambda r: f"{r['passes_share_of_peak']:.0%}"),
        row(f"inpainting, {first['inpaint_steps']} evaluations", filled),
        row(
            "the same in float32",
            lambda r: f"{r['inpaint_digits'] / r['inpaint_float32_seconds']:.0f} completions/s",
        ),
        row(
            "`inkfill inpaint` on one picture, from the start of Python on",
            lambda r: f"{r['one_picture_seconds']:.1f} s",
        ),
        PROFILE,
    ]


PROFILE = """
Where the time went, and what was done about it: the stem folds 2x2 pixels into channels, so that nothing heavy runs at full
resolution; feature maps are channels-last in bfloat16; there is one normalisation a block, and attention only at a quarter of
the resolution; the time embedding is computed once a step and the observation once a run; states that go through the network
together are few enough for the cache. Matrices of one shape go through Muon together, which takes a quarter off its time; the
rest of a step is its small matrix products, which are too small for their peak, and the masks.

AMX multiplies matrices six times as fast and leaves the rest as it is, so that the same step is twice as fast at a third of the
share. Of a step of 85 ms there (`speed.py --profile`), 25 are gradients of convolutions, of which 8 those of the two 3x3
convolutions of 192 channels on maps of 7x7 (their forward pass: 2), 16 the optimisers, 9 the matrix products of attention, 7
normalisation and 5 forward convolutions.
"""


def formats(found: Found) -> list[str]:
    kinds, ways = list(dict.fromkeys(r["work"] for r in found)), list(dict.fromkeys(r["way"] for r in found))
    cells = {(r["work"], r["way"]): r for r in found}
    shipped = [f"{1000 * cells[kind, ways[0]]['seconds']:.1f} ms" for kind in kinds]
    lines = [
        "## Precision, memory format, compiling\n\nOne evaluation of 128 states and of a single one, and forward and backward of a "
        "training batch of 64; times over the way shipped: bfloat16, channels-last, both cores, no compiling.\n",
        "| | " + " | ".join(kinds) + " |",
        "|---|" + "--:|" * len(kinds),
        f"| {ways[0]} | " + " | ".join(shipped) + " |",
    ]
    for way in ways[1:]:
        row = [cells.get((kind, way)) for kind in kinds]
        lines.append(f"| {way} | " + " | ".join(f"{r['ratio']:.2f}" if r else "" for r in row) + " |")
    waits = [cells[kind, "torch.compile"]["first"] for kind in kinds]
    many, shown = cells[kinds[0], "torch.compile"], cells[kinds[0], ways[0]]["seconds"]
    saved = shown * (1 - many["ratio"]) / ROWS * defaults.STEPS  # of each completion
    gain = (
        f"pays for itself after {round(many['first'] / saved, -3):,.0f} completions" if saved > 0 else "gains nothing"
    )
    lines.append(
        f"\nCompiling takes {min(waits):.0f} to {max(waits):.0f} seconds and a C++ compiler, anew for each shape. In inpainting it "
        f"{gain}; in training, a step takes {cells[kinds[-1], 'torch.compile']['ratio']:.2f} times as long. So nothing is compiled."
    )
    return lines


def original(found: Found) -> list[str]:
    last, speeds = found["losses"][-1], found["images_per_s"]
    apart = [abs(row["bfloat16"] / row["float32"] - 1) for row in found["losses"]]
    return [
        f"The original was trained in bfloat16. On the same batches its loss is that of float32: over the first {last['step']:,} "
        f"steps, 25 at a time, they differ by {mean(apart):.2%} on average and by {max(apart):.2%} at most, and end at "
        f"{last['float32']:.4f} and {last['bfloat16']:.4f} (bfloat16). It trains on {speeds['float32']:.0f} images/s in float32 and "
        f"{speeds['bfloat16']:.0f} in bfloat16, in one run."
    ]


def race(found: Found) -> list[str]:
    goals = {(tuple(goal["masks"]), goal["whose"]): goal["crps"] for goal in found["lines"]}
    measured = any(whose.startswith("original") for _, whose in goals)
    lines = [
        "## The race\n\nTraining from random weights, for longer and longer, each with its whole curve of learning rates, until "
        "the CRPS on 200 validation digits (K = 4, default sampler and steps) is under two lines: that of the original recipe, "
        "trained on `half:left`, and that of the shipped weights. Seconds are those of training. Beside them: what 30 epochs of "
        f"the original take in float32 at the rate measured just before.{'' if measured else ' Its line is not measured yet.'}\n",
        "| line | masks | CRPS |",
        "|---|---|--:|",
        *(f"| {whose} | {', '.join(masks)} | {crps:.4f} |" for (masks, whose), crps in goals.items()),
        "\n| trained on | judged on | seconds | steps | CRPS | under the line of | original | times as long |",
        "|---|---|--:|--:|--:|---|--:|--:|",
    ]
    for row in found["rows"]:
        under = [
            whose for (masks, whose), crps in goals.items() if masks == tuple(row["masks"]) and row["crps"] <= crps
        ]
        slow = row["original_seconds"]
        lines.append(
            f"| {'that mask' if row['only'] else 'all masks'} | {', '.join(row['masks'])} | {row['seconds']:.0f} | "
            f"{row['steps']:,} | {row['crps']:.4f} | {' and '.join(under)} | {slow / 3600:.1f} h | {slow / row['seconds']:.0f} |"
        )
    return lines


def variants(found: Found) -> list[str]:
    base = [r for r in found if r["variant"] == "base"]
    lines = [
        f"## What was tried\n\nThe base is the shipped recipe, with a warm-up and a running mean that fit a short run. Each variant changes one thing in it and trains for {base[0]['minutes'] * 60:.0f} seconds from "
        f"the same random weights, one after another, {'once' if len(base) == 1 else f'{len(base)} times over'}. Errors on validation digits: of the predicted noise, and of "
        "v, which is the same error with every level counted alike. Lower is better. A variant that does more work a step makes "
        "fewer steps: that is counted against it, as it should be.\n",
        "| variant | steps | noise error | v error | v error over that of the base |",
        "|---|--:|--:|--:|--:|",
    ]
    for name in dict.fromkeys(r["variant"] for r in found):
        rows = [r for r in found if r["variant"] == name]
        steps, noise, v = (mean(r[key] for r in rows) for key in ("step", "noise", "v"))
        against = mean(r["v"] / b["v"] for r in rows for b in base if b["round"] == r["round"])
        lines.append(f"| {name} | {steps:.0f} | {noise:.4f} | {v:.4f} | {against:.3f} |")
    return [*lines, LOG]


LOG = """
What was expected of each, and what came of it. Rounds differ by 1 to 2 %, and so do variants that are level. So short a training
favours many cheap steps; the shipped one has 35 times as many.

* *Muon for the inner weights.* Expected: the same loss in fewer steps, for some 20 % more work in each. In half a minute the
  two nearly cancel: a little ahead of AdamW in v, a little behind in noise.
* *Noise errors weighed as v.* Expected: the plain noise error all but ignores the highest levels, and it is there that a sampler
  decides which digit to draw. The error of v gets much better, and the noise error stays level.
* *Smaller batches.* Expected: more steps from nearly the same images a second. Down to 32 that pays: a little here, and 11 % of
  the error of v on a processor without AMX, where 36 seconds are 174 steps of the base. 16 makes more steps still and gains
  nothing. The race on one mask has batches of 32; on all masks, where five minutes with 32 reached .0686, it has the base's 64.
* *Learning rates.* Expected: near the best. Muon's is; AdamW's could be twice as high in a short run.
* *No running mean.* Expected: worse. No difference: the learning rate has come down to zero by the end, which averages as well.
* *More width or depth.* Expected: slower at first. So it is: steps cost more, and fewer of them are made.
* *float32.* Expected: half the speed and nothing else. So it is.
* *Allocator.* Expected: fewer page faults if freed memory is kept. `MALLOC_MMAP_THRESHOLD_=1073741824
  MALLOC_TRIM_THRESHOLD_=4294967296` before `speed.py` changes nothing: 756 and 757 images/s with it, 761 and 761 without.
* *Chance.* The original was also trained on a processor without AMX, which rounds differently: .0484 on the race's digits, where
  the line above is .0462. A recipe's figure is known to about that much; the line is the harder of the two.
* *Stochastic second-order sampling.* Expected: the order of DPM-Solver++ at few steps, with the noise that keeps the spread
  honest. See the next table: it is ahead of the others at 5 and 8 evaluations, and of the deterministic ones everywhere.
* *A black floor.* Not a matter of speed: rank histograms showed completions that were 1 or 2 grey levels where the truth is 0.
  Training images with a black background now give black, which made the histograms flat.
"""


def grid(rows: list[dict[str, Any]]) -> list[str]:
    """CRPS of every sampler and number of evaluations, and what it is over that of the default, digit by digit."""
    samplers, counts = list(dict.fromkeys(r["sampler"] for r in rows)), sorted({r["steps"] for r in rows})

    def each(sampler: str, steps: int) -> NDArray[np.float64]:
        return np.mean([r["each"] for r in rows if (r["sampler"], r["steps"]) == (sampler, steps)], axis=0)

    base = each(defaults.SAMPLER, defaults.STEPS)
    best = min(each(sampler, steps).mean() for sampler in samplers for steps in counts)
    lines = ["| evaluations | " + " | ".join(f"`{s}`" for s in samplers) + " |", "|--:|" + "--:|" * len(samplers)]
    for steps in counts:
        cells = []
        for sampler in samplers:
            found = each(sampler, steps)
            over, error = ((found - base).mean(), standard_error(found - base))
            value = f"{found.mean():.4f}"
            value = f"**{value}**" if found.mean() <= 1.02 * best else value
            default = (sampler, steps) == (defaults.SAMPLER, defaults.STEPS)
            cells.append(value if default else f"{value} ({over / base.mean():+.1%} ± {error / base.mean():.1%})")
        lines.append(f"| {steps:,} | " + " | ".join(cells) + " |")
    return lines


def about(rows: list[dict[str, Any]]) -> str:
    return f"{rows[0]['images']} validation digits, K = {rows[0]['samples']}"


def curve(found: Found) -> list[str]:
    rows = found["rows"]
    samplers, counts = list(dict.fromkeys(r["sampler"] for r in rows)), sorted({r["steps"] for r in rows})

    def value(sampler: str, steps: int, key: str) -> float:
        return mean(r[key] for r in rows if (r["sampler"], r["steps"]) == (sampler, steps))

    lines = [
        f"## Quality against evaluations\n\nMean CRPS of `half:left`, `box:10` and `pixels:0.9` on {about(rows)}, and by how much "
        f"it is over that of the default, `{defaults.SAMPLER}` with {defaults.STEPS}, with the standard error of that difference. "
        "Bold: within 2 % of the lowest of the table.\n",
        *grid(rows),
        "\n90 % intervals cover:\n",
        "| evaluations | " + " | ".join(f"`{s}`" for s in samplers) + " |",
        "|--:|" + "--:|" * len(samplers),
    ]
    for steps in counts:
        lines.append(f"| {steps} | " + " | ".join(f"{value(s, steps, 'coverage90'):.3f}" for s in samplers) + " |")
    with figures.plot(FOLDER / "steps.png", 1, 1, (5.0, 3.2)) as (axis,):
        for sampler in samplers:
            axis.plot(counts, [value(sampler, n, "crps") for n in counts], "o-", markersize=3, label=sampler)
        axis.set_xscale("log")
        axis.set_xlabel("network evaluations per completion", fontsize=8)
        axis.set_ylabel("CRPS", fontsize=8)
        axis.legend(fontsize=7)
    return [*lines, "\n![CRPS against evaluations](speed/steps.png)"]


def thousand(found: Found) -> list[str]:
    return [f"The same up to 1,000 evaluations, on {about(found['rows'])}:\n", *grid(found["rows"])]


def scaling(found: Found) -> list[str]:
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
    most = max(found["images"], key=lambda r: r["images"])
    lines = [
        "## Scaling\n\nTime a completion against image size and against how many completions go through the network together; "
        "working memory against the number of images and of completions, which a micro-batch keeps flat: "
        f"{most['images']:,} images take {most['megabytes']:.0f} MB beside themselves, their masks and their completions.\n",
        "![Cost and memory](speed/scaling.png)\n",
        "| processes | threads each | training, images/s |",
        "|--:|--:|--:|",
    ]
    lines += [f"| {r['processes']} | {r['threads']} | {r['images_per_s']:.0f} |" for r in found["processes"]]
    step = 64_000 / found["processes"][0]["images_per_s"]
    lines.append(
        "\n`torchrun`, with the cores that one machine has, so that more processes can only share them. Over many machines, a step "
        "sends the gradients once: 1.51 M numbers of 4 bytes, 6 MB, of which each machine in a ring of n sends and receives "
        f"2 (n - 1) / n, at most 12 MB. At 10 Gbit/s that is 10 ms beside a step of {step:.0f} ms at 64 images a machine. Inpainting "
        "and evaluation send nothing until the end."
    )
    return lines


def peers(found: Found) -> list[str]:
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    training = {r["network"]: r for r in found["training"]}
    lines = [
        f"## Beside other libraries\n\n{versions}; one run, alternating.\n\nTraining of each library's own U-Net on MNIST, at about "
        "the same number of parameters, by its own objective with Adam. inkfill's step includes masks, Muon and a network that "
        "sees the observation; the others are padded to 32x32, which they need, and generate without a mask.\n",
        "| network | parameters | images/s | inkfill over it |",
        "|---|--:|--:|--:|",
    ]
    for name, row in training.items():
        ratio = training["inkfill"]["images_per_s"] / row["images_per_s"]
        lines.append(f"| {name} | {row['parameters'] / 1e6:.2f} M | {row['images_per_s']:.0f} | {ratio:.1f} |")
    masks = list(dict.fromkeys(r["mask"] for r in found["methods"]))
    lines += [
        f"\nInpainting with inkfill's weights in every library, its methods at its own defaults, {found['digits']} validation digits, "
        f"K = {found['samples']}, all as one batch. Seconds a completion, and CRPS with its standard error.\n",
        "| method | evaluations | seconds | over `conditional` | " + " | ".join(f"CRPS {m}" for m in masks) + " |",
        "|---|--:|--:|--:|" + "--:|" * len(masks),
    ]
    base = mean(r["seconds"] for r in found["methods"] if r["method"] == "inkfill: conditional")
    for name in dict.fromkeys(r["method"] for r in found["methods"]):
        rows = {r["mask"]: r for r in found["methods"] if r["method"] == name}
        seconds = mean(r["seconds"] for r in rows.values())
        scores = [f"{rows[m]['crps']:.4f} ± {rows[m]['crps_se']:.4f}" if m in rows else "" for m in masks]
        evaluations = mean(r["evaluations"] for r in rows.values())
        lines.append(
            f"| {name} | {evaluations:.0f} | {seconds:.3f} | {seconds / base:.1f} | " + " | ".join(scores) + " |"
        )
    lines.append(
        "\nThe other libraries get the unconditional network, as they would any prior. deepinv's methods run on its own noise "
        "schedule, through the nearest of our levels. denoising-diffusion-pytorch always resamples at the lowest levels, whatever the "
        "level that it has reached, and so does not gain what RePaint's repeats are for. smalldiffusion has no inpainting."
    )
    return lines


PARTS: dict[str, Callable[[Found], list[str]]] = {
    "throughput": throughput,
    "formats": formats,
    "race": race,
    "original": original,
    "variants": variants,
    "steps": curve,
    "steps_1000": thousand,
    "scaling": scaling,
    "peers": peers,
}


def main() -> None:
    blocks = [HEAD]
    for name, part in PARTS.items():
        path = FOLDER / f"{name}.json"
        if not path.exists():
            continue
        found = json.loads(path.read_text())
        blocks.append("\n".join(part(found)))
        if isinstance(found, dict) and found.get("checkpoint", file_hash(SHIPPED)) != file_hash(SHIPPED):
            blocks.append("*These figures are of other weights than the shipped ones.*")
    blocks.append(
        "## On a GPU\n\nNot measured: none was at hand. `--device cuda` takes the same path, in bfloat16 and channels-last. CUDA graphs are not used."
    )
    with written_whole(DOCS / "speed.md") as temporary:
        temporary.write_text("\n\n".join(block.strip() for block in blocks) + "\n")


if __name__ == "__main__":
    main()
