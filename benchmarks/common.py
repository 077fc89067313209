"""What the benchmarks share: the command line, the one timer, a network in training, and pages from templates."""

import argparse
import inspect
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from inkfill.models.checkpoint import SHIPPED
from inkfill.files import file_hash, read_json, write_json, written_whole
from inkfill.data import Images, masks
from inkfill.evaluation import metrics
from inkfill import tables
from inkfill.models.model import find_dtype
from inkfill.core.rng import stream
from inkfill.core.schedule import Schedule
from inkfill.core import objectives
from inkfill.training.config import TrainConfig
from inkfill.core.trainer import Trainer, optimisers
from inkfill.core.unet import UNet

DOCS = Path(__file__).parent.parent / "docs"
PAGES = Path(__file__).parent / "pages"
OUTDATED = "*These figures are of other weights than the shipped ones.*\n\n"
CPU = torch.device("cpu")
Work = Callable[[], object]
Row = dict[str, Any]
T = TypeVar("T")


def run(*commands: Callable[..., object]) -> None:
    """Run what the command line asks for: a function's arguments are its options, its docstring is their help.

    Several functions are told apart by their names. An option without a default is a path, and one whose default is a
    tuple takes several values.
    """
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__, formatter_class=style)
    parts = parser.add_subparsers(required=True) if len(commands) > 1 else None
    for command in commands:
        own = parts.add_parser(command.__name__, formatter_class=style) if parts else parser
        own.epilog = inspect.getdoc(command)
        own.set_defaults(command=command)
        for name, parameter in inspect.signature(command).parameters.items():
            default = parameter.default
            several = {"nargs": "+"} if isinstance(default, tuple) else {}
            kind = Path if default is None else type(default[0] if several else default)
            options = {"action": "store_true"} if kind is bool else {"type": kind, "default": default, **several}
            own.add_argument(f"--{name}", **options, help=f"by default {default}")
    given = vars(parser.parse_args())
    given.pop("command")(**given)


def save(found: Any, out: Path | None) -> None:
    """Write what was found as JSON, where that was asked for."""
    if out:
        write_json(out, found)


def show(row: Row) -> Row:
    """A row of figures, printed as soon as it is known."""
    cells = (f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items())
    print("  ".join(cells), flush=True)
    return row


@contextmanager
def bar(total: int, title: str) -> Iterator[Callable[[int], object]]:
    """A progress bar that is seen where it takes long enough; gives what is to be told of every part."""
    with tqdm(total=total, desc=title, delay=2, leave=False, dynamic_ncols=True) as shown:
        yield shown.update


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What a work gives, and the seconds that it took."""
    began = time.perf_counter()
    found = work()
    return found, time.perf_counter() - began


def alternate(works: Mapping[str, Work], rounds: int) -> dict[str, list[float]]:
    """Seconds of every work in every round; one round more comes first, to warm up, and is not counted.

    Works follow one another and rounds too, so that a machine that changes speed does so for all of them.
    """
    times = [{name: timed(work)[1] for name, work in works.items()} for _ in tqdm(range(rounds + 1), leave=False)]
    return {name: [turn[name] for turn in times[1:]] for name in works}


def repeated(work: Work, times: int) -> Work:
    """A work so many times in a row, for what is too short to be timed alone."""
    return lambda: [work() for _ in range(times)]


def new_trainer(config: TrainConfig, images: Images) -> Trainer:
    """A new network, its optimisers and its batches, as ``inkfill train`` has them, without a folder or a clock."""
    dtype = find_dtype(config.dtype or None, CPU)
    config = replace(config, dtype=str(dtype).removeprefix("torch."))
    net, schedule = UNet(config.unet, config.seed), Schedule.named(config.schedule, config.T)
    spec, errors = masks.parse(config.masks), objectives.OBJECTIVES[config.objective]

    def draw(step: int) -> objectives.Batch:
        return objectives.draw_batch(config, schedule, images, spec, stream(config.seed, "train", step))

    return Trainer(net, optimisers(config, net), draw, errors, config.clip, config.ema, dtype)


def with_error(values: Sequence[float], form: str = ".2f") -> str:
    """The mean of values and its standard error, as a cell of a table; nothing for no values."""
    each = np.asarray(values, np.float64)
    error = metrics.standard_error(each)
    return f"{each.mean():{form}} ± {error:{form.lstrip('+')}}" if len(each) else ""


def distinct(rows: Iterable[Row], key: str) -> list[Any]:
    """The values of a column, each once, in their order."""
    return list(dict.fromkeys(row[key] for row in rows))


def without_ranks(rows: Iterable[Row]) -> list[Row]:
    """Rows of scores without their rank histograms, which a page shows as a picture."""
    return [{key: value for key, value in row.items() if key != "ranks"} for row in rows]


# A table of a template says what it has a row for, then its headings, and how the cells of a row are written.
TABLE = re.compile(r"<!-- each (\w+) -->\n\| (.+?) *\|\n\|[-:|]+\|\n\| (.+) \|\n")
CELL = re.compile(r"(.*)\{(\w+)(.*)\}(.*)")


def filled(text: str, values: Row) -> str:
    """A part of a template with its tables and its values."""

    def written(found: re.Match[str]) -> str:
        name, headings, forms = found.groups()
        cells = (CELL.fullmatch(form.strip()).groups() for form in forms.split(" | "))
        titled = zip(headings.format(**values).split("|"), cells, strict=True)
        columns = {key: (heading.strip(), f"{a}{{{form}}}{b}") for heading, (a, key, form, b) in titled}
        return tables.table(values[name], columns) + "\n"

    return TABLE.sub(written, text).format(**values)


def write_page(path: Path, values: Mapping[str, Row]) -> None:
    """Write a page from the template of its name in pages/, whole or not at all.

    A part of a template begins with a mark such as ``<!-- part tune -->``, and is left out where it has no values. What
    stands before the first mark is on every page.
    """
    page, *parts = re.split(r"<!-- part (\w+) -->\n", (PAGES / path.name).read_text(encoding="utf-8"))
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        if name in values:
            page += filled(text, values[name]) + OUTDATED * values[name].get("outdated", False)
    with written_whole(path) as temporary:
        temporary.write_text(re.sub(r"\n{3,}", "\n\n", page).rstrip() + "\n", encoding="utf-8")


def from_files(folder: Path, builders: Mapping[str, Callable[[Any], Row]]) -> dict[str, Row]:
    """Values for the parts of a page whose JSON is there: what a builder makes of the file of its name."""
    values, shipped = {}, file_hash(SHIPPED)
    for name, build in builders.items():
        path = folder / f"{name}.json"
        if path.exists():
            found = read_json(path)
            about = found.get("about", found) if isinstance(found, dict) else {}
            values[name] = {**build(found), "outdated": about.get("checkpoint", shipped) != shipped}
    return values
