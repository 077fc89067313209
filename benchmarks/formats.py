"""Precision, memory format, threads and torch.compile: what each does to one evaluation and to one training step.

    .venv/bin/python benchmarks/formats.py --out docs/speed/formats.json

One evaluation of 128 states, as inpainting makes them, and of a single one; forward and backward of 64 images, as training
makes them. Every way is timed once in each round, and rounds follow one another, so that a machine that changes speed does so
for all. Compiling needs a C++ compiler; its seconds are counted apart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn

import inkfill
from common import Row, Work, alternate, command_line, new_trainer, repeated, save, show, timed
from inkfill import data
from inkfill.inpainting import ROWS
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
        """Put the weights, and the maps from the first layer on, into this memory format."""
        if not self.channels_last:
            net.to(memory_format=torch.contiguous_format)
            for stem in (net.stem_noisy, net.stem_known):  # what the network makes channels-last before them
                stem.register_forward_pre_hook(lambda layer, inputs: (inputs[0].contiguous(),))

    def run(self, work: Work) -> Work:
        """The work in this number of threads."""

        def run() -> None:
            before = torch.get_num_threads()
            torch.set_num_threads(self.threads)
            try:
                work()
            finally:
                torch.set_num_threads(before)

        return run


WAYS = {
    "as shipped": Way(),
    "float32": Way(dtype="float32"),
    "channels first": Way(channels_last=False),
    "float32, channels first": Way(dtype="float32", channels_last=False),
    "one thread": Way(threads=1),
    "autocast from float32 weights": Way(dtype="float32", autocast=True),
    "torch.compile": Way(compiled=True),
}


def evaluation(way: Way, rows: int) -> Work:
    """One denoising of ``rows`` states."""
    model = inkfill.load(dtype=way.dtype)
    way.arrange(model.net)
    net = torch.compile(model.net) if way.compiled else model.net
    pixels, known = torch.zeros(rows, 1, 28, 28, dtype=model.dtype), torch.ones(rows, 1, 28, 28, dtype=model.dtype)
    x_t, level = torch.randn(rows, 1, 28, 28).to(model.dtype), torch.tensor([0.5])
    embedded = model.net.embed(pixels, known)

    def work() -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=way.autocast):
            net(x_t, pixels, known, level, embedded)

    return work


def passes(way: Way) -> Work:
    """Forward and backward of one batch."""
    trainer = new_trainer(TrainConfig(dtype=way.dtype), data.rendered(1000, 1, 1).train)
    way.arrange(trainer.net)
    batch = trainer.draw(0)
    if way.compiled:
        trainer.net.compile()
    return lambda: trainer.differentiate(batch)


def compare(kind: str, build: Callable[[Way], Work], repeats: int, ways: dict[str, Way], rounds: int) -> list[Row]:
    """Seconds of each way, and over those of the way shipped; those of the first call, which compiles, apart."""
    works = {name: build(way) for name, way in ways.items()}
    first = {name: timed(ways[name].run(work))[1] for name, work in works.items()}
    times = alternate({name: ways[name].run(repeated(work, repeats)) for name, work in works.items()}, rounds)
    rows = []
    for name, each in times.items():
        ratio = median(a / b for a, b in zip(each, times["as shipped"], strict=True))
        row = {"work": kind, "way": name, "seconds": median(each) / repeats}
        rows.append({**row, "ratio": ratio, "first": first[name]})
        show(rows[-1])
    return rows


def main() -> None:
    parser = command_line(__doc__, "write the figures here too, as JSON")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    # Training always has float32 weights: autocast is how it gets bfloat16.
    trained = {name: way for name, way in WAYS.items() if not way.autocast}
    found = [
        *compare(f"{ROWS} evaluated", lambda way: evaluation(way, ROWS), 5, WAYS, arguments.rounds),
        *compare("1 evaluated", lambda way: evaluation(way, 1), 50, WAYS, arguments.rounds),
        *compare("64 trained", passes, 3, trained, arguments.rounds),
    ]
    save(found, arguments.out)


if __name__ == "__main__":
    main()
