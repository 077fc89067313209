"""Options, messages and progress bars that the commands share; used as ``@options.seed``."""

import functools
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inkfill import defaults, progress
from inkfill.app.choices import CHOICES
from inkfill.errors import InputError, encodable, shown

if TYPE_CHECKING:  # torch takes a second to import; a command imports it when it runs
    from inkfill.models.adapters import Foreign
    from inkfill.models.model import Model
    from inkfill.processes import Processes

option = click.option
PATH = click.Path(path_type=Path)
COUNT = click.IntRange(1)
SEED = click.IntRange(0, 2**64 - 1)


@dataclass(frozen=True)
class Network:
    """The values of --checkpoint, --device, --dtype, --guide and --guide-weight; loaded when needed."""

    checkpoint: Path | None
    device: str | None
    dtype: str | None
    guide: Path | None = None
    guide_weight: float | None = None

    def load(self) -> "Model":
        """The trained model, guided if asked for. Raises InputError."""
        from inkfill.core.guidance import WEIGHT
        from inkfill.models.model import load

        model = load(self.checkpoint, self.device, self.dtype)
        if not self.guide:
            return model
        weight = WEIGHT if self.guide_weight is None else self.guide_weight
        return model.guided(load(self.guide, self.device, self.dtype), weight)

    def prior(self) -> "Model | Foreign":
        """The trained model, or a foreign model from a diffusers folder. Raises InputError."""
        from inkfill.models import adapters
        from inkfill.models.model import find_device

        if self.checkpoint and adapters.is_diffusers(self.checkpoint):
            if self.guide:
                raise InputError("--guide: not supported for a diffusers folder: give weights of inkfill")
            return adapters.from_diffusers(self.checkpoint, find_device(self.device))
        return self.load()


checkpoint = option(
    "--checkpoint", type=PATH, help="Weights: a file, a run, mnist, mnist-guided, mnist-few, a diffusers folder."
)
device = option("--device", help="Device: cpu, cuda or mps [default: cuda if available].")
dtype = option(
    "--dtype", type=click.Choice(defaults.DTYPES), help="Compute precision [default: fastest on this machine]."
)
guide = option("--guide", type=PATH, help="Weights of a poorer network to extrapolate from (autoguidance).")
guide_weight = option("--guide-weight", type=click.FloatRange(0, 10), help="Guidance weight, 1 is none [default: 1.5].")
seed = option("--seed", type=SEED, default=0, help="Random seed.")
steps = option("--steps", type=click.IntRange(1, 10_000), help="Sampling steps [default: set by the weights].")
sampler = option("--sampler", type=click.Choice(CHOICES["samplers"]), help="Sampler [default: set by the weights].")
method = option("--method", help="Inpainting method, listed by inkfill methods [default: set by the weights].")
set_ = option(
    "--set", "settings", metavar="NAME=VALUE", multiple=True, help="Setting of the method, as strength=2; repeatable."
)
data = option(
    "--data", default="auto", help=f"Data set or path: {', '.join(CHOICES['data'])}; auto is MNIST, else rendered."
)
value_range = option(
    "--range", "value_range", nargs=2, type=float, metavar="LOW HIGH", help="Data range [default: inferred]."
)
overwrite = option("--overwrite", is_flag=True, help="Replace existing output.")


def network(command: Callable[..., None]) -> Callable[..., None]:
    """The options that choose a network, passed to a command as one ``network``."""

    @functools.wraps(command)
    def called(
        checkpoint: Path | None,
        device: str | None,
        dtype: str | None,
        guide: Path | None,
        guide_weight: float | None,
        **other: Any,
    ) -> None:
        if guide_weight is not None and guide is None:
            raise InputError("--guide-weight requires --guide")
        command(network=Network(checkpoint, device, dtype, guide, guide_weight), **other)

    for add in (guide_weight, guide, dtype, device, checkpoint):
        called = add(called)
    return called


def numbers(settings: tuple[str, ...]) -> dict[str, float]:
    """Settings of a method from texts NAME=NUMBER. Raises InputError."""
    found = {}
    for text in settings:
        name, _, value = text.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise InputError(f"--set {shown(text)}: not NAME=NUMBER: write it as strength=2") from None
    return found


@contextmanager
def shared(network: Network) -> Iterator[tuple["Processes", Network]]:
    """The processes that torchrun started, and the network with this process's device; only rank 0 prints remarks."""
    from inkfill.models.model import find_device
    from inkfill.processes import processes

    with processes(find_device(network.device) if network.device else None) as group:
        if not group.first:
            logging.getLogger("inkfill").setLevel(logging.ERROR)
        yield group, replace(network, device=str(group.device))


@contextmanager
def bar(total: int, name: str) -> Iterator[progress.Progress]:
    """A progress bar on stderr, shown when the work takes more than two seconds."""
    with progress.bar(total, desc=name, delay=2, leave=False) as shown_bar:
        yield shown_bar.update


def echo(text: str) -> None:
    """Print text, with control characters in file names escaped."""
    click.echo(encodable("\n".join(shown(line) for line in text.splitlines()), sys.stdout))
