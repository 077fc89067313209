"""How fast training and inpainting are here, as a share of this machine's own peak.

    .venv/bin/python benchmarks/speed.py
    .venv/bin/python benchmarks/speed.py --profile      where the time of a training step goes

The peak is that of a plain bfloat16 matrix product, measured in the same run and alternating with the rest, because
shared machines change speed from minute to minute. Arithmetic is counted by hooks on the convolutions, the linear
layers and the attention; a backward pass counts as two forward passes.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

import inkfill
from inkfill import data, masks
from inkfill.checkpoint import written_whole
from inkfill.defaults import STEPS
from inkfill.figures import save_picture
from inkfill.inpainting import inpaint
from inkfill.rng import stream
from inkfill.schedule import Schedule
from inkfill.train import Batch, TrainConfig, draw_batch, optimisers, squared_errors
from inkfill.unet import Attention, UNet


def instructions() -> str:
    """The widest of this processor's instructions for bfloat16 products; the share of the peak is another with each."""
    found = torch.cpu.get_capabilities()
    kinds = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}
    return next((name for key, name in kinds.items() if found.get(key)), platform.machine())


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def forward_flops(net: UNet, size: int = 28) -> float:
    """Multiplications and additions of one image's forward pass."""
    total = 0.0

    def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            total += 2 * output[0].numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.ConvTranspose2d):
            total += 2 * inputs[0][0].numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            total += 2 * output[0].numel() * layer.in_features
        elif isinstance(layer, Attention):
            tokens = inputs[0].shape[2] * inputs[0].shape[3]
            total += 4 * tokens**2 * inputs[0].shape[1]

    handles = [layer.register_forward_hook(count) for layer in net.modules()]
    plane = torch.zeros(1, 1, size, size)
    with torch.no_grad():
        net(plane, plane, plane, torch.zeros(1))
    for handle in handles:
        handle.remove()
    return total


class TrainingStep:
    """A new network of the default recipe, trained one step at a call; the parts of a step stand alone to be timed."""

    def __init__(self, images: data.Images) -> None:
        self.images, self.config = images, TrainConfig()
        self.net = UNet(self.config.unet)
        self.schedule = Schedule.named(self.config.schedule, self.config.T)
        self.spec = masks.parse(self.config.masks)
        self.optimisers = optimisers(self.config, self.net)

    def draw(self, i: int) -> Batch:
        return draw_batch(self.config, self.images, self.spec, stream(0, "train", i))

    def differentiate(self, batch: Batch) -> None:
        errors = squared_errors(self.net, self.schedule, batch, self.config.bfloat16, self.config.weighting)
        self.net.zero_grad()
        (errors.sum() / batch.missing).backward()

    def update(self) -> None:
        nn.utils.clip_grad_norm_(self.net.parameters(), self.config.clip)
        for optimiser in self.optimisers:
            optimiser.step()

    def __call__(self, i: int) -> None:
        self.differentiate(self.draw(i))
        self.update()


def answer(picture: data.Images) -> float:
    """Seconds of ``inkfill inpaint`` on one picture, in a process of its own, from the start of Python on."""
    with tempfile.TemporaryDirectory() as folder:
        save_picture(picture, Path(folder) / "digit.png")
        command = [sys.executable, "-m", "inkfill", "inpaint", f"{folder}/digit.png", "--mask", "half:left"]
        began = time.perf_counter()
        subprocess.run([*command, "--samples", "1", "--out", f"{folder}/filled.png"], check=True, capture_output=True)
        return time.perf_counter() - began


def profile(step: TrainingStep, steps: int = 10) -> None:
    """Print the operators that training steps spend most time in, all together and then by the shapes that they get."""
    for i in range(5):  # warm
        step(i)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as found:
        for i in range(steps):
            step(i)
    print("ms a step: itself, with all that it calls; calls a step")
    for by_shape in (False, True):
        rows = found.key_averages(group_by_input_shape=by_shape)
        for row in sorted(rows, key=lambda row: -row.self_cpu_time_total)[:25]:
            itself, whole = (spent / steps / 1000 for spent in (row.self_cpu_time_total, row.cpu_time_total))
            shapes = str(row.input_shapes)[:90] if by_shape else ""
            print(f"{itself:7.2f} {whole:7.2f} {row.count / steps:5.0f}  {row.key:36s} {shapes}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="alternations of peak and training")
    parser.add_argument("--digits", type=int, default=500, help="digits to inpaint, one completion each")
    parser.add_argument("--profile", action="store_true", help="only show where the time of a training step goes")
    parser.add_argument(
        "--out", type=Path, help="write the figures here too, as JSON, beside those of other processors"
    )
    arguments = parser.parse_args()

    digits = data.load("auto")
    step = TrainingStep(digits.train)
    if arguments.profile:
        profile(step)
        return
    model, exact = inkfill.load(), inkfill.load(dtype=torch.float32)
    images = np.resize(digits.test, (arguments.digits, *digits.test.shape[1:]))
    inpaint(model, images[:128], "half:left", 1, steps=2)  # warm
    matrix = torch.randn(2048, 2048).bfloat16()
    peaks, steps, passes, fills, slower, answers = [], [], [], [], [], []
    step(0)
    batch = step.draw(0)
    for _ in range(arguments.rounds):
        peaks.append(8 * 2 * 2048**3 / seconds(lambda: [matrix @ matrix for _ in range(8)]))
        steps.append(seconds(lambda: [step(i) for i in range(5)]) / 5)
        passes.append(seconds(lambda: [step.differentiate(batch) for _ in range(5)]) / 5)
        fills.append(seconds(lambda: inpaint(model, images, "half:left", 1)))
        slower.append(seconds(lambda: inpaint(exact, images, "half:left", 1)))
        answers.append(answer(digits.test[0]))
    timings = (peaks, steps, passes, fills, slower, answers)
    peak, whole, both, filled, float32, answered = (statistics.median(found) for found in timings)
    flops, size, kind = forward_flops(step.net), step.config.batch_size, instructions()
    result = {
        "peak_gflops": peak / 1e9,
        "parameters": sum(p.numel() for p in step.net.parameters()),
        "forward_mflops": flops / 1e6,
        "training_images_per_s": size / whole,
        "training_share_of_peak": 3 * flops * size / whole / peak,
        "passes_share_of_peak": 3 * flops * size / both / peak,
        "inpaint_digits": arguments.digits,
        "inpaint_steps": STEPS,
        "inpaint_seconds": filled,
        "inpaint_float32_seconds": float32,
        "one_picture_seconds": answered,
        "inpaint_share_of_peak": flops * STEPS * arguments.digits / filled / peak,
        "threads": torch.get_num_threads(),
    }
    if arguments.out:
        others = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
        with written_whole(arguments.out) as temporary:
            temporary.write_text(json.dumps({**others, kind: result}, indent=1))
    print(f"peak        {peak / 1e9:.0f} GFLOP/s, bfloat16 matrix product, {result['threads']} threads, {kind}")
    print(f"network     {result['parameters'] / 1e6:.2f} M parameters, {flops / 1e6:.0f} MFLOP a forward pass")
    print(
        f"training    {size / whole:.0f} images/s, {result['training_share_of_peak']:.0%} of the peak; "
        f"forward and backward alone {result['passes_share_of_peak']:.0%}"
    )
    print(
        f"inpainting  {arguments.digits} digits, one completion each, {STEPS} evaluations: {filled:.1f} s, "
        f"{result['inpaint_share_of_peak']:.0%} of the peak; in float32 {float32:.1f} s"
    )
    print(f"one picture {answered:.1f} s for inkfill inpaint, from the start of Python on")


if __name__ == "__main__":
    main()
