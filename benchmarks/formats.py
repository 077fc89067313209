"""Precision, memory format, threads and torch.compile: what each does to one evaluation and to one training step.

    .venv/bin/python benchmarks/formats.py --out docs/speed/formats.json

One evaluation of 128 states, as inpainting makes them, and of a single one; forward and backward of 64 images, as training
makes them. Every way is timed once in each round, and rounds follow one another, so that a machine that changes speed does so
for all. Compiling needs a C++ compiler; its seconds are counted apart.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import torch

import inkfill
from inkfill import data
from inkfill.checkpoint import written_whole
from inkfill.inpainting import ROWS
from speed import TrainingStep, seconds


@dataclass(frozen=True)
class Way:
    """How the network is run."""

    bfloat16: bool = True
    channels_last: bool = True
    threads: int = 2
    compiled: bool = False
    autocast: bool = (
        False  # bfloat16 by autocast from float32 weights, as in training, where inpainting has bfloat16 weights
    )

    @contextmanager
    def apply(self) -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with ExitStack() as stack:
                if not self.channels_last:
                    stack.enter_context(mock.patch.object(torch, "channels_last", torch.contiguous_format))
                yield
        finally:
            torch.set_num_threads(before)


WAYS = {
    "as shipped": Way(),
    "float32": Way(bfloat16=False),
    "channels first": Way(channels_last=False),
    "float32, channels first": Way(bfloat16=False, channels_last=False),
    "one thread": Way(threads=1),
    "autocast from float32 weights": Way(autocast=True),
    "torch.compile": Way(compiled=True),
}


def evaluation(way: Way, rows: int) -> Callable[[], object]:
    """One denoising of ``rows`` states."""
    model = inkfill.load(dtype=torch.bfloat16 if way.bfloat16 and not way.autocast else torch.float32)
    net = torch.compile(model.net) if way.compiled else model.net
    pixels, known = torch.zeros(rows, 1, 28, 28, dtype=model.dtype), torch.ones(rows, 1, 28, 28, dtype=model.dtype)
    x_t, level = torch.randn(rows, 1, 28, 28).to(model.dtype), torch.tensor([0.5])
    embedded = model.net.embed(pixels, known)

    def work() -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=way.autocast):
            net(x_t, pixels, known, level, embedded)

    return work


def passes(way: Way) -> Callable[[], object]:
    """Forward and backward of one batch."""
    step = TrainingStep(data.load("rendered").train)
    step.config = replace(step.config, bfloat16=way.bfloat16)
    batch = step.draw(0)
    if way.compiled:
        step.net.compile()
    return lambda: step.differentiate(batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="write the figures here too, as JSON")
    arguments = parser.parse_args()
    kinds: dict[str, tuple[Callable[[Way], Callable[[], object]], int]] = {
        f"{ROWS} evaluated": (lambda way: evaluation(way, ROWS), 5),
        "1 evaluated": (lambda way: evaluation(way, 1), 50),
        "64 trained": (passes, 3),
    }
    found: list[dict[str, float | str]] = []
    for kind, (build, repeats) in kinds.items():
        # Training always has float32 weights: autocast is how it gets bfloat16.
        ways = {name: way for name, way in WAYS.items() if not (way.autocast and build is passes)}
        works, first = {}, {}
        for name, way in ways.items():
            with way.apply():
                works[name] = build(way)
                first[name] = seconds(works[name])
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                with way.apply():
                    work = works[name]
                    work()  # in this number of threads
                    began = time.perf_counter()
                    for _ in range(repeats):
                        work()
                    times[name].append((time.perf_counter() - began) / repeats)
        for name in ways:
            took = statistics.median(times[name])
            ratio = statistics.median(a / b for a, b in zip(times[name], times["as shipped"], strict=True))
            found.append({"work": kind, "way": name, "seconds": took, "ratio": ratio, "first": first[name]})
            print(f"{kind:14s} {name:32s} {1000 * took:8.2f} ms  {ratio:5.2f}  first {first[name]:5.1f} s", flush=True)
    if arguments.out:
        with written_whole(arguments.out) as temporary:
            temporary.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
