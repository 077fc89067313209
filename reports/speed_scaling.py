"""Time and memory of inpainting against image size, batch, samples and number of images.

    .venv/bin/python reports/speed_scaling.py       into reports/speed/scaling.json

Each point is a process of its own. Memory is its peak, less what it holds with the model loaded, its input, masks and
output. Training is timed on 1, 2 and 4 processes of torchrun.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import inkfill
from common import Row, run, save, show, timed


def peak() -> float:
    """The peak memory of this process, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(side: int, images: int, samples: int, steps: int, rows: int | None) -> dict[str, float]:
    """One measurement, in this process."""
    model, pictures = inkfill.load(), np.zeros((images, side, side), np.uint8)
    pictures[:, side // 4 : side // 2, side // 3 : side // 2] = 255
    inkfill.inpaint(model, pictures[:4], "half:left", samples=1, steps=1)
    before = peak()
    filled, took = timed(lambda: inkfill.inpaint(model, pictures, "half:left", samples, steps=steps, rows=rows))
    held = peak() - before - (filled.nbytes + pictures.nbytes) / 2**20  # a mask is as large as its image
    return {"seconds": took / (images * samples), "megabytes": max(0.0, held)}


def measure(side: int = 28, images: int = 128, samples: int = 1, steps: int = 10, rows: int | None = None) -> Row:
    """One measurement, in a process of its own."""
    asked = {"side": side, "images": images, "samples": samples, "steps": steps, "rows": rows}
    words = [sys.executable, __file__, "--point", json.dumps(asked)]
    return show(asked | json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout))


def training(processes: int, steps: int = 150) -> Row:
    """Images per second in training on so many processes, which share the cores."""
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    with tempfile.TemporaryDirectory() as folder:
        words = ["torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", "29677", "-m", "inkfill"]
        words += ["train", "--data", "rendered", "--steps", str(steps), "--out", f"{folder}/run"]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        subprocess.run([sys.executable, "-m", *words], check=True, capture_output=True, env=environment)
        lines = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
    speed = [line["images_per_s"] for line in lines if "images_per_s" in line][-1]
    return show({"processes": processes, "threads": threads, "images_per_s": speed})


def main(point: str = "") -> None:
    """Measure everything; ``point``, a measurement as JSON, is given to each process."""
    if point:
        print(json.dumps(measured(**json.loads(point))))
        return
    found = {
        "size": [measure(side, images) for side, images in ((28, 128), (32, 128), (64, 32), (128, 8))],
        "batch": [measure(images=256, rows=rows) for rows in (1, 4, 16, 64, 128, 256)],
        "images": [measure(images=images, steps=1) for images in (100, 1_000, 10_000, 100_000)],
        "completions": [measure(images=20, samples=k, steps=1) for k in (1, 10, 100, 1_000)],
        "processes": [training(n) for n in (1, 2, 4)],
    }
    save("speed", "scaling", found)


if __name__ == "__main__":
    run(main)
