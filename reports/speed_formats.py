"""Precision, memory format, threads and torch.compile: the time of a network evaluation and of a training step.

    .venv/bin/python reports/speed_formats.py       into reports/speed/formats.json

One evaluation of 128 states, as inpainting has them, and of one; forward and backward of 64 images. The ways take
turns, so a machine that changes speed does so for all. torch.compile needs a C++ compiler; its seconds
are counted apart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch import nn

import inkfill
from common import Row, Work, alternate, new_trainer, repeated, run, save, show, timed
from inkfill import data
from inkfill.filling.inpaint import ROWS
from inkfill.training.config import TrainConfig


@dataclass(frozen=True)
class Way:
    """How the network is run."""

    dtype: str = "bfloat16"
    channels_last: bool = True
    threads: int = 2
    compiled: bool = False
    autocast: bool = False  # bfloat16 by autocast from float32 weights, as in training; inpainting has bfloat16 weights

    def arrange(self, net: nn.Module) -> None:
        """Put weights and feature maps into this memory format."""
        if not self.channels_last:
            net.to(memory_format=torch.contiguous_format)
            for stem in (net.stem_noisy, net.stem_known):  # what the network makes channels-last before them
                stem.register_forward_pre_hook(lambda layer, inputs: (inputs[0].contiguous(),))

    def run(self, work: Work) -> None:
        """Run the work in this number of threads."""
        torch.set_num_threads(self.threads)
        work()


WAYS = {
    "as shipped": Way(),
    "float32": Way(dtype="float32"),
    "channels first": Way(channels_last=False),
    "float32, channels first": Way(dtype="float32", channels_last=False),
    "one thread": Way(threads=1),
    "autocast from float32 weights": Way(dtype="float32", autocast=True),
    "torch.compile": Way(compiled=True),
}


def evaluation(rows: int, way: Way) -> Work:
    """One denoising of ``rows`` states."""
    model = inkfill.load(dtype=way.dtype)
    way.arrange(model.net)
    net = torch.compile(model.net) if way.compiled else model.net
    pixels, known, x_t = torch.rand(3, rows, 1, 28, 28).round().to(model.dtype)
    embedded, time = model.net.embed(pixels, known), torch.tensor([0.5])

    def work() -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=way.autocast):
            net(x_t, pixels, known, time, embedded)

    return work


def passes(rows: int, way: Way) -> Work:
    """Forward and backward of a batch of ``rows`` images."""
    trainer = new_trainer(TrainConfig(batch_size=rows, dtype=way.dtype), data.rendered(1000, 1, 1).train)
    way.arrange(trainer.net)
    if way.compiled:
        trainer.net.compile()
    return partial(trainer.differentiate, trainer.draw(0))


def compare(kind: str, build: Callable[[Way], Work], repeats: int, rounds: int) -> list[Row]:
    """Seconds of each way, their ratio to the default, and those of the first call, which compiles."""
    # Training always has float32 weights: autocast is how it gets bfloat16.
    ways = {name: way for name, way in WAYS.items() if "trained" not in kind or not way.autocast}
    works = {name: build(way) for name, way in ways.items()}
    first = {name: timed(partial(ways[name].run, work))[1] for name, work in works.items()}
    times = alternate({name: partial(ways[name].run, repeated(work, repeats)) for name, work in works.items()}, rounds)
    rows = []
    for name, each in times.items():
        ratio = median(a / b for a, b in zip(each, times["as shipped"], strict=True))
        row = {"work": kind, "way": name, "seconds": median(each) / repeats, "ratio": ratio}
        rows.append(show({**row, "first": first[name]}))
    return rows


def main(rounds: int = 7) -> None:
    """Compare the ways on three kinds of work."""
    found = compare(f"{ROWS} evaluated", partial(evaluation, ROWS), 5, rounds)
    found += compare("1 evaluated", partial(evaluation, 1), 50, rounds)
    found += compare("64 trained", partial(passes, 64), 3, rounds)
    save("speed", "formats", found)


if __name__ == "__main__":
    run(main)
