"""CRPS against NFE for every sampler, on validation digits; the defaults were chosen from it.

    .venv/bin/python reports/speed_steps.py --count 60
    .venv/bin/python reports/speed_steps.py --steps 8 1000 --count 12 --name steps-1000

All use the same noise, digit by digit, so differences are known better than values. Writes reports/speed/NAME.json.
"""

from pathlib import Path

import numpy as np

import inkfill
from common import run, save, show
from inkfill import data
from inkfill.core.samplers import SAMPLERS
from inkfill.evaluation import cells, metrics, scores
from inkfill.files import file_hash
from inkfill.models.checkpoint import SHIPPED

MASKS = ("half:left", "box:10", "pixels:0.9")


def main(
    steps: tuple[int, ...] = (5, 8, 10, 15, 25, 50, 100),
    samplers: tuple[str, ...] = tuple(SAMPLERS),
    count: int = 100,
    samples: int = 4,
    checkpoint: Path = SHIPPED,
    name: str = "steps",
) -> None:
    """Every sampler at every NFE, on ``count`` validation digits."""
    model, images = inkfill.load(checkpoint), data.load("auto").validation[:count]
    about, rows = {"checkpoint": file_hash(checkpoint), "machine": cells.machine(model)}, []
    for n in steps:
        for sampler in samplers:
            found = []
            for cell in (cells.Cell(mask, "conditional", n, samples, 0, sampler) for mask in MASKS):
                done = cells.complete(model, images, cell)
                each = metrics.crps(images, done.filled, done.mask)
                found.append(scores.score(images, done, cell) | {"each": each.round(5).tolist()})
            show({"NFE": n, "sampler": sampler, "CRPS": float(np.mean([row["crps"] for row in found]))})
            rows += [{key: value for key, value in row.items() if key != "ranks"} for row in found]
        save("speed", name, {**about, "rows": rows})


if __name__ == "__main__":
    run(main)
