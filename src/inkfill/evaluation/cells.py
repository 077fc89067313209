"""The samples of one cell of an evaluation, stored in files.

A cell is one mask, one method and one number of steps. Its samples are stored with their cost, so an interrupted
evaluation continues and a new metric needs no new samples.
"""

import hashlib
import json
import platform
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inkfill import defaults
from inkfill.core.denoiser import Prior
from inkfill.core.rng import stream
from inkfill.data import Images, masks
from inkfill.data.images import Mask
from inkfill.errors import InputError, shown
from inkfill.evaluation.baselines import BASELINES, REGRESSION, regress
from inkfill.evaluation.interpolation import SMOOTH
from inkfill.files import NOT_WHOLE, written_whole
from inkfill.filling.inpaint import ignore, inpaint
from inkfill.methods import METHODS, find_method
from inkfill.models.model import Model
from inkfill.processes import ALONE, Processes
from inkfill.progress import Progress


@dataclass(frozen=True)
class Cell:
    """A mask, a method or baseline, and how it is run."""

    mask: str  # a spec, or the name of a mask that is given beside the cell
    method: str | Callable[..., Tensor] = defaults.METHOD  # or a function of a task
    steps: int = defaults.STEPS
    samples: int = defaults.SAMPLES
    seed: int = 0
    sampler: str = defaults.SAMPLER
    settings: Mapping[str, float] = field(default_factory=dict, hash=False)  # of the method
    value_range: tuple[float, float] | None = None  # the data range of the images; by default inferred

    @property
    def name(self) -> str:
        """The method's name."""
        return self.method if isinstance(self.method, str) else getattr(self.method, "__name__", "function")

    @property
    def is_baseline(self) -> bool:
        """Whether the method needs no prior."""
        return self.method == REGRESSION or self.method in BASELINES

    def check(self) -> None:
        """Raise InputError for an unknown method or setting."""
        names = (*METHODS, *BASELINES, REGRESSION)
        if callable(self.method) or self.method in METHODS:
            find_method(self.method).settings(self.settings)
        elif not self.is_baseline:
            raise InputError(f"--method: unknown method {shown(self.method)!r}: choose from {', '.join(names)}")


@dataclass(frozen=True)
class Completed:
    """The samples of a cell, ``[N, K, H, W]`` or ``[N, K, H, W, C]``, and their cost.

    ``mask`` ``[N, H, W]`` or ``[N, H, W, C]`` has what is scored.
    """

    filled: Images
    mask: Mask
    evaluations: float  # NFE
    seconds: float  # core-seconds per sample; seconds on a GPU
    machine: str = ""


def complete(
    model: Prior,
    images: Images,
    cell: Cell,
    train: Images | None = None,
    regression: Model | None = None,
    group: Processes = ALONE,
    progress: Progress = ignore,
    holes: Mask | None = None,
    mask: Mask | None = None,
) -> Completed:
    """Draw the samples of a cell.

    ``mask`` is by default drawn from the cell's spec. Some baselines need ``train``, the baseline ``regression`` its
    own network. ``holes`` are pixels without a true value: they are filled too, and are not in the mask of the result.
    The processes of ``group`` share the images of a diffusion method; their number changes samples by rounding only.
    Raises InputError.
    """
    cell.check()
    mask = masks.fit(cell.mask, images, cell.seed) if mask is None else mask
    scored, missing = (mask, mask) if holes is None else _without(mask, holes)
    device = torch.device("cpu") if cell.method in BASELINES else model.device
    evaluations, began = 0.0, _clock(device)
    if isinstance(cell.method, str) and cell.method in BASELINES:
        filled = _baseline(cell.method, train, images, missing, cell)
    elif cell.method == REGRESSION:
        if regression is None:
            raise InputError("regression: a network trained with --objective regression is required: --regression FILE")
        filled, evaluations = regress(regression, images, missing), 1.0
    else:
        if len(images) < group.world:
            raise InputError(f"--count: {len(images)} images for {group.world} processes: give at least one each")
        part, spent = group.slice(len(images)), list[int]()
        filled = inpaint(
            model, images[part], missing[part], cell.samples, cell.method, cell.steps, cell.seed, cell.sampler,
            settings=cell.settings, value_range=cell.value_range, progress=progress, count=spent.append,
            first=part.start,
        )  # fmt: skip
        evaluations = group.total(sum(spent)) / (len(images) * cell.samples)
        filled = np.concatenate(group.gather(filled))
    cores = (torch.get_num_threads() if device.type == "cpu" else 1) * (1 if cell.is_baseline else group.world)
    seconds = (_clock(device) - began) * cores / (len(images) * filled.shape[1])
    at = machine(model)
    where = f"{at['device']}, {at['threads']} threads x {group.world}, {at['dtype']}, torch {at['torch']}"
    return Completed(filled, scored, evaluations, seconds, where)


def _without(mask: Mask, holes: Mask) -> tuple[Mask, Mask]:
    """What is scored: the mask without ``holes``; and what is filled: both. Either may be by channel."""
    if mask.ndim != holes.ndim:
        mask, holes = (each if each.ndim == 4 else each[..., None] for each in (mask, holes))
    return mask & ~holes, mask | holes


def _baseline(name: str, train: Images | None, images: Images, mask: Mask, cell: Cell) -> Images:
    if name not in SMOOTH and (train is None or not len(train)):
        raise InputError(f"{name}: training images are required")
    return BASELINES[name](images if train is None else train, images, mask, cell.samples, stream(cell.seed, name))


def _clock(device: torch.device) -> float:
    """The time in seconds, once the device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


# ---- files -----------------------------------------------------------------------------------------------------------


def identity(cell: Cell, about: Mapping[str, str]) -> str:
    """A key for the samples of a cell: hash of the cell, inkfill's version and ``about`` (data, weights, precision)."""
    what = [{**asdict(cell), "settings": dict(cell.settings)}, dict(about), defaults.VERSION]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


def kept(
    folder: Path, cell: Cell, about: Mapping[str, str], run: Callable[[], Completed], group: Processes = ALONE
) -> Completed:
    """The samples of a cell from its file in ``folder``, or from ``run()``, which are then written there.

    The file's name holds the :func:`identity`, so samples of other weights or versions are not found. A damaged file
    is replaced.
    """
    name = "".join(c if c.isalnum() or c in ".-" else "-" for c in f"{cell.mask}_{cell.method}_{cell.steps}")
    path = folder / "cells" / f"{name[:80]}-{identity(cell, about)}.npz"
    found = _read_cell(path) if group.first else None
    if group.from_first(found is not None):
        return group.gather(found)[0]
    done = run()
    if group.first:
        with written_whole(path) as temporary, temporary.open("wb") as file:
            cost = np.array([done.evaluations, done.seconds])
            np.savez_compressed(file, filled=done.filled, mask=done.mask, cost=cost, machine=np.array(done.machine))
    return done


def _read_cell(path: Path) -> Completed | None:
    """The samples in a file; None if it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            filled, mask, cost = file["filled"], file["mask"].astype(bool), file["cost"]
            shapes = [(len(filled), *filled.shape[2:end]) for end in (4, 5)]
            whole = filled.ndim in (4, 5) and mask.shape in shapes
            return Completed(filled, mask, float(cost[0]), float(cost[1]), str(file["machine"])) if whole else None
    except (*NOT_WHOLE, IndexError):
        return None


def forget(folder: Path) -> None:
    """Remove the stored samples of ``folder``; files of other names stay."""
    for path in (folder / "cells").glob("*.npz"):
        if re.search(r"-[0-9a-f]{12}\.npz$", path.name):
            path.unlink()


def machine(model: Prior) -> dict[str, Any]:
    """The software and hardware that samples are drawn with."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": platform.processor() or platform.machine(),
        "device": torch.cuda.get_device_name() if model.device.type == "cuda" else str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }
