"""Quality against network evaluations, sampler by sampler, on validation digits; the default is chosen from it.

    .venv/bin/python benchmarks/steps.py --count 60 --out docs/speed/steps.json
    .venv/bin/python benchmarks/steps.py --steps 8 1000 --count 12 --out docs/speed/steps_1000.json

Every sampler and number of evaluations gets the same noise, digit by digit, so differences are known better than values.
"""

from pathlib import Path

import numpy as np

import inkfill
from common import Row, command_line, save, show, without_ranks
from inkfill import data, defaults
from inkfill.checkpoint import SHIPPED, file_hash
from inkfill.evaluation.cells import Cell, complete, machine
from inkfill.evaluation.metrics import crps
from inkfill.evaluation.scores import score
from inkfill.model import Model

MASKS = ("half:left", "box:10", "pixels:0.9")


def measure(model: Model, images: data.Images, cell: Cell) -> Row:
    """The scores of a cell, with the CRPS of each digit."""
    done = complete(model, images, cell)
    return score(images, done, cell) | {"each": crps(images, done.filled, done.mask).round(5).tolist()}


def main() -> None:
    parser = command_line(__doc__, "write the rows here, as JSON")
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 8, 10, 15, 25, 50, 100])
    parser.add_argument("--samplers", nargs="+", default=list(defaults.SAMPLERS), choices=defaults.SAMPLERS)
    parser.add_argument("--count", type=int, default=100, help="validation digits")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED)
    arguments = parser.parse_args()
    model, images = inkfill.load(arguments.checkpoint), data.load("auto").validation[: arguments.count]
    about, rows = {"checkpoint": file_hash(arguments.checkpoint), "machine": machine(model)}, []
    for steps in arguments.steps:
        for sampler in arguments.samplers:
            cells = [Cell(mask, "conditional", steps, arguments.samples, 0, sampler) for mask in MASKS]
            found = [measure(model, images, cell) for cell in cells]
            show({"evaluations": steps, "sampler": sampler, "CRPS": float(np.mean([row["crps"] for row in found]))})
            rows += without_ranks(found)
        save({**about, "rows": rows}, arguments.out)


if __name__ == "__main__":
    main()
