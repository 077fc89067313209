"""The settings of a training run, checked."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from inkfill import defaults
from inkfill.core import masks
from inkfill.core.objectives import MEAN, OBJECTIVES
from inkfill.core.rng import check_seed
from inkfill.core.schedule import Schedule
from inkfill.core.unet import UNetConfig
from inkfill.data import augment
from inkfill.data.images import TRANSFORMS
from inkfill.errors import InputError

WARM = 0.1  # fraction of a run by which warm-up ends in any case


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a run. Two runs by steps with equal settings end in the same weights."""

    data: str = "auto"  # data set: auto, mnist, rendered, or a path
    data_mask: str = ""  # missing pixels of the images: nan, alpha, value:V, a file, a spec; "" if none
    rounds: int = 4  # EM rounds, for incomplete images
    augment: str = ""  # label-preserving augmentation: flip, shift, rotate90, separated by commas
    masks: str = "training"  # mask mixture, as a spec
    steps: int = 14_000  # optimiser steps
    minutes: float = 0.0  # if positive, the run ends by the clock and ``steps`` is ignored
    batch_size: int = 64  # images per step, over all processes
    muon_rate: float = 0.02  # peak rate of Muon (inner matrices and convolutions); 0 leaves all to AdamW
    learning_rate: float = 3e-3  # peak rate of AdamW (all other parameters)
    warmup: int = 200  # steps of linear warm-up (at most a tenth of the run)
    decay: float = 1.0  # last fraction of the run, in which the rate falls to zero; below 1 the run can be extended
    weight_decay: float = 0.01  # of all parameters, decoupled
    objective: str = "v"  # see core/objectives.py and training/few.py
    clip: float = 1.0  # largest norm of the gradient
    ema: float = 0.9995  # decay of the EMA of the weights, per step
    schedule: str = "cosine"  # noise schedule
    T: int = 1000  # timesteps
    dtype: str = ""  # compute precision, bfloat16 or float32; "" is the faster one. Weights and loss are float32
    seed: int = 0  # random seed
    low: float | None = None  # data range: the value that becomes -1; by default from the dtype or the data
    high: float | None = None  # the value that becomes 1
    floor: float | None = None  # samples up to low + floor become low; by default 4 for uint8 with an exact background
    transform: str = ""  # of the values, for a large dynamic range: log1p, asinh or none
    start: str = ""  # checkpoint to start from, a name or a path: its weights, architecture and noise schedule
    teacher: str = ""  # checkpoint whose samples a few-step model learns from too
    pairs: int = 65_536  # masked images that the teacher fills first, twice each
    unet: UNetConfig | None = None  # architecture; by default by the size of the images

    def check(self) -> None:
        """Raise InputError for an impossible setting."""
        for name, low, high in (
            ("steps", 1, 10**8),
            ("minutes", 0, 10**6),
            ("batch_size", 1, 2**16),
            ("learning_rate", 1e-8, 1.0),
            ("muon_rate", 0.0, 1.0),
            ("warmup", 0, 10**8),
            ("decay", 0.01, 1.0),
            ("clip", 1e-6, 1e6),
            ("ema", 0.0, 1.0),
            ("T", 2, 10**6),
            ("pairs", 1, 10**7),
            ("rounds", 1, 1000),
            ("weight_decay", 0.0, 1.0),
            ("floor", 0.0, 1e9),
        ):
            value = getattr(self, name)
            if value is None:
                continue
            if not low <= value <= high:
                raise InputError(f"--{name.replace('_', '-')} {value:g}: give a number from {low:g} to {high:g}")
        ends = [end for end in (self.low, self.high) if end is not None]
        if ends and not (len(ends) == 2 and -math.inf < ends[0] < ends[1] < math.inf):
            raise InputError(f"--range {self.low} {self.high}: LOW must be below HIGH, both finite")
        for name, value, known in (
            ("objective", self.objective, tuple(OBJECTIVES)),
            ("dtype", self.dtype, ("", *defaults.DTYPES)),
            ("transform", self.transform, ("", *TRANSFORMS)),
        ):
            if value not in known:
                raise InputError(f"--{name} {value}: unknown {name}: choose from {', '.join(filter(None, known))}")
        if self.data_mask and OBJECTIVES[self.objective].gives != MEAN:
            raise InputError(f"--objective {self.objective}: --data-mask requires v or eps")
        if self.teacher and self.objective != "few":
            raise InputError(f"--objective {self.objective}: --teacher requires few")
        if augment.parse(self.augment) and self.objective == "few":
            raise InputError("--objective few: --augment is not supported: leave it out")
        check_seed(self.seed)
        masks.parse(self.masks)
        Schedule.named(self.schedule, self.T)

    def rate(self, step: int, share: float) -> float:
        """The fraction of the peak learning rates: linear warm-up by steps, cosine decay by ``share`` of the run.

        With ``decay`` below 1 the rate is constant in between (Hu et al. 2024, "MiniCPM", section 4).
        """
        warm = min(1.0, max((step + 1) / (self.warmup + 1), share / WARM))
        fallen = max(0.0, share - (1 - self.decay)) / self.decay
        return warm * (0.5 + 0.5 * math.cos(math.pi * fallen))

    def decays(self, share: float) -> bool:
        """Whether the run has a constant rate and the decay after it has begun."""
        return self.decay < 1 and share >= 1 - self.decay

    def extended(self, minutes: float, steps: int, state: Mapping[str, Any]) -> "TrainConfig":
        """The settings of a run that goes on from ``state`` for more minutes or steps. Raises InputError."""
        if self.decay == 1:
            raise InputError("the rate of this run falls from its start: to extend a run, train it with --decay 0.2")
        if bool(minutes) != bool(self.minutes):
            unit = "--minutes" if self.minutes else "--steps"
            raise InputError(f"this run was trained by {unit}: extend it by {unit}")
        more, done = (minutes, state["seconds"] / 60) if minutes else (steps, state["step"])
        least = math.ceil(self.decay * done / (1 - self.decay))
        if more < least:
            raise InputError(
                f"{more:g} more: too few for the decay, {self.decay:.0%} of the run: give at least {least}"
            )
        return replace(self, minutes=done + more) if minutes else replace(self, steps=done + more)

    @classmethod
    def read(cls, settings: Any) -> "TrainConfig":
        """The settings from the JSON of ``asdict``. Raises InputError."""
        if not isinstance(settings, dict) or not {*settings} <= {f.name for f in fields(cls)}:
            raise InputError("settings of another version of inkfill train: start again without --resume")
        for f in fields(cls):
            kinds = {str: (str,), int: (int,), float: (int, float)}.get(type(f.default), (int, float, type(None)))
            if f.name in settings and f.name != "unet" and not isinstance(settings[f.name], kinds):
                raise InputError(f"setting {f.name}: wrong type: {settings[f.name]!r}")
        unet = settings.get("unet")
        return cls(**{**settings, "unet": None if unet is None else UNetConfig.read(unet)})
