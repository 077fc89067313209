"""Quality against network evaluations, sampler by sampler, on validation digits; the default is chosen from it.

    .venv/bin/python benchmarks/steps.py --count 60 --out docs/speed/steps.json
    .venv/bin/python benchmarks/steps.py --steps 8 1000 --count 12 --out docs/speed/steps_1000.json

Every sampler and number of evaluations gets the same noise, digit by digit, so differences are known better than values.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import inkfill
from inkfill import data, defaults, metrics
from inkfill.checkpoint import SHIPPED, file_hash, written_whole
from inkfill.evaluate import Cell, complete, machine, score

MASKS = ("half:left", "box:10", "pixels:0.9")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 8, 10, 15, 25, 50, 100])
    parser.add_argument("--samplers", nargs="+", default=list(defaults.SAMPLERS), choices=defaults.SAMPLERS)
    parser.add_argument("--count", type=int, default=100, help="validation digits")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED)
    parser.add_argument("--out", type=Path, help="write the rows here, as JSON")
    arguments = parser.parse_args()

    model = inkfill.load(arguments.checkpoint)
    digits = data.load("auto")
    images = digits.validation[: arguments.count]
    rows: list[dict[str, Any]] = []

    def measure(cell: Cell) -> float:
        done = complete(model, images, cell)
        each = metrics.crps(images, done.filled, done.mask)
        row = score(images, done, cell) | {"each": np.round(each, 5).tolist()}
        rows.append({key: value for key, value in row.items() if key != "ranks"})
        return row["crps"]

    print(f"{digits.name}, validation, {len(images)} digits, K = {arguments.samples}: mean CRPS of {', '.join(MASKS)}")
    print("evaluations  " + "".join(f"{sampler:>11}" for sampler in arguments.samplers))
    for steps in arguments.steps:
        scores = []
        for sampler in arguments.samplers:
            cells = [Cell(mask, "conditional", steps, arguments.samples, 0, sampler) for mask in MASKS]
            scores.append(sum(map(measure, cells)) / len(MASKS))
        print(f"{steps:11d}  " + "".join(f"{score:11.4f}" for score in scores), flush=True)
        if arguments.out:
            with written_whole(arguments.out) as temporary:
                report = {"checkpoint": file_hash(arguments.checkpoint), "machine": machine(model), "rows": rows}
                temporary.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
