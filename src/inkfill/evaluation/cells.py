"""Completions of held-out images, one cell at a time, kept in files.

Generation is separated from scoring by files: completions of a cell (one mask, one method, one number of steps) are
kept beside what they cost, so that an evaluation that was stopped goes on, and a new measure needs no new completions.
"""

import hashlib
import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inkfill import defaults
from inkfill.core.masks import parse
from inkfill.core.rng import stream
from inkfill.data import Images, masks
from inkfill.errors import InputError, shown
from inkfill.evaluation.baselines import BASELINES, regress
from inkfill.files import NOT_WHOLE, written_whole
from inkfill.filling.inpaint import ignore, inpaint
from inkfill.methods import METHODS, find_method
from inkfill.models.model import Model
from inkfill.processes import ALONE, Processes
from inkfill.progress import Progress


@dataclass(frozen=True)
class Cell:
    """One mask, one method, and how it is run."""

    mask: str
    method: str = defaults.METHOD
    steps: int = defaults.STEPS
    samples: int = defaults.SAMPLES
    seed: int = 0
    sampler: str = defaults.SAMPLER
    settings: Mapping[str, float] = field(default_factory=dict, hash=False)  # of the method

    def check(self) -> None:
        """Raise InputError for a mask, a method or a setting that there is not."""
        parse(self.mask)
        if self.method in METHODS:
            find_method(self.method).settings(self.settings)
        elif self.method not in (*BASELINES, "regression"):
            allowed = (*METHODS, *BASELINES, "regression")
            raise InputError(f"unknown method {shown(self.method)!r}: choose from {', '.join(allowed)}")


@dataclass(frozen=True)
class Completed:
    """Completions of a cell, uint8 ``[N, K, H, W]``, their mask, what they cost, and on which machine."""

    filled: Images
    mask: NDArray[np.bool_]
    evaluations: float  # of the network, per completion
    seconds: float  # core-seconds per completion
    machine: str = ""


def complete(
    model: Model,
    images: Images,
    cell: Cell,
    train: Images | None = None,
    regression: Model | None = None,
    group: Processes = ALONE,
    progress: Progress = ignore,
) -> Completed:
    """Run a cell. Diffusion methods are shared by the processes, each a run of images; how many there are changes the
    result by rounding alone. References need ``train``, ``regression`` a network trained for it. Raises InputError.
    """
    cell.check()
    mask, began = masks.fit(cell.mask, images, cell.seed), time.perf_counter()
    evaluations, cores = 0.0, torch.get_num_threads()
    if cell.method in BASELINES:
        if train is None:
            raise InputError(f"{cell.method} needs training images")
        filled = BASELINES[cell.method](train, images, mask, cell.samples, stream(cell.seed, cell.method))
    elif cell.method == "regression":
        if regression is None:
            raise InputError(
                "regression needs a network of its own: train one with inkfill train --objective regression"
            )
        filled, evaluations = regress(regression, images, mask), 1.0
    else:
        filled, evaluations = _shared(model, images, mask, cell, group, progress)
        cores *= group.world
    seconds = (time.perf_counter() - began) * cores / (len(images) * filled.shape[1])
    at = machine(model)
    where = f"{at['device']}, {at['threads']} threads x {group.world}, {at['dtype']}, torch {at['torch']}"
    return Completed(filled, mask, evaluations, seconds, where)


def _shared(
    model: Model,
    images: Images,
    mask: NDArray[np.bool_],
    cell: Cell,
    group: Processes,
    progress: Progress,
) -> tuple[Images, float]:
    """Completions by a diffusion method, each process's share of the images put together; evaluations a completion."""
    if len(images) < group.world:
        raise InputError(f"{len(images)} images cannot be shared by {group.world} processes")
    part = group.slice(len(images))
    spent: list[int] = []
    filled = inpaint(
        model, images[part], mask[part], cell.samples, cell.method, cell.steps, cell.seed, cell.sampler,
        settings=cell.settings, progress=progress, count=spent.append, first=part.start,
    )  # fmt: skip
    evaluations = group.total(sum(spent)) / (len(images) * cell.samples)
    return np.concatenate(group.gather(filled)), evaluations


# ---- kept in files ---------------------------------------------------------------------------------------------------


def identity(cell: Cell, about: Mapping[str, str]) -> str:
    """A key for the samples of a cell: the cell, the version, and ``about``: hashes of data and weights, precision."""
    what = [{**asdict(cell), "settings": dict(cell.settings)}, dict(about), defaults.VERSION]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


def kept(
    folder: Path, cell: Cell, about: Mapping[str, str], run: Callable[[], Completed], group: Processes = ALONE
) -> Completed:
    """The completions of a cell from its file in ``folder``, or from ``run``, and then kept there.

    Its :func:`identity` is part of the file's name: what other weights made, or an earlier form of a method, is never
    found. A file that is damaged is made again.
    """
    name = "".join(c if c.isalnum() or c in ".-" else "-" for c in f"{cell.mask}_{cell.method}_{cell.steps}")
    path = folder / "cells" / f"{name[:80]}-{identity(cell, about)}.npz"
    found = _read_cell(path) if group.first else None
    if group.from_first(found is not None):
        return group.gather(found)[0]
    done = run()
    if group.first:
        with written_whole(path) as temporary, temporary.open("wb") as file:
            cost, machine = np.array([done.evaluations, done.seconds]), np.array(done.machine)
            np.savez_compressed(file, filled=done.filled, mask=done.mask, cost=cost, machine=machine)
    return done


def _read_cell(path: Path) -> Completed | None:
    """A kept cell; None where there is none that is whole."""
    try:
        with np.load(path, allow_pickle=False) as file:
            evaluations, seconds = file["cost"]
            filled, mask = file["filled"], file["mask"]
            if filled.ndim not in (4, 5) or mask.shape != (len(filled), *filled.shape[2:4]):
                return None
            return Completed(filled, mask.astype(bool), float(evaluations), float(seconds), str(file["machine"]))
    except NOT_WHOLE:
        return None


def machine(model: Model) -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": platform.processor() or platform.machine(),
        "device": torch.cuda.get_device_name() if model.device.type == "cuda" else str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }
