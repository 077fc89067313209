"""Throughput of training and inpainting, and its share of this machine's peak.

    .venv/bin/python reports/speed_throughput.py --rounds 9
    .venv/bin/python reports/speed_throughput.py --profile      the operators of a training step

The peak is that of a plain matrix product, in bfloat16 or float32, whichever is faster here, taking turns with the
rest, because shared machines change speed. Torch counts convolutions and matrix products; a backward pass is two
forward ones. Writes reports/speed/throughput.json, a column for each kind of processor.
"""

import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

import inkfill
from common import Row, alternate, folder, new_trainer, repeated, run, save, saved
from inkfill import data
from inkfill.app.figures import save_picture
from inkfill.core.trainer import Trainer
from inkfill.defaults import STEPS
from inkfill.training.config import TrainConfig

SIDE = 2048  # of the matrices whose product is the peak


def instructions() -> str:
    """The widest of this processor's instructions for bfloat16 products."""
    found = torch.cpu.get_capabilities()
    kinds = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}
    return next((name for key, name in kinds.items() if found.get(key)), platform.machine())


def inpaint_by_command(picture: data.Images) -> None:
    """``inkfill inpaint`` on one image, in a process of its own, start of Python included."""
    with tempfile.TemporaryDirectory() as folder:
        save_picture(picture, Path(folder) / "digit.png")
        command = [sys.executable, "-m", "inkfill", "inpaint", f"{folder}/digit.png", "--mask", "half:left"]
        subprocess.run([*command, "--samples", "1", "--out", f"{folder}/filled.png"], check=True, capture_output=True)


def measure(trainer: Trainer, batch_size: int, digits: data.Images, rounds: int) -> Row:
    """Medians over the rounds, as rates and as shares of the peak."""
    model, exact, few = inkfill.load(), inkfill.load(dtype="float32"), inkfill.load("mnist-few")
    matrix, batch = torch.randn(SIDE, SIDE), trainer.draw(0)
    half = matrix.bfloat16()
    works = {
        "half": repeated(lambda: half @ half, 8),
        "whole": repeated(lambda: matrix @ matrix, 8),
        "steps": repeated(lambda: trainer.step(1.0), 5),
        "passes": repeated(lambda: trainer.differentiate(batch), 5),
        "inpaint": lambda: inkfill.inpaint(model, digits, "half:left", 1),
        "float32": lambda: inkfill.inpaint(exact, digits, "half:left", 1),
        "few": lambda: inkfill.inpaint(few, digits, "half:left", 1, steps=1),
        "picture": lambda: inpaint_by_command(digits[0]),
    }
    took = {name: median(times) for name, times in alternate(works, rounds).items()}
    plane, peak, trained = torch.zeros(1, 1, 28, 28), 8 * 2 * SIDE**3 / min(took["half"], took["whole"]), 5 * batch_size
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        trainer.ema(plane, plane, plane, torch.zeros(1))
    flops = float(counter.get_total_flops())  # multiplications and additions of one digit's forward pass
    return {
        "peak_gflops": peak / 1e9,
        "parameters": sum(p.numel() for p in trainer.net.parameters()),
        "forward_mflops": flops / 1e6,
        "training_images_per_s": trained / took["steps"],
        "training_share_of_peak": 3 * flops * trained / took["steps"] / peak,
        "passes_share_of_peak": 3 * flops * trained / took["passes"] / peak,
        "inpaint_digits": len(digits),
        "inpaint_steps": STEPS,
        "inpaint_seconds": took["inpaint"],
        "inpaint_float32_seconds": took["float32"],
        "few_seconds": took["few"],
        "one_picture_seconds": took["picture"],
        "inpaint_share_of_peak": flops * STEPS * len(digits) / took["inpaint"] / peak,
        "threads": torch.get_num_threads(),
    }


def show_profile(trainer: Trainer, steps: int = 10) -> None:
    """Print the slowest operators of training steps, together and by the shapes of their arguments."""
    repeated(lambda: trainer.step(1.0), 5)()  # warm
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as found:
        repeated(lambda: trainer.step(1.0), steps)()
    print("ms per step: itself, with its calls; calls per step")
    for by_shape in (False, True):
        rows = found.key_averages(group_by_input_shape=by_shape)
        for row in sorted(rows, key=lambda row: -row.self_cpu_time_total)[:25]:
            itself, whole = row.self_cpu_time_total / steps / 1000, row.cpu_time_total / steps / 1000
            shapes = str(row.input_shapes)[:90] if by_shape else ""
            print(f"{itself:7.2f} {whole:7.2f} {row.count / steps:5.0f}  {row.key:36s} {shapes}")


def main(rounds: int = 5, digits: int = 500, profile: bool = False) -> None:
    """Measure, or show where the time of a step goes."""
    config, mnist = TrainConfig(), data.load("auto")
    trainer = new_trainer(config, mnist.train)
    if profile:
        show_profile(trainer)
        return
    images = np.resize(mnist.test, (digits, *mnist.test.shape[1:]))
    found, kind = measure(trainer, config.batch_size, images, rounds), instructions()
    print(f"two cores with {kind}", *(f"{name:24s} {value:12,.4g}" for name, value in found.items()), sep="\n")
    kept = saved("speed", "throughput") if (folder("speed") / "throughput.json").exists() else {}
    save("speed", "throughput", {**kept, kind: found})


if __name__ == "__main__":
    run(main)
