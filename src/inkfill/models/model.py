"""A trained network with its recipe: the object that ``inkfill.load`` returns, and a prior for every method."""

import copy
import math
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inkfill import defaults
from inkfill.core.denoiser import ConditionalPrior, Denoiser, Draw, GenerativePrior, Observation
from inkfill.core.guidance import INTERVAL, WEIGHT, Guided
from inkfill.core.objectives import ESTIMATE, MEAN, OBJECTIVES
from inkfill.core.schedule import SCHEDULES, Schedule
from inkfill.core.unet import UNet
from inkfill.data.images import DTYPES, MAX_SIDE, MIN_SIDE, TRANSFORMS, ValueRange, channel_words, check_size
from inkfill.errors import InputError, shown
from inkfill.models.checkpoint import find_checkpoint, load_network

MAX_T = 10**6  # timesteps


@dataclass(frozen=True)
class Recipe:
    """What a network reads, how it was trained and how it is sampled; stored as JSON beside the weights."""

    schedule: str = "cosine"
    T: int = 1000  # timesteps
    channels: int = 1
    image_size: tuple[int, int] = (28, 28)  # height and width of the (largest) training images
    least_size: tuple[int, int] = (0, 0)  # smallest height and width; 0 where all images have one size
    value_range: tuple[float, float] = (0.0, 255.0)  # users' values that become -1 and 1
    number_type: str = "uint8"  # dtype of the training images
    floor: float = 0.0  # values up to it become the lowest (see ValueRange)
    transform: str = ""  # of the values, before they are scaled: log1p, asinh or none
    black: float | None = None  # fraction of training pixels at the lowest value; None if unknown
    objective: str = "v"
    sampler: str = defaults.SAMPLER
    sampling_steps: int = defaults.STEPS
    trained_on: str = "nothing"
    data_hash: str = ""
    step: int = 0  # optimiser steps
    batch_size: int = 0
    code_version: str = defaults.VERSION
    training: Mapping[str, Any] = field(default_factory=dict)  # the other settings of the training

    def to_json(self) -> dict[str, Any]:
        """As stored in a checkpoint."""
        return asdict(self)

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> "Recipe":
        """From the JSON of a checkpoint. Raises InputError for an impossible value."""
        standard = asdict(cls())
        other = {name: value for name, value in found.items() if name not in standard}
        given = {}
        for name, value in {"training": other, **found}.items():
            if name in standard:
                try:
                    given[name] = _like(standard[name], value)
                except (TypeError, ValueError, OverflowError):
                    raise _impossible(name, value) from None
        recipe = cls(**given)
        low, high = recipe.value_range
        possible = {
            "schedule": recipe.schedule in SCHEDULES,
            "T": 2 <= recipe.T <= MAX_T,
            "image_size": MIN_SIDE <= min(recipe.image_size) <= max(recipe.image_size) <= MAX_SIDE,
            "least_size": min(recipe.least_size) >= 0,
            "transform": recipe.transform in ("", *TRANSFORMS),
            "value_range": -math.inf < low < high < math.inf and (low >= 0 or recipe.transform != "log1p"),
            "number_type": recipe.number_type in DTYPES,
            "sampling_steps": 1 <= recipe.sampling_steps <= MAX_T,
        }
        for name, good in possible.items():
            if not good:
                raise _impossible(name, getattr(recipe, name))
        return recipe


def _like(default: Any, value: Any) -> Any:
    """A value in the type of its default; None stands for an optional number. Raises TypeError or ValueError."""
    if isinstance(default, tuple):
        return tuple(_like(*pair) for pair in zip(default, value, strict=True))
    if default is None and value is None:
        return None
    kind = float if default is None else type(default)
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
        raise TypeError
    return kind(value)


def _impossible(name: str, value: Any) -> InputError:
    return InputError(f"the recipe's {name} cannot be {shown(str(value)[:60])!r}")


class Model(ConditionalPrior, GenerativePrior):
    """A trained network with the schedule it was trained on.

    ``conditional(observation)`` and ``unconditional(like)`` give denoisers, ``draw(observation)`` samples of a few-step
    model. ``dtype`` is the compute precision, bfloat16 or float32 (by default the faster one here); states stay
    float32. The model holds a copy of the network.
    """

    bounded = True
    image_size: tuple[int, int]
    planes: int
    method: str
    sampler: str
    steps: int

    def __init__(
        self,
        net: UNet,
        recipe: Recipe | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | str | None = None,
    ):
        self.recipe = recipe or Recipe(channels=net.config.channels)
        self.device = torch.device(device)
        self.dtype = find_dtype(dtype, self.device)
        self.schedule = Schedule.named(self.recipe.schedule, self.recipe.T)
        self.net = copy.deepcopy(net).eval().requires_grad_(False).to(self.device, self.dtype)
        self.channels, self.image_size = self.recipe.channels, self.recipe.image_size
        self.planes = net.config.planes
        self.value_range = ValueRange(*self.recipe.value_range, self.recipe.floor, self.recipe.transform)
        self.image_dtype = self.recipe.number_type
        self.generative = net.config.latent
        self.method = "few" if self.generative else defaults.METHOD
        self.sampler, self.steps = self.recipe.sampler, self.recipe.sampling_steps

    @property
    def gives(self) -> str:
        """What the network predicts: a posterior mean, a sample or an estimate."""
        known = OBJECTIVES.get(self.recipe.objective)
        return "sample" if self.generative else known.gives if known else ESTIMATE

    def __repr__(self) -> str:
        r, count = self.recipe, sum(p.numel() for p in self.net.parameters())
        size = "x".join(map(str, r.image_size))
        return (
            f"<inkfill model: {count / 1e6:.2f} M parameters for {channel_words(r.channels)} images of {size}, "
            f"trained on {shown(r.trained_on)} ({r.step:,} steps of {r.batch_size}, objective {shown(r.objective)}); "
            f"{str(self.dtype).removeprefix('torch.')} on {self.device}; {r.sampler} with {r.sampling_steps} steps; "
            'run it: inkfill.inpaint(model, images, "half:left")>'
        )

    def guided(self, guide: "Model", weight: float = WEIGHT, interval: tuple[float, float] = INTERVAL) -> "Model":
        """This model, guided by a poorer one: :class:`~inkfill.core.guidance.Guided`, two networks an evaluation.

        It gives no exact posterior means, and is not saved or exported. Raises InputError for models that do not fit.
        """
        if not (self.gives == guide.gives == MEAN):
            raise InputError("guidance: needs two networks trained with v or eps")
        if (self.recipe.schedule, self.recipe.T) != (guide.recipe.schedule, guide.recipe.T):
            raise InputError("guidance: the networks were trained with different noise schedules")
        found = copy.copy(self)
        found.net = Guided(self.net, guide.net, weight, interval).eval()  # type: ignore[assignment]
        found.source = None
        return found

    def conditional(self, observation: Observation) -> Denoiser:
        """The posterior mean given x_t and the observed pixels. Observed pixels come out as they went in.

        Raises InputError for a network without posterior means, and for an unsupported size.
        """
        if self.generative:
            raise InputError("a few-step model has no posterior mean: use the method few")
        if self.gives != MEAN:
            name = shown(self.recipe.objective)
            raise InputError(f"objective {name}, which gives no posterior mean: use a network trained with v or eps")
        return self.predictor(observation)

    def unconditional(self, like: Tensor) -> Denoiser:
        """The prior's denoiser for states in the shape of ``like``: the same network with every pixel masked."""
        return self.conditional(Observation.nothing(like))

    def draw(self, observation: Observation) -> Draw:
        """Samples of p(x0 given x_t and the observed pixels). Raises InputError for a network that gives means."""
        if not self.generative:
            raise InputError("this network gives posterior means and no samples: use another method than few")
        return self.predictor(observation)

    def predictor(self, observation: Observation) -> Callable[..., Tensor]:
        """x0 as the network predicts it, whatever its objective. Raises InputError for an unsupported size."""
        height, width = observation.pixels.shape[-2:]
        check_size(height, width, "images")
        pixels, known = observation.pixels.to(self.dtype), observation.planes(self.planes).to(self.dtype)
        embedded = self.net.embed(pixels, known)

        def predict(x_t: Tensor, t: int, latent: Tensor | None = None) -> Tensor:
            time = torch.tensor([t / self.schedule.T], device=self.device)
            noise = None if latent is None else latent.to(self.dtype)
            v = self.net(x_t.to(self.dtype), pixels, known, time, embedded, noise)
            return torch.where(observation.known, observation.pixels, self.schedule.x0_from_v(x_t, t, v))

        return predict


def load(path: Path | str | None = None, device: str | None = None, dtype: torch.dtype | str | None = None) -> Model:
    """A model from a checkpoint, on CUDA if available, else on the CPU.

    ``path`` is a file, the folder of a run, or the name of shipped weights: ``mnist`` (the default), ``mnist-guided``
    (fewer malformed digits; no exact posterior mean), or the few-step model ``mnist-few``. ``device`` is cpu, cuda,
    cuda:N or mps; ``dtype`` is bfloat16 or float32, by default the faster one (:func:`find_dtype`). Raises InputError.
    """
    source = find_checkpoint(path)
    net, found = load_network(source)
    try:
        recipe = Recipe.read(found)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    model = Model(net, replace(recipe, channels=net.config.channels), find_device(device), dtype)
    model.source = source
    return model


def find_device(name: str | None) -> torch.device:
    """A device by name; by default CUDA if available, else the CPU. Raises InputError."""
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    count = {"cpu": 1, "cuda": cuda, "mps": int(torch.backends.mps.is_available())}
    try:
        chosen = torch.device(name or ("cuda" if cuda else "cpu"))
        available = (chosen.index or 0) < count[chosen.type]
    except (RuntimeError, KeyError):
        raise InputError(f"unknown device {name!r}: use cpu, cuda, cuda:N or mps") from None
    if not available:
        raise InputError(f"device {name} is not available to this build of torch: use cpu")
    return chosen


def find_dtype(name: torch.dtype | str | None, device: torch.device) -> torch.dtype:
    """The compute precision, float32 or bfloat16; by default the faster one, by a rule with one answer per machine.

    The rule: CUDA as torch says, bfloat16 for AMX and for AMD's AVX512-BF16, float32 elsewhere. Measured
    (reports/speed.md): bfloat16 fills several times as many images a second with AMX, and nearly twice as many with
    AMD's AVX512-BF16, but two thirds as many with Intel's AVX512-BF16 without AMX. Raises InputError.
    """
    if name is not None:
        text = str(name).removeprefix("torch.")
        if text not in defaults.DTYPES:
            raise InputError(f"unknown dtype {text!r}: use {' or '.join(defaults.DTYPES)}")
        fast = text == "bfloat16"
    elif device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    else:
        can = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        amd = can.get("cpu_name", platform.processor()).startswith("AMD")
        fast = device.type == "cpu" and (can.get("amx_bf16", False) or (can.get("avx512_bf16", False) and amd))
    return torch.bfloat16 if fast else torch.float32
