"""Our networks for other programs: ``inkfill export`` writes ONNX with every coefficient, or a folder of diffusers."""

import importlib
import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from inkfill import defaults
from inkfill.checkpoint import folder_written_whole
from inkfill.data.images import CHANNELS
from inkfill.errors import InputError, shown
from inkfill.model import DENOISING, Model
from inkfill.rng import stream
from inkfill.samplers import find_sampler, spaced_levels
from inkfill.unet import UNet

OPSET = 18
TOLERANCE = 1e-3  # of v, between torch and onnxruntime; it is usually 1e-5
SIZES = ((1, 7, 7), (3, 2, 10), (2, 12, 5))  # rows, and sides in multiples, that an export is checked with
DIFFUSERS_SCHEDULES = {  # ours as they are called there
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "linear": {"beta_schedule": "linear"},
}


def _needed(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise InputError(f"this export needs the package {package}: pip install inkfill[export]") from None


# ---- ONNX ------------------------------------------------------------------------------------------------------------


class _Embed(nn.Module):
    """The call that is made once for an observation."""

    def __init__(self, net: UNet):
        super().__init__()
        self.net = net

    def forward(self, known_pixels: Tensor, known_map: Tensor) -> Tensor:
        return self.net.embed(known_pixels, known_map)


class _Step(nn.Module):
    """The call that is made at every level."""

    def __init__(self, net: UNet):
        super().__init__()
        self.net = net

    def forward(
        self, x_t: Tensor, known_map: Tensor, level: Tensor, embedded: Tensor, fresh: Tensor | None = None
    ) -> Tensor:
        v: Tensor = self.net(x_t, x_t, known_map, level, embedded, fresh)
        return v


def write_onnx(model: Model, out: Path, sampler: str | None = None, steps: int | None = None) -> None:
    """Write ``embed.onnx``, ``step.onnx``, ``sampler.json`` and a model card into the folder ``out``, whole or not.

    ``model`` computes in float32, on the CPU. Batch, height and width are free; sides are multiples of
    4, of deeper networks of 8 or 16. The files are run in onnxruntime on several shapes before they are given out.
    Raises InputError.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        _needed(package)
    _check_objective(model)
    table = coefficients(model, sampler or model.sampler, steps or model.steps)
    with folder_written_whole(out) as folder:
        for name, module in (("embed", _Embed(model.net)), ("step", _Step(model.net))):
            _export(module.eval(), _examples(model, name, 2, 7, 8), folder / f"{name}.onnx", model.net.config.multiple)
        (folder / "sampler.json").write_text(json.dumps(table, indent=1), encoding="utf-8")
        (folder / "README.md").write_text(
            card(model, ONNX_CARD.replace("MULTIPLE", str(model.net.config.multiple))), encoding="utf-8"
        )
        _check_onnx(model, folder)


def _check_objective(model: Model) -> None:
    if not model.draws and model.recipe.objective not in DENOISING:
        raise InputError(f"a network of the objective {model.recipe.objective} completes nothing: export another")


def _examples(model: Model, name: str, rows: int, tall: int, wide: int) -> dict[str, Tensor]:
    """Inputs of a call, by name; the sides in multiples."""
    height, width = tall * model.net.config.multiple, wide * model.net.config.multiple
    rng, channels = stream(0, "export", rows, height, width), model.channels
    x_t, fresh = (torch.from_numpy(rng.standard_normal((rows, channels, height, width), np.float32)) for _ in range(2))
    known = torch.from_numpy((rng.random((rows, 1, height, width)) < 0.5).astype(np.float32))
    pixels = x_t.clamp(-1, 1) * known
    if name == "embed":
        return {"known_pixels": pixels, "known_map": known}
    with torch.no_grad():
        embedded = model.net.embed(pixels, known).contiguous()
    given = {"x_t": x_t, "known_map": known, "level": torch.tensor([0.3]), "embedded": embedded}
    return given | ({"fresh": fresh} if model.draws else {})


def _export(module: nn.Module, examples: dict[str, Tensor], path: Path, multiple: int) -> None:
    dim = torch.export.Dim
    batch, height, width = dim("batch"), *(multiple * dim(name, min=2, max=4096) for name in "hw")
    shapes: dict[str, Any] = {name: {0: batch, 2: height, 3: width} for name in examples}
    shapes |= {"level": {}, "embedded": {0: batch, 2: dim.AUTO, 3: dim.AUTO}}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is not there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names of axes, and of torch's own deprecations
        program = torch.onnx.export(
            module,
            kwargs=examples,
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            dynamic_shapes={name: shapes[name] for name in examples},
            input_names=list(examples),
            output_names=["embedded" if isinstance(module, _Embed) else "v"],
        )
    assert program is not None
    program.save(str(path), include_initializers=True, external_data=False)


def _check_onnx(model: Model, folder: Path) -> None:
    """Raise InputError where onnxruntime does not say what torch says."""
    runtime = _needed("onnxruntime")
    for name, module in (("embed", _Embed(model.net)), ("step", _Step(model.net))):
        session = runtime.InferenceSession((folder / f"{name}.onnx").read_bytes(), providers=["CPUExecutionProvider"])
        for size in SIZES:
            given = _examples(model, name, *size)
            with torch.no_grad():
                wanted = module(**given).numpy()
            (found,) = session.run(None, {key: value.numpy() for key, value in given.items()})
            off = float(np.abs(found - wanted).max())
            if not off < TOLERANCE:
                raise InputError(f"{name}.onnx is off by {off:.1e} at {size}: nothing was written")


def coefficients(model: Model, sampler: str, steps: int) -> dict[str, Any]:
    """Every number that a run of the sampler needs, so that whoever runs the network writes no formula.

    Each step says at which ``level`` the network is asked and how x0 and the next state follow:
    ``x0 = signal * x - noise * v`` (clipped to [-1, 1], known pixels put in), ``x = x * c_x + x0 * c_x0 + (x0 of the
    step before) * c_before + (new noise) * c_noise``. Raises InputError.
    """
    schedule, levels = model.schedule, spaced_levels(model.schedule.T, steps)
    rows = _few_rows(model, levels) if model.draws else _sampler_rows(model, sampler, levels)
    for row, t in zip(rows, levels, strict=False):
        a = float(schedule.alpha_bar[t])
        row |= {"t": t, "level": t / schedule.T, "signal": a**0.5, "noise": (1 - a) ** 0.5}
    recipe = model.recipe
    return {
        "format": "inkfill-sampler-1",
        "sampler": "few" if model.draws else sampler,
        "channels": model.channels,
        "image_size": list(model.image_size),
        "black": recipe.value_range[0],  # becomes -1 ...
        "white": recipe.value_range[1],  # ... and this 1
        "floor": recipe.floor,  # values up to it, as a distance from black, become black
        "fresh": model.draws,  # whether a step takes new noise where c_fresh is 1
        "steps": rows,
    }


def _sampler_rows(model: Model, sampler: str, levels: Sequence[int]) -> list[dict[str, Any]]:
    """A sampler is linear in what it is given, so its coefficients are read off a run on the vectors of a basis.

    The basis: the state to begin with, then the prediction and the new noise of every step.
    """
    n = len(levels) - 1
    basis = torch.eye(1 + 2 * n, dtype=torch.float64)
    states, predictions, noises = [], iter(basis[1 : n + 1]), iter(basis[n + 1 :])
    drawn: list[int] = []

    def denoise(x: Tensor, t: int) -> Tensor:
        states.append(x)
        return next(predictions)

    def noise() -> Tensor:
        drawn.append(len(states) - 1)
        return next(noises)

    states.append(find_sampler(sampler)(denoise, basis[0], model.schedule, levels, noise))
    rows = []
    for i, (x, following) in enumerate(pairwise(states)):
        c_x = float(following[0] / x[0])
        rest = following - c_x * x
        c_noise = float(rest[n + 1 + drawn.index(i)]) if i in drawn else 0.0
        c_before = float(rest[i]) if i else 0.0
        rows.append({"c_x": c_x, "c_x0": float(rest[1 + i]), "c_before": c_before, "c_noise": c_noise, "c_fresh": 0})
    return rows


def _few_rows(model: Model, levels: Sequence[int]) -> list[dict[str, Any]]:
    """Of few-step weights: the draw is noised to the next level, and below level T it has noise of its own."""
    rows = []
    for t, s in pairwise(levels):
        a = float(model.schedule.alpha_bar[s])
        fresh = int(t < model.schedule.T)
        rows.append({"c_x": 0.0, "c_x0": a**0.5, "c_before": 0.0, "c_noise": (1 - a) ** 0.5, "c_fresh": fresh})
    return rows


# ---- diffusers -------------------------------------------------------------------------------------------------------


def write_diffusers(model: Model, out: Path) -> None:
    """Write a folder that ``DDPMPipeline.from_pretrained`` reads, for new images from nothing, whole or not at all.

    Raises InputError for few-step weights, which are no denoiser.
    """
    _needed("diffusers")
    if model.recipe.objective not in DENOISING:
        raise InputError(f"a network of the objective {model.recipe.objective} is no denoiser: diffusers cannot use it")
    if model.recipe.schedule == "linear" and model.recipe.T != 1000:
        raise InputError("a linear schedule of other than 1,000 levels is another one in diffusers")
    from inkfill.diffusers_unet import InkfillUNet

    net = InkfillUNet(
        sample_size=model.image_size,
        in_channels=model.channels,
        out_channels=model.channels,
        num_train_timesteps=model.schedule.T,
        unet=asdict(model.net.config),
    )
    net.net.load_state_dict(model.net.float().state_dict())
    version = _needed("diffusers").__version__
    scheduler = {
        "_class_name": "DDPMScheduler",
        "_diffusers_version": version,
        "num_train_timesteps": model.schedule.T,
        "prediction_type": "v_prediction",
        "clip_sample": True,
        **DIFFUSERS_SCHEDULES[model.recipe.schedule],
    }
    index = {
        "_class_name": "DDPMPipeline",
        "_diffusers_version": version,
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["inkfill.diffusers_unet", "InkfillUNet"],
    }
    with folder_written_whole(out) as folder:
        try:
            net.save_pretrained(folder / "unet", safe_serialization=True)
        except SafetensorError as error:
            raise InputError(f"{out}: cannot be written ({error})") from None
        (folder / "scheduler").mkdir()
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler, indent=1))
        (folder / "model_index.json").write_text(json.dumps(index, indent=1))
        (folder / "README.md").write_text(card(model, DIFFUSERS_CARD), encoding="utf-8")


# ---- the model card --------------------------------------------------------------------------------------------------

ONNX_CARD = """
`embed.onnx` takes the known pixels (0 where missing) and the known map (1 where known) and is run once; `step.onnx` is
run at every level and gives v. Sides are multiples of MULTIPLE: mirror other images at their lower and right edges, and
cut the result back. `sampler.json` has every number that a run needs:

```python
pixels, known = ...  # float32 [B, C, H, W] in [-1, 1], 0 where missing; [B, 1, H, W]
(embedded,) = embed.run(None, {"known_pixels": pixels, "known_map": known})
x, before = rng.standard_normal(pixels.shape, np.float32), 0.0
for step in table["steps"]:
    given = {"x_t": x, "known_map": known, "level": np.array([step["level"]], np.float32), "embedded": embedded}
    if table["fresh"]:
        given["fresh"] = step["c_fresh"] * rng.standard_normal(x.shape, np.float32)
    (v,) = net.run(None, given)
    x0 = np.where(known > 0, pixels, (step["signal"] * x - step["noise"] * v).clip(-1, 1))
    z = rng.standard_normal(x.shape, np.float32) if step["c_noise"] else 0.0
    x, before = step["c_x"] * x + step["c_x0"] * x0 + step["c_before"] * before + step["c_noise"] * z, x0
```
"""
DIFFUSERS_CARD = """
New images, from nothing, with the samplers of diffusers (both packages must be installed):

```python
from diffusers import DDPMPipeline
images = DDPMPipeline.from_pretrained("this folder")(batch_size=16, num_inference_steps=100).images
```

It predicts v. Filling holes needs the network's other inputs, which pipelines of diffusers do not have: use inkfill for
that.
"""


def card(model: Model, use: str) -> str:
    """A model card: what the network is, what it was trained on, and how it is used."""
    recipe = model.recipe
    size, count = "x".join(map(str, recipe.image_size)), sum(p.numel() for p in model.net.parameters())
    settings = {name: value for name, value in recipe.to_json().items() if name != "training"}
    return (
        f"# A network of inkfill {defaults.VERSION}\n\n{count / 1e6:.2f} M parameters for {CHANNELS[recipe.channels]} "
        f"images of {size}, trained on {shown(recipe.trained_on)} for {recipe.step:,} steps of {recipe.batch_size} "
        f"images. It completes images of that kind, and no others.\n{use}\n"
        "Scores: `inkfill evaluate --checkpoint FILE` measures them on images that it was not trained on.\n\n"
        "The code is under the Apache License 2.0; so are the weights, as far as the images that they were trained on "
        f"allow.\n\n```json\n{json.dumps(settings, indent=1)}\n```\n"
    )
