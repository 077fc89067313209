"""What the reports share: the command line, timers, tables in pages, trained networks, and images to train on."""

import argparse
import inspect
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from tqdm import tqdm

from inkfill.core import masks
from inkfill.core.objectives import OBJECTIVES, Batch
from inkfill.core.rng import stream
from inkfill.core.schedule import Schedule
from inkfill.core.trainer import Trainer, optimisers
from inkfill.core.unet import UNet
from inkfill.data import Images
from inkfill.data.images import BYTES
from inkfill.evaluation.metrics import standard_error
from inkfill.files import read_json, write_json, written_whole
from inkfill.models.model import find_dtype
from inkfill.tables import markdown
from inkfill.training.batches import Batches
from inkfill.training.config import TrainConfig
from inkfill.training.run import train

REPORTS = Path(__file__).parent
MASKS = (  # quadrants:2 is the mask half:right
    *("half:left", "half:right", "half:top", "half:bottom", "box:10", "box:14:random"),
    *("quadrants:1", "quadrants:3", "pixels:0.5", "pixels:0.9", "strokes", "bbox:8"),
)
FOUR_MASKS = ("half:left", "box:10", "quadrants:3", "pixels:0.9")
CPU = torch.device("cpu")
Work = Callable[[], object]
Row = dict[str, Any]
T = TypeVar("T")

# ---- command line ----------------------------------------------------------------------------------------------------


def run(*commands: Callable[..., object]) -> None:
    """Run the function named on the command line; its arguments are the options.

    A single function needs no name. An option without a default is a path; a tuple takes several values.
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
            own.add_argument(f"--{name.replace('_', '-')}", **options, help=f"default: {default}")
    given = vars(parser.parse_args())
    given.pop("command")(**given)


def show(row: Row) -> Row:
    """Print a row of figures, and return it."""
    cells = (f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items())
    print("  ".join(cells), flush=True)
    return row


@contextmanager
def bar(total: int, title: str) -> Iterator[Callable[[int], object]]:
    """A progress bar that appears after two seconds; gives the callback that advances it."""
    with tqdm(total=total, desc=title, delay=2, leave=False, dynamic_ncols=True) as shown:
        yield shown.update


# ---- data and pages --------------------------------------------------------------------------------------------------


def folder(report: str) -> Path:
    """The data and figures of a report."""
    return REPORTS / report


def save(report: str, name: str, value: Any) -> None:
    """Write ``reports/REPORT/NAME.json``."""
    write_json(folder(report) / f"{name}.json", value)


def saved(report: str, name: str) -> Any:
    """Read ``reports/REPORT/NAME.json``."""
    return read_json(folder(report) / f"{name}.json")


def write_tables(report: str, tables: Mapping[str, str]) -> None:
    """Put tables into ``reports/REPORT.md``, each between ``<!-- table NAME -->`` and ``<!-- end -->``."""
    path = REPORTS / f"{report}.md"
    text = path.read_text(encoding="utf-8")
    for name, table in tables.items():
        block = re.compile(rf"(<!-- table {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if len(block.findall(text)) != 1:
            sys.exit(f"{path}: needs one block <!-- table {name} --> ... <!-- end -->")
        text = block.sub(rf"\g<1>\n{table}\n\n\g<2>", text)
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def with_error(values: Sequence[float], form: str = ".2f") -> str:
    """Mean and standard error of values, as a cell; empty for no values."""
    each = np.asarray(values, np.float64)
    return f"{each.mean():{form}} ± {standard_error(each):{form.lstrip('+')}}" if len(each) else ""


def distinct(rows: Iterable[Row], key: str) -> list[Any]:
    """The values of a column, each once, in order."""
    return list(dict.fromkeys(row[key] for row in rows))


def grid(rows: Sequence[Row], down: str, across: str, cell: Callable[[list[Row]], str], heading: str = "{}") -> str:
    """A table: a line for each value of ``down``, a column for each value of ``across``."""
    columns = distinct(rows, across)
    lines = [
        [name, *(cell([r for r in rows if (r[down], r[across]) == (name, column)]) for column in columns)]
        for name in distinct(rows, down)
    ]
    return markdown([down, *(heading.format(column) for column in columns)], lines)


# ---- timers ----------------------------------------------------------------------------------------------------------


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """A function's value, and its seconds."""
    began = time.perf_counter()
    found = work()
    return found, time.perf_counter() - began


def alternate(works: Mapping[str, Work], rounds: int) -> dict[str, list[float]]:
    """Seconds of every function in every round, after one round to warm up.

    The functions take turns, so a machine that changes speed does so for all of them.
    """
    times = [{name: timed(work)[1] for name, work in works.items()} for _ in tqdm(range(rounds + 1), leave=False)]
    return {name: [turn[name] for turn in times[1:]] for name in works}


def repeated(work: Work, times: int) -> Work:
    """A function so many times in a row, where one call is too short to be timed."""
    return lambda: [work() for _ in range(times)]


# ---- trained networks ------------------------------------------------------------------------------------------------


def new_trainer(config: TrainConfig, images: Images) -> Trainer:
    """A new network with its optimisers and batches, as ``inkfill train`` has them, without a folder or a clock."""
    net, objective = UNet(config.unet, config.seed), OBJECTIVES[config.objective]
    schedule, spec = Schedule.named(config.schedule, config.T), masks.parse(config.masks)
    batches = Batches(schedule, spec, BYTES, config.batch_size, make=objective.draw or Batch.draw)

    def draw(step: int) -> Any:
        return batches.draw(images, stream(config.seed, "train", step))

    dtype = find_dtype(config.dtype or None, CPU)
    return Trainer(net, optimisers_of(config, net), draw, objective.errors, config.clip, config.ema, dtype)


def optimisers_of(config: TrainConfig, net: UNet) -> list[torch.optim.Optimizer]:
    """Muon and AdamW with the rates of a configuration."""
    bfloat16 = find_dtype(config.dtype or None, CPU) == torch.bfloat16
    return optimisers(net, config.learning_rate, config.muon_rate, config.weight_decay, bfloat16)


def trained(config: TrainConfig, out: Path, validate_every: int = 10**9) -> Path:
    """Train into a folder, once: an unfinished run resumes, a finished one is kept. Returns its weights."""
    if not (out / "done").exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        if not train(config, out, resume=(out / "state.pt").exists(), validate_every=validate_every):
            raise KeyboardInterrupt
        (out / "done").touch()
    return out / "model.safetensors"


# ---- distances of samples --------------------------------------------------------------------------------------------


def sliced_wasserstein(x: Tensor, y: Tensor, rng: np.random.Generator, slices: int = 500) -> tuple[float, float]:
    """Mean and largest W1 distance of two samples ``[N, D]`` along random directions."""
    directions = torch.from_numpy(rng.standard_normal((x.shape[1], slices)))
    directions /= directions.norm(dim=0)
    apart = ((x @ directions).sort(0).values - (y @ directions).sort(0).values).abs().mean(0)
    return float(apart.mean()), float(apart.max())


# ---- images to train on ----------------------------------------------------------------------------------------------

EMOJI = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")  # Debian: fonts-noto-color-emoji


def glyphs(font: Path, codes: list[int], size: int, box: tuple[int, int], shape: tuple[int, int], mode: str) -> Images:
    """Characters of a font, uint8 ``[N, *shape]`` (``mode`` L) or ``[N, *shape, 4]`` (RGBA), without empty ones."""
    face, drawn = ImageFont.truetype(font, size), []
    for code in codes:
        canvas = Image.new(mode, box)
        ink: Any = 255 if mode == "L" else None
        place = (box[0] / 2, box[1] / 2)
        ImageDraw.Draw(canvas).text(place, chr(code), ink, face, anchor="mm", embedded_color=mode == "RGBA")
        drawn.append(np.asarray(canvas.resize(shape[::-1], Image.Resampling.BOX)))
    return np.stack([image for image in drawn if image.max() > 0])


def icons(shape: tuple[int, int]) -> Images:
    """Icons of a colour font, uint8 ``[N, *shape, 4]``."""
    from fontTools.ttLib import TTFont

    codes = [code for code in TTFont(EMOJI).getBestCmap() if code > 0x2000]
    return glyphs(EMOJI, codes, 109, (136, 128), shape, "RGBA")


def letters() -> Images:
    """Letters of many scripts in matplotlib's fonts, uint8 ``[N, 64, 64]``."""
    fonts = [f for f in sorted(Path(get_data_path(), "fonts", "ttf").glob("DejaVu*.ttf")) if "Display" not in f.name]
    codes = [c for c in range(0x41, 0x590) if chr(c).isalpha()]
    return np.concatenate([glyphs(f, codes, 48, (64, 64), (64, 64), "L") for f in fonts])


def small_letters() -> Images:
    """The same at 32x32."""
    return letters().reshape(-1, 32, 2, 32, 2).mean((2, 4)).round().astype(np.uint8)


def on_white(images: Images) -> Images:
    """RGBA images on white, as RGB."""
    alpha = images[..., 3:] / 255
    return (images[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)


def shuffled(images: Images) -> Images:
    """In a fixed random order."""
    return images[np.random.Generator(np.random.Philox(1)).permutation(len(images))]
