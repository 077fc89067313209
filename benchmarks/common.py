"""What the benchmarks share: the command line, the one timer, a network in training, and pages from templates."""

import argparse
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from inkfill.checkpoint import SHIPPED, file_hash, read_json, write_json, written_whole
from inkfill.data import Images, masks
from inkfill.evaluation.metrics import standard_error
from inkfill.model import find_dtype
from inkfill.rng import stream
from inkfill.schedule import Schedule
from inkfill.training.config import TrainConfig
from inkfill.training.objectives import OBJECTIVES, Batch, draw_batch
from inkfill.training.trainer import Trainer, optimisers
from inkfill.unet import UNet

DOCS = Path(__file__).parent.parent / "docs"
PAGES = Path(__file__).parent / "pages"
OUTDATED = "*These figures are of other weights than the shipped ones.*\n\n"
CPU = torch.device("cpu")
Work = Callable[[], object]
Row = dict[str, Any]
T = TypeVar("T")

# ---- in and out ------------------------------------------------------------------------------------------------------


def command_line(text: str | None, out: str = "") -> argparse.ArgumentParser:
    """A command line whose help is the docstring of its module; with ``out``, the option of that name and its help."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    if out:
        parser.add_argument("--out", type=Path, help=out)
    return parser


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


# ---- time ------------------------------------------------------------------------------------------------------------


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


# ---- networks in training --------------------------------------------------------------------------------------------


def new_trainer(config: TrainConfig, images: Images) -> Trainer:
    """A new network, its optimisers and its batches, as ``inkfill train`` has them, without a folder or a clock."""
    dtype = find_dtype(config.dtype or None, CPU)
    config = replace(config, dtype=str(dtype).removeprefix("torch."))
    net, spec = UNet(config.unet, config.seed), masks.parse(config.masks)
    schedule = Schedule.named(config.schedule, config.T)

    def draw(step: int) -> Batch:
        return draw_batch(config, schedule, images, spec, stream(config.seed, "train", step))

    return Trainer(net, optimisers(config, net), draw, OBJECTIVES[config.objective], config.clip, config.ema, dtype)


# ---- tables and pages ------------------------------------------------------------------------------------------------


def with_error(values: Sequence[float], form: str = ".2f") -> str:
    """The mean of values and its standard error, as a cell of a table; nothing for no values."""
    each = np.asarray(values, np.float64)
    return f"{each.mean():{form}} ± {standard_error(each):{form}}" if len(each) else ""


def distinct(rows: Iterable[Row], key: str) -> list[Any]:
    """The values of a column, each once, in their order."""
    return list(dict.fromkeys(row[key] for row in rows))


def without_ranks(rows: Iterable[Row]) -> list[Row]:
    """Rows of scores without their rank histograms, which a page shows as a picture."""
    return [{key: value for key, value in row.items() if key != "ranks"} for row in rows]


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


def write_page(path: Path, values: Mapping[str, Row]) -> None:
    """Write a page from the template of its name in pages/, whole or not at all.

    A part of a template begins with a mark such as ``<!-- tune -->``, and is left out where it has no values. What
    stands before the first mark is on every page.
    """
    page, *parts = re.split(r"^<!-- (\w+) -->\n", (PAGES / path.name).read_text(encoding="utf-8"), flags=re.MULTILINE)
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        if name in values:
            page += text.format(**values[name]) + OUTDATED * values[name].get("outdated", False)
    with written_whole(path) as temporary:
        temporary.write_text(re.sub(r"\n{3,}", "\n\n", page).rstrip() + "\n", encoding="utf-8")
