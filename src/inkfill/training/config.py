"""Every setting of a training."""

import math
from dataclasses import dataclass, fields
from typing import Any

from inkfill import defaults
from inkfill.data import augment, masks
from inkfill.errors import InputError
from inkfill.rng import check_seed
from inkfill.schedule import Schedule
from inkfill.unet import UNetConfig

WARM = 0.1  # of a run, after which it is warm in any case


@dataclass(frozen=True)
class TrainConfig:
    """A run is its settings: two runs with the same ones end in the same weights, unless the clock ends them."""

    data: str = "auto"  # data set: auto, mnist, rendered, or a path
    data_mask: str = ""  # what of the images was never seen: nan, alpha, a file, or a spec; "" where they are whole
    rounds: int = 4  # of completing such images with the network and going on with the completions
    augment: str = ""  # changes that leave an image what it is: flip, shift, rotate90, with commas between
    masks: str = "training"  # mask mixture, as a spec
    steps: int = 14_000  # optimiser steps
    minutes: float = 0.0  # above 0 the clock decides when a run ends, and not the number of steps
    batch_size: int = 64  # images per step, over all processes
    muon_rate: float = 0.02  # Muon (matrices and convolutions inside the network), at the top of its curve; 0: AdamW
    learning_rate: float = 3e-3  # AdamW (everything else), at the top of its curve
    warmup: int = 200  # steps of linear warm-up (of a short run, its first tenth), before the cosine decay to zero
    weight_decay: float = 0.01  # of both, decoupled
    objective: str = "v"  # what a step minimises: see objectives.py
    clip: float = 1.0  # largest norm of the gradient
    ema: float = 0.9995  # decay of the running mean of the weights, once it is warm
    schedule: str = "cosine"  # noise schedule
    T: int = 1000  # noise levels
    dtype: str = ""  # the network computes in bfloat16 or float32; "" is the faster here. Weights and loss are float32
    seed: int = 0  # of everything random
    low: float | None = None  # of the values: what is black ...
    high: float | None = None  # ... and what is white; by default what the number type or the data say
    start: str = ""  # checkpoint to start from, "shipped" or a path: its weights, its shape and its noise levels
    teacher: str = ""  # checkpoint whose completions a few-step network learns from as well
    pairs: int = 65_536  # conditions that the teacher completes first, twice each
    unet: UNetConfig | None = None  # the shape of the network; by default what suits the size of the images

    def check(self) -> None:
        """Raise InputError, in one line, for a setting that cannot work."""
        for name, low, high in (
            ("steps", 1, 10**8),
            ("minutes", 0, 10**6),
            ("batch_size", 1, 2**16),
            ("learning_rate", 1e-8, 1.0),
            ("muon_rate", 0.0, 1.0),
            ("warmup", 0, 10**8),
            ("clip", 1e-6, 1e6),
            ("ema", 0.0, 1.0),
            ("T", 2, 10**6),
            ("pairs", 1, 10**7),
            ("rounds", 1, 1000),
            ("weight_decay", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} must be from {low:g} to {high:g}, not {value:g}")
        ends = [end for end in (self.low, self.high) if end is not None]
        if ends and not (len(ends) == 2 and -math.inf < ends[0] < ends[1] < math.inf):
            raise InputError(f"a range from {self.low} to {self.high}: LOW must be under HIGH")
        for name, value, known in (
            ("objective", self.objective, defaults.OBJECTIVES),
            ("dtype", self.dtype, ("", *defaults.DTYPES)),
        ):
            if value not in known:
                raise InputError(f"unknown {name} {value!r}: choose {' or '.join(filter(None, known))}")
        if self.data_mask and self.objective not in ("v", "eps"):
            raise InputError("images with holes can be learnt from with the objectives v and eps")
        if self.teacher and self.objective != "few":
            raise InputError("a teacher is of use to the objective few alone")
        if augment.parse(self.augment) and self.objective == "few":
            raise InputError("the objective few takes images as they are: leave --augment out")
        check_seed(self.seed)
        masks.parse(self.masks)
        Schedule.named(self.schedule, self.T)

    def rate(self, step: int, share: float) -> float:
        """Share of the top learning rates: linear warm-up by steps, then a cosine to zero by the share of the run."""
        warm = min(1.0, max((step + 1) / (self.warmup + 1), share / WARM))
        return warm * (0.5 + 0.5 * math.cos(math.pi * share))

    @classmethod
    def read(cls, settings: Any) -> "TrainConfig":
        """Read back what ``asdict`` gave, from JSON. Raises InputError for what is no such table."""
        if not isinstance(settings, dict) or not {*settings} <= {f.name for f in fields(cls)}:
            raise InputError("these are no settings of this version of inkfill train")
        for f in fields(cls):
            kinds = {str: (str,), int: (int,), float: (int, float)}.get(type(f.default), (int, float, type(None)))
            if f.name in settings and f.name != "unet" and not isinstance(settings[f.name], kinds):
                raise InputError(f"the setting {f.name} is {settings[f.name]!r}")
        unet = settings.get("unet")
        return cls(**{**settings, "unet": None if unet is None else UNetConfig.read(unet)})
