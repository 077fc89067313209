"""Quality against network evaluations, sampler by sampler, on validation digits; the default is chosen from it.

.venv/bin/python benchmarks/steps.py --out docs/speed/steps.json
"""

import argparse
import json
from pathlib import Path

import inkfill
from inkfill import data, defaults
from inkfill.checkpoint import SHIPPED, file_hash, written_whole
from inkfill.evaluate import Cell, evaluate, machine

MASKS = ("half:left", "box:10", "pixels:0.9")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 6, 8, 10, 15, 25, 50, 100])
    parser.add_argument("--samplers", nargs="+", default=list(defaults.SAMPLERS), choices=defaults.SAMPLERS)
    parser.add_argument("--count", type=int, default=100, help="validation digits")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED)
    parser.add_argument("--out", type=Path, help="write the rows here, as JSON")
    arguments = parser.parse_args()

    model = inkfill.load(arguments.checkpoint)
    digits = data.load("auto")
    images = digits.validation[: arguments.count]
    rows = []
    print(f"{digits.name}, validation, {len(images)} digits, K = {arguments.samples}: mean CRPS of {', '.join(MASKS)}")
    print("evaluations  " + "".join(f"{sampler:>11}" for sampler in arguments.samplers))
    for steps in arguments.steps:
        scores = []
        for sampler in arguments.samplers:
            cells = [Cell(mask, "conditional", steps, arguments.samples, 0, sampler) for mask in MASKS]
            found = [evaluate(model, images, cell) for cell in cells]
            scores.append(sum(row["crps"] for row in found) / len(MASKS))
            rows += found
        print(f"{steps:11d}  " + "".join(f"{score:11.4f}" for score in scores), flush=True)
        if arguments.out:
            with written_whole(arguments.out) as temporary:
                report = {"checkpoint": file_hash(arguments.checkpoint), "machine": machine(model), "rows": rows}
                temporary.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
