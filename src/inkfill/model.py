"""A trained network with its recipe: the thing that ``inkfill.load`` returns, and a prior for every method."""

import copy
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inkfill import defaults
from inkfill.checkpoint import find_checkpoint, load_network
from inkfill.data.images import CHANNELS, MAX_SIDE, MIN_SIDE, ValueRange, check_size
from inkfill.denoiser import Denoiser, Draw, Observation
from inkfill.errors import InputError, shown
from inkfill.schedule import SCHEDULES, Schedule
from inkfill.unet import UNet

NUMBER_TYPES = ("bool", "uint8", "uint16", "float16", "float32", "float64", "int32", "int64")
MAX_T = 10**6  # noise levels
DENOISING = ("v", "eps")  # objectives whose minimiser is the posterior mean
DRAWING = ("few",)  # objectives whose minimiser draws from the posterior


@dataclass(frozen=True)
class Recipe:
    """What a network is: what it reads, how it was trained, how it is run best. Kept as JSON beside the weights."""

    schedule: str = "cosine"
    T: int = 1000  # noise levels
    channels: int = 1
    image_size: tuple[int, int] = (28, 28)  # height and width of the (largest) training images
    least_size: tuple[int, int] = (0, 0)  # the least height and width of any; 0 where all have one size
    value_range: tuple[float, float] = (0.0, 255.0)  # of users' values: what becomes -1 and 1
    number_type: str = "uint8"  # of the training images
    floor: float = 0.0  # values up to it become the lowest (see ValueRange)
    black: float | None = None  # share of training pixels at the lowest value; None where nobody measured it
    objective: str = "v"
    sampler: str = defaults.SAMPLER
    sampling_steps: int = defaults.STEPS
    trained_on: str = "nothing"
    data_hash: str = ""
    step: int = 0  # optimiser steps that made the weights
    batch_size: int = 0
    code_version: str = defaults.VERSION
    training: Mapping[str, Any] = field(default_factory=dict)  # every other setting of the training, as it was

    def to_json(self) -> dict[str, Any]:
        """As it is written into a checkpoint."""
        return asdict(self)

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> "Recipe":
        """From a checkpoint's JSON, of this version or an older one. Raises InputError for a value that cannot be."""
        found = _modern(found)
        names = {f.name for f in fields(cls)} - {"training"}
        recipe = {name: _checked(name, found[name], getattr(cls, name, None)) for name in names if name in found}
        other = {name: value for name, value in found.items() if name not in names and name != "training"}
        training = found.get("training", other)
        if not isinstance(training, dict):
            raise InputError("the recipe's training is no table of settings")
        if recipe.get("schedule", "cosine") not in SCHEDULES:
            raise InputError(f"unknown schedule {shown(recipe['schedule'])!r}: choose one of {', '.join(SCHEDULES)}")
        if not 2 <= recipe.get("T", 1000) <= MAX_T:
            raise InputError(f"a schedule of {recipe['T']} levels: from 2 to {MAX_T:,} can be used")
        if recipe.get("objective", "v") not in defaults.OBJECTIVES:
            raise InputError(f"unknown objective {shown(recipe['objective'])!r}")
        if recipe.get("number_type", "uint8") not in NUMBER_TYPES:
            raise InputError(f"unknown number type {shown(recipe['number_type'])!r}")
        low, high = recipe.get("value_range", (0.0, 255.0))
        if not -math.inf < low < high < math.inf:
            raise InputError(f"a range of values from {low:g} to {high:g}")
        sides, least = recipe.get("image_size", (MIN_SIDE, MIN_SIDE)), recipe.get("least_size", (0, 0))
        if min(sides) < MIN_SIDE or max(sides) > MAX_SIDE or min(least) < 0:
            raise InputError(f"images of {sides[0]}x{sides[1]}: sides are from {MIN_SIDE} to {MAX_SIDE:,}")
        if not 1 <= recipe.get("sampling_steps", 1) <= MAX_T:
            raise InputError(f"{recipe['sampling_steps']} network evaluations a completion: from 1 to {MAX_T:,}")
        return cls(**recipe, training=training)


def _modern(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """A recipe of version 0.1 as one of today: there, objective and weighting shared a name."""
    if found.get("objective", "noise") != "noise":
        return found
    return {**found, "objective": {"noise": "eps"}.get(found.get("weighting", "noise"), "v")}


def _checked(name: str, value: Any, like: Any) -> Any:
    """A value of a recipe, of the type of its default. Raises InputError."""
    kinds: dict[type, tuple[type, ...]] = {int: (int,), float: (int, float), str: (str,), type(None): (int, float)}
    if isinstance(like, tuple):
        kind = kinds[type(like[0])]
        good = isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(v, kind) for v in value)
        try:
            return tuple(type(like[0])(v) for v in value) if good else _refuse(name, value)
        except OverflowError:  # a whole number that no float can be
            return _refuse(name, value)
    good = isinstance(value, kinds[type(like)]) and not isinstance(value, bool)
    return value if good or (like is None and value is None) else _refuse(name, value)


def _refuse(name: str, value: Any) -> Any:
    raise InputError(f"the recipe's {name} is {shown(str(value)[:60])!r}, which cannot be")


class Model:
    """A trained network with the schedule it was trained on.

    ``conditional(observation)`` and ``unconditional(like)`` give denoisers. ``dtype`` is what the network computes in
    (bfloat16 or float32; by default the faster one here); states stay float32. The network that is given stays as it
    is: the model has a copy.
    """

    bounded = True  # clean images lie in [-1, 1]

    def __init__(
        self,
        net: UNet,
        recipe: Recipe | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ):
        self.recipe = recipe or Recipe(channels=net.config.channels)
        self.device = torch.device(device)
        self.dtype = dtype or fast_dtype(self.device)
        self.schedule = Schedule.named(self.recipe.schedule, self.recipe.T)
        self.net = copy.deepcopy(net).eval().requires_grad_(False).to(self.device, self.dtype)

    @property
    def channels(self) -> int:
        """Of an image."""
        return self.recipe.channels

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images that the network was trained on."""
        return self.recipe.image_size

    @cached_property
    def value_range(self) -> ValueRange:
        """How users' values become x0 and back."""
        return ValueRange(*self.recipe.value_range, self.recipe.floor)

    @property
    def number_type(self) -> str:
        """That of the training images."""
        return self.recipe.number_type

    @property
    def draws(self) -> bool:
        """Whether the network draws from p(x0 given x_t and what is known), and gives no mean of it."""
        return self.recipe.objective in DRAWING

    @property
    def method(self) -> str:
        """The method that suits the network best."""
        return "few" if self.draws else defaults.METHOD

    @property
    def sampler(self) -> str:
        """The sampler that suits the network best."""
        return self.recipe.sampler

    @property
    def steps(self) -> int:
        """The number of steps that suits it best."""
        return self.recipe.sampling_steps

    def __repr__(self) -> str:
        r, count = self.recipe, sum(p.numel() for p in self.net.parameters())
        size = "x".join(map(str, r.image_size))
        return (
            f"<inkfill model: {count / 1e6:.2f} M parameters for {CHANNELS[r.channels]} images of {size}, trained on "
            f"{shown(r.trained_on)} ({r.step:,} steps of {r.batch_size}, objective {r.objective}); "
            f"{str(self.dtype).removeprefix('torch.')} on {self.device}; {r.sampler} with {r.sampling_steps} steps; "
            'run it: inkfill.inpaint(model, images, "half:left")>'
        )

    def conditional(self, observation: Observation) -> Denoiser:
        """The posterior mean given x_t and what is known. Known pixels come out exactly as they went in.

        Raises InputError for a network that was trained for something else, and for a size that it cannot take.
        """
        if self.draws:
            raise InputError("few-step weights draw completions and have no posterior mean: use the method few")
        if self.recipe.objective not in DENOISING:
            raise InputError(
                f"this network was trained with the objective {self.recipe.objective}, and this needs v or eps"
            )
        return self.predictor(observation)

    def unconditional(self, like: Tensor) -> Denoiser:
        """The prior's denoiser, for states of the shape of ``like``: the same network with everything hidden."""
        return self.conditional(Observation.nothing(like))

    def draw(self, observation: Observation) -> Draw:
        """Draws from p(x0 given x_t and what is known). Raises InputError for a network that gives means."""
        if not self.draws:
            raise InputError("these weights give posterior means and no draws: use another method than few")
        return self.predictor(observation)

    def predictor(self, observation: Observation) -> Draw:
        """What the network says of x0, whatever it was trained for. Raises InputError for a size it cannot take."""
        height, width = observation.pixels.shape[-2:]
        check_size(height, width, "images")
        pixels, known = observation.pixels.to(self.dtype), observation.known[:, :1].to(self.dtype)
        embedded = self.net.embed(pixels, known)

        def predict(x_t: Tensor, t: int, fresh: Tensor | None = None) -> Tensor:
            level = torch.tensor([t / self.schedule.T], device=self.device)
            noise = None if fresh is None else fresh.to(self.dtype)
            v = self.net(x_t.to(self.dtype), pixels, known, level, embedded, noise)
            return torch.where(observation.known, observation.pixels, self.schedule.x0_from_v(x_t, t, v))

        return predict


def load(path: Path | str | None = None, device: str | None = None, dtype: torch.dtype | str | None = None) -> Model:
    """A model from a checkpoint, on CUDA where there is one, else on the CPU.

    ``path`` is a file, or the name of shipped weights: ``mnist`` (the default), or ``mnist-few``, which completes in
    one or two evaluations.

    ``device`` is cpu, cuda, cuda:N or mps; ``dtype`` defaults to the faster of bfloat16 and float32 (see
    :func:`fast_dtype`). Raises InputError.
    """
    source = find_checkpoint(path)
    net, found = load_network(source)
    try:
        recipe = Recipe.read(found)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    chosen = find_device(device)
    return Model(net, replace(recipe, channels=net.config.channels), chosen, find_dtype(dtype, chosen))


def find_device(name: str | None) -> torch.device:
    """A device by name; without one, CUDA where there is one, else the CPU. Raises InputError."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    try:
        chosen = torch.device(name or ("cuda" if cuda else "cpu"))
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"unknown device {name!r}: use cpu, cuda, cuda:N or mps")
    there = {
        "cpu": (chosen.index or 0) == 0,
        "cuda": cuda and (chosen.index or 0) < torch.cuda.device_count(),
        "mps": mps and (chosen.index or 0) == 0,
    }
    if not there[chosen.type]:
        raise InputError(f"there is no device {name} here that this build of torch can use: use cpu")
    return chosen


def find_dtype(name: torch.dtype | str | None, device: torch.device) -> torch.dtype:
    """What to compute in: ``float32`` or ``bfloat16``; without a name, the faster one here. Raises InputError."""
    if name is None:
        return fast_dtype(device)
    text = str(name).removeprefix("torch.")
    if text not in defaults.DTYPES:
        raise InputError(f"unknown number type {text!r}: use {' or '.join(defaults.DTYPES)}")
    return torch.bfloat16 if text == "bfloat16" else torch.float32


def fast_dtype(device: torch.device) -> torch.dtype:
    """The faster of bfloat16 and float32, by a rule that gives the same answer in every run on a machine.

    A flag that says that a processor knows bfloat16 does not say that it is fast. Measured (docs/speed.md): with AMX
    bfloat16 fills several times as many images a second, with AMD's AVX512-BF16 nearly twice as many, and with Intel's
    AVX512-BF16 where AMX is switched off only two thirds. So: CUDA as torch says, AMX, AMD; float32 elsewhere.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type != "cpu":
        return torch.float32
    can = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    amd = can.get("cpu_name", platform.processor()).startswith("AMD")
    fast = can.get("amx_bf16", False) or (can.get("avx512_bf16", False) and amd)
    return torch.bfloat16 if fast else torch.float32
