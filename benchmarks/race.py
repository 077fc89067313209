"""The race: how soon is a network from random weights good enough? And what lowers the loss of a short training?

    .venv/bin/python benchmarks/race.py line --original runs/original/model.safetensors --out docs/speed/race.json
    .venv/bin/python benchmarks/race.py variants --minutes 0.6 --rounds 2 --out docs/speed/variants.json

`line` trains afresh for each number of seconds, with the whole curve of learning rates fitted into it, until the CRPS on
200 validation digits (K = 4, default sampler) is under both lines: what `original.py` reaches in its 30 epochs, and what the
shipped weights reach. It does so on `half:left` alone, the one mask that the original learns; then once for all masks. Seconds
are those of training. Beside them stands what the original's 30 epochs take in float32 at the rate measured in the same run,
before each training. `variants` trains every variant from the same random weights for the same time, one after another and
round again, so that a machine that changes speed in between shows as a difference between the rounds; the loss is the
noise error on validation digits, as it is and weighed as v, from the running mean of the weights.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import inkfill
import original
from inkfill import data, masks
from inkfill import evaluate as evaluation
from inkfill.checkpoint import load_network, written_whole
from inkfill.denoiser import Model
from inkfill.evaluate import Cell, evaluate
from inkfill.rng import stream
from inkfill.schedule import Schedule
from inkfill.train import TrainConfig, draw_batch, squared_errors, train
from inkfill.unet import UNetConfig

BASE = TrainConfig(warmup=50, ema=0.98)  # the shipped recipe, with a warm-up and a mean that fit a short run
FAST = replace(BASE, batch_size=32)  # the best of the variants below, for a minute; not for five
ONE, SEVERAL = ("half:left",), ("half:left", "box:10", "pixels:0.9")
VARIANTS = {
    "base": BASE,
    "AdamW for everything": replace(BASE, muon_rate=0.0),
    "noise weighting": replace(BASE, weighting="noise"),
    "batch 128": replace(BASE, batch_size=128),
    "batch 32": replace(BASE, batch_size=32),
    "batch 16": replace(BASE, batch_size=16),
    "batch 32, AdamW for everything": replace(BASE, batch_size=32, muon_rate=0.0),
    "Muon rate 0.05": replace(BASE, muon_rate=0.05),
    "Muon rate 0.01": replace(BASE, muon_rate=0.01),
    "AdamW rate 0.006": replace(BASE, learning_rate=6e-3),
    "no running mean": replace(BASE, ema=0.0),
    "wider, 64 and 256": replace(BASE, unet=UNetConfig(widths=(64, 256))),
    "deeper, 3 blocks": replace(BASE, unet=UNetConfig(blocks=(1, 3))),
    "float32": replace(BASE, bfloat16=False),
}


def losses(run: Path, config: TrainConfig, images: data.Images) -> dict[str, float]:
    """Validation errors on one set of draws."""
    net, recipe = load_network(run / "model.safetensors")
    schedule, spec = Schedule.named(recipe["schedule"], recipe["T"]), masks.parse(BASE.masks)
    totals = {"noise": 0.0, "v": 0.0}
    for part in range(8):
        batch = draw_batch(replace(BASE, batch_size=250), images, spec, stream(0, "race", part))
        for weighting in totals:
            errors = squared_errors(net, schedule, batch, config.bfloat16, weighting)
            totals[weighting] += float(errors.sum()) / batch.missing / 8
    return {"step": recipe["step"], **totals}


def original_seconds(images: data.Images, steps: int = 6) -> float:
    """What 30 epochs of the original recipe take here, in float32, from a few of its steps."""
    net, schedule = original.new_network(), Schedule.named("cosine", original.LEVELS)
    adam = torch.optim.Adam(net.parameters(), original.RATE)
    began = 0.0
    for step in range(-1, steps):
        if step == 0:  # the first warms up
            began = time.perf_counter()
        original.advance(net, adam, images, schedule, step + 1, bfloat16=False)
    return (time.perf_counter() - began) / steps * original.EPOCHS * len(images) / original.BATCH


def line(first: Path | None, budgets: list[float], broad: float) -> dict[str, list[dict]]:
    """Train on one mask for longer and longer until the lines are reached, and then for ``broad`` seconds on all."""
    mnist, rows = data.load("mnist"), []
    images, shipped = mnist.validation[:200], inkfill.load()

    def score(model: Model, specs: tuple[str, ...]) -> float:
        return float(np.mean([evaluate(model, images, Cell(spec, samples=4))["crps"] for spec in specs]))

    lines = [{"whose": "shipped", "masks": specs, "crps": score(shipped, specs)} for specs in (ONE, SEVERAL)]
    if first:
        net, epochs = original.load(first)
        done = original.complete(net, images, 4)
        cell = Cell(ONE[0], "original", original.LEVELS, 4)
        lines.append(
            {
                "whose": f"original, {epochs:.0f} epochs",
                "masks": ONE,
                "crps": evaluation.score(images, done, cell)["crps"],
            }
        )
    print(*(f"line: {goal['crps']:.4f}, {goal['whose']} on {', '.join(goal['masks'])}" for goal in lines), sep="\n")

    def heat(seconds: float, specs: tuple[str, ...], only: bool) -> float:
        slow = original_seconds(mnist.train)
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            config = replace(FAST, masks=",".join(specs)) if only else BASE
            began = time.perf_counter()
            train(config, run, seconds / 60, look_every=10**9, quiet=True)
            took = time.perf_counter() - began
            model = inkfill.load(run / "model.safetensors")
        row = {"seconds": took, "steps": model.recipe["step"], "crps": score(model, specs), "masks": specs}
        rows.append({**row, "only": only, "original_seconds": slow})
        print(
            f"{took:6.1f} s  {row['steps']:6d} steps  CRPS {row['crps']:.4f}  "
            f"original {slow / 3600:.1f} h, {slow / took:.0f} times as long",
            flush=True,
        )
        return row["crps"]

    for seconds in budgets:
        if heat(seconds, ONE, True) <= min(goal["crps"] for goal in lines if goal["masks"] == ONE):
            break
    heat(broad, SEVERAL, False)
    return {"lines": lines, "rows": rows}


def variants(names: list[str], minutes: float, rounds: int) -> list[dict]:
    images, rows = data.load("auto").validation, []
    print(f"{'variant':32s} round   steps  noise error  v error")
    for turn in range(rounds):
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                run = Path(folder) / "run"
                train(VARIANTS[name], run, minutes, look_every=10**9, quiet=True)
                found = losses(run, VARIANTS[name], images)
            rows.append({"variant": name, "round": turn, "minutes": minutes, **found})
            print(f"{name:32s} {turn:5d} {found['step']:7.0f}  {found['noise']:11.5f}  {found['v']:7.5f}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["line", "variants"])
    parser.add_argument("--original", type=Path, help="checkpoint of benchmarks/original.py, for the first line")
    parser.add_argument(
        "--seconds", type=float, nargs="+", default=[15, 20, 30, 45, 60, 90, 180, 300], help="of training, one mask"
    )
    parser.add_argument("--broad", type=float, default=300, help="seconds of training, all masks")
    parser.add_argument("--minutes", type=float, default=1.0, help="of each variant")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--out", type=Path, help="write the rows here, as JSON")
    arguments = parser.parse_args()
    if arguments.part == "line":
        found: Any = line(arguments.original, arguments.seconds, arguments.broad)
    else:
        found = variants(arguments.variants, arguments.minutes, arguments.rounds)
    if arguments.out:
        with written_whole(arguments.out) as temporary:
            temporary.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
