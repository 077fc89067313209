"""Quality against network evaluations, sampler by sampler, on validation digits; the default is chosen from it.

    .venv/bin/python benchmarks/steps.py --count 60 --out docs/speed/steps.json
    .venv/bin/python benchmarks/steps.py --steps 8 1000 --count 12 --out docs/speed/steps_1000.json

Every sampler and number of evaluations gets the same noise, digit by digit, so differences are known better than values.
"""

from pathlib import Path

import numpy as np

import inkfill
from common import run, save, show, without_ranks
from inkfill import data, defaults
from inkfill.models.checkpoint import SHIPPED
from inkfill.files import file_hash
from inkfill.evaluation import cells, metrics, scores

MASKS = ("half:left", "box:10", "pixels:0.9")


def main(
    steps: tuple[int, ...] = (5, 8, 10, 15, 25, 50, 100),
    samplers: tuple[str, ...] = defaults.SAMPLERS,
    count: int = 100,
    samples: int = 4,
    checkpoint: Path = SHIPPED,
    out: Path | None = None,
) -> None:
    """Every sampler with every number of steps, on ``count`` validation digits."""
    model, images = inkfill.load(checkpoint), data.load("auto").validation[:count]
    about, rows = {"checkpoint": file_hash(checkpoint), "machine": cells.machine(model)}, []
    for n in steps:
        for sampler in samplers:
            found = []
            for cell in (cells.Cell(mask, "conditional", n, samples, 0, sampler) for mask in MASKS):
                done = cells.complete(model, images, cell)
                each = metrics.crps(images, done.filled, done.mask)
                found.append(scores.score(images, done, cell) | {"each": each.round(5).tolist()})
            show({"evaluations": n, "sampler": sampler, "CRPS": float(np.mean([row["crps"] for row in found]))})
            rows += without_ranks(found)
        save({**about, "rows": rows}, out)


if __name__ == "__main__":
    run(main)
