"""Cost and memory of inpainting against image size, batch, completions and number of images.

    .venv/bin/python benchmarks/scaling.py --out docs/speed/scaling.json

Each point is a process of its own, so that its peak of memory is its own. Memory is what a process held at most, less what
it holds after loading the model, less its input, its masks and its output. Training is also timed on 1, 2 and 4 processes of torchrun,
which share this machine's cores.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from inkfill.checkpoint import written_whole

SIZES = [(28, 128), (32, 128), (64, 32), (128, 8)]  # side, images
ROWS = [1, 4, 16, 64, 128, 256]
IMAGES = [100, 1_000, 10_000, 100_000]
COMPLETIONS = [1, 10, 100, 1_000]
PROCESSES = [1, 2, 4]


def peak() -> float:
    """Most memory that this process held, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def point(side: int, images: int, samples: int, steps: int, rows: int | None) -> dict[str, float]:
    """One measurement, in this process."""
    import inkfill

    model = inkfill.load()
    pictures = np.zeros((images, side, side), np.uint8)
    pictures[:, side // 4 : side // 2, side // 3 : side // 2] = 255
    inkfill.inpaint(model, pictures[:4], "half:left", samples=1, steps=1)
    before = peak()
    began = time.perf_counter()
    filled = inkfill.inpaint(model, pictures, "half:left", samples=samples, steps=steps, rows=rows)
    seconds = time.perf_counter() - began
    held = peak() - before - (filled.nbytes + pictures.nbytes) / 2**20  # a mask is as large as its picture
    return {"seconds": seconds / (images * samples), "megabytes": max(0.0, held)}


def measure(side: int = 28, images: int = 128, samples: int = 1, steps: int = 10, rows: int | None = None) -> dict:
    words = [sys.executable, __file__, "--point", json.dumps([side, images, samples, steps, rows])]
    found = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    row = {"side": side, "images": images, "samples": samples, "steps": steps, "rows": rows, **json.loads(found)}
    print(row, flush=True)
    return row


def training(processes: int, steps: int = 150) -> dict:
    """Images a second of training on so many processes, which share the cores."""
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    with tempfile.TemporaryDirectory() as folder:
        words = ["torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", "29677", "-m", "inkfill"]
        words += ["train", "--data", "rendered", "--steps", str(steps), "--out", f"{folder}/run"]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        subprocess.run([sys.executable, "-m", *words], check=True, capture_output=True, env=environment)
        lines = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
    speed = [line["images_per_s"] for line in lines if "images_per_s" in line][-1]
    row = {"processes": processes, "threads": threads, "images_per_s": speed}
    print(row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/speed/scaling.json"))
    parser.add_argument("--point", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.point:
        print(json.dumps(point(*json.loads(arguments.point))))
        return
    size = [measure(side, images) for side, images in SIZES]
    batch = [measure(images=256, rows=rows) for rows in ROWS]
    many = [measure(images=images, steps=1) for images in IMAGES]
    deep = [measure(images=20, samples=k, steps=1) for k in COMPLETIONS]
    found = {"size": size, "batch": batch, "images": many, "completions": deep}
    found["processes"] = [training(n) for n in PROCESSES]
    with written_whole(arguments.out) as temporary:
        temporary.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
