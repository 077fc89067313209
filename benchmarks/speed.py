"""How fast training and inpainting are here, as a share of this machine's own peak.

    .venv/bin/python benchmarks/speed.py

The peak is that of a plain bfloat16 matrix product, measured in the same run and alternating with the rest, because
shared machines change speed from minute to minute. Arithmetic is counted by hooks on the convolutions, the linear
layers and the attention; a backward pass counts as two forward passes.
"""

import argparse
import json
import statistics
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
from inkfill.inpainting import inpaint
from inkfill.rng import stream
from inkfill.schedule import Schedule
from inkfill.train import TrainConfig, draw_batch, optimisers, squared_errors
from inkfill.unet import Attention, UNet


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="alternations of peak and training")
    parser.add_argument("--digits", type=int, default=500, help="digits to inpaint, one completion each")
    parser.add_argument("--out", type=Path, help="write the figures here too, as JSON")
    arguments = parser.parse_args()

    digits = data.load("auto")
    config = TrainConfig()
    net = UNet(config.unet)
    schedule, spec = Schedule.named(config.schedule, config.T), masks.parse(config.masks)
    made = optimisers(config, net)

    def train_step(i: int) -> None:
        batch = draw_batch(config, digits.train, spec, stream(0, "train", i))
        loss = squared_errors(net, schedule, batch, config.bfloat16, config.weighting).sum() / batch.missing
        for optimiser in made:
            optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), config.clip)
        for optimiser in made:
            optimiser.step()

    model = inkfill.load()
    images = np.resize(digits.test, (arguments.digits, *digits.test.shape[1:]))
    inpaint(model, images[:128], "half:left", 1, steps=2)  # warm
    matrix = torch.randn(2048, 2048).bfloat16()
    peaks, speeds, fills = [], [], []
    train_step(0)
    for _ in range(arguments.rounds):
        peaks.append(8 * 2 * 2048**3 / seconds(lambda: [matrix @ matrix for _ in range(8)]))
        speeds.append(5 * config.batch_size / seconds(lambda: [train_step(i) for i in range(5)]))
        fills.append(seconds(lambda: inpaint(model, images, "half:left", 1)))
    peak, speed, filled = (statistics.median(found) for found in (peaks, speeds, fills))
    flops = forward_flops(net)
    result = {
        "peak_gflops": peak / 1e9,
        "parameters": sum(p.numel() for p in net.parameters()),
        "forward_mflops": flops / 1e6,
        "training_images_per_s": speed,
        "training_share_of_peak": 3 * flops * speed / peak,
        "inpaint_digits": arguments.digits,
        "inpaint_steps": STEPS,
        "inpaint_seconds": filled,
        "inpaint_share_of_peak": flops * STEPS * arguments.digits / filled / peak,
        "threads": torch.get_num_threads(),
    }
    if arguments.out:
        with written_whole(arguments.out) as temporary:
            temporary.write_text(json.dumps(result, indent=1))
    print(f"peak        {peak / 1e9:.0f} GFLOP/s, bfloat16 matrix product, {result['threads']} threads")
    print(f"network     {result['parameters'] / 1e6:.2f} M parameters, {flops / 1e6:.0f} MFLOP a forward pass")
    print(f"training    {speed:.0f} images/s, {result['training_share_of_peak']:.0%} of the peak")
    print(
        f"inpainting  {arguments.digits} digits, one completion each, {STEPS} evaluations: {filled:.1f} s, "
        f"{result['inpaint_share_of_peak']:.0%} of the peak"
    )


if __name__ == "__main__":
    main()
