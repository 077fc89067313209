"""Exports: ``inkfill export`` writes ONNX with all sampler coefficients, or a diffusers folder."""

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
from inkfill.core.objectives import ESTIMATE, MEAN
from inkfill.core.rng import stream
from inkfill.core.samplers import find_sampler, spaced_timesteps
from inkfill.core.schedule import Schedule
from inkfill.core.unet import UNet
from inkfill.data.images import channel_words
from inkfill.errors import InputError, needed, shown
from inkfill.files import folder_written_whole
from inkfill.models.model import Model

OPSET = 18
TOLERANCE = 1e-3  # of v, between torch and onnxruntime; usually 1e-5
SIZES = ((1, 7, 7), (3, 2, 10), (2, 12, 5))  # rows and sides (in multiples) that an export is checked with


# ---- ONNX ------------------------------------------------------------------------------------------------------------


class _Embed(nn.Module):
    """The call made once per observation."""

    def __init__(self, net: UNet):
        super().__init__()
        self.net = net

    def forward(self, known_pixels: Tensor, known_map: Tensor) -> Tensor:
        return self.net.embed(known_pixels, known_map)


class _Step(_Embed):
    """The call made at every timestep."""

    def forward(  # type: ignore[override]
        self, x_t: Tensor, known_map: Tensor, time: Tensor, embedded: Tensor, latent: Tensor | None = None
    ) -> Tensor:
        v: Tensor = self.net(x_t, x_t, known_map, time, embedded, latent)
        return v


def write_onnx(model: Model, out: Path, sampler: str | None = None, steps: int | None = None) -> None:
    """Write ``embed.onnx``, ``step.onnx``, ``sampler.json`` and a model card into the folder ``out``, whole or not.

    ``model`` computes in float32 on the CPU. Batch, height and width are free; sides are multiples of 4, 8 or 16,
    depending on the network. The files are checked in onnxruntime on several shapes. Raises InputError.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        needed(package, "inkfill[export]")
    if model.gives == ESTIMATE:
        raise InputError(
            f"objective {model.recipe.objective}: cannot be exported: use a network trained with v, eps or few"
        )
    table = coefficients(model, sampler or model.sampler, steps or model.steps)
    use = ONNX_CARD.replace("MULTIPLE", str(model.net.config.multiple))
    with folder_written_whole(out) as folder:
        for name, module in (("embed", _Embed(model.net)), ("step", _Step(model.net))):
            _export(module.eval(), _examples(model, name, 2, 7, 8), folder / f"{name}.onnx", model.net.config.multiple)
            _check(module, folder / f"{name}.onnx", [_examples(model, name, *size) for size in SIZES])
        (folder / "sampler.json").write_text(json.dumps(table, indent=1), encoding="utf-8")
        (folder / "README.md").write_text(card(model, use), encoding="utf-8")


def _examples(model: Model, name: str, rows: int, tall: int, wide: int) -> dict[str, Tensor]:
    """Inputs of a call, by name; sides in multiples."""
    height, width = tall * model.net.config.multiple, wide * model.net.config.multiple
    rng, channels = stream(0, "export", rows, height, width), model.channels
    x_t, latent = (torch.from_numpy(rng.standard_normal((rows, channels, height, width), np.float32)) for _ in range(2))
    known = torch.from_numpy((rng.random((rows, 1, height, width)) < 0.5).astype(np.float32))
    pixels = x_t.clamp(-1, 1) * known
    if name == "embed":
        return {"known_pixels": pixels, "known_map": known}
    with torch.no_grad():
        embedded = model.net.embed(pixels, known).contiguous()
    given = {"x_t": x_t, "known_map": known, "time": torch.tensor([0.3]), "embedded": embedded}
    return given | ({"latent": latent} if model.generative else {})


def _export(module: nn.Module, examples: dict[str, Tensor], path: Path, multiple: int) -> None:
    dim = torch.export.Dim
    batch, height, width = dim("batch"), *(multiple * dim(name, min=2, max=4096) for name in "hw")
    shapes: dict[str, Any] = {name: {0: batch, 2: height, 3: width} for name in examples}
    shapes |= {"time": {}, "embedded": {0: batch, 2: dim.AUTO, 3: dim.AUTO}}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is missing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about axis names, and torch's own deprecations
        program = torch.onnx.export(
            module,
            kwargs=examples,
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            dynamic_shapes={name: shapes[name] for name in examples},
            input_names=list(examples),
            output_names=["v" if isinstance(module, _Step) else "embedded"],
        )
    assert program is not None
    program.save(str(path), include_initializers=True, external_data=False)


def _check(module: nn.Module, path: Path, examples: Sequence[dict[str, Tensor]]) -> None:
    """Raise InputError where onnxruntime and torch disagree."""
    runtime = needed("onnxruntime", "inkfill[export]")
    session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    for given in examples:
        with torch.no_grad():
            wanted = module(**given).numpy()
        (found,) = session.run(None, {key: value.numpy() for key, value in given.items()})
        off = float(np.abs(found - wanted).max())
        if not off < TOLERANCE:
            raise InputError(f"{path.name} is off by {off:.1e} at {wanted.shape}: nothing was written")


def coefficients(model: Model, sampler: str, steps: int) -> dict[str, Any]:
    """All coefficients of a sampler, so that a caller of the network needs no formula.

    A step has the network's input ``time`` and the coefficients of x0 and of the next state:
    ``x0 = signal * x - noise * v`` (clipped to [-1, 1], observed pixels put in), ``x = x * c_x + x0 * c_x0 + (x0 of the
    previous step) * c_before + (new noise) * c_noise``. Raises InputError.
    """
    schedule, timesteps = model.schedule, spaced_timesteps(model.schedule.T, steps)
    rows = _few_rows(schedule, timesteps) if model.generative else _sampler_rows(sampler, schedule, timesteps)
    for row, t in zip(rows, timesteps[:-1], strict=True):
        a = float(schedule.alpha_bar[t])
        row |= {"t": t, "time": t / schedule.T, "signal": a**0.5, "noise": (1 - a) ** 0.5}
    recipe = model.recipe
    return {
        "format": "inkfill-sampler-2",
        "sampler": "few" if model.generative else sampler,
        "channels": model.channels,
        "image_size": list(model.image_size),
        "low": recipe.value_range[0],  # becomes -1
        "high": recipe.value_range[1],  # becomes 1
        "floor": recipe.floor,  # values up to low + floor become low
        "latent": model.generative,  # steps with c_latent = 1 read latent noise
        "steps": rows,
    }


def _sampler_rows(sampler: str, schedule: Schedule, timesteps: Sequence[int]) -> list[dict[str, Any]]:
    """The coefficients of a sampler, read off a run on basis vectors: a sampler is linear in its inputs.

    The basis: the initial state, then the prediction of every step, then its new noise.
    """
    n = len(timesteps) - 1
    basis = torch.eye(1 + 2 * n, dtype=torch.float64)
    states: list[Tensor] = []

    def denoise(x: Tensor, t: int) -> Tensor:
        states.append(x)
        return basis[len(states)]

    states.append(find_sampler(sampler)(denoise, basis[0], schedule, timesteps, lambda: basis[n + len(states)]))
    rows = []
    for i, (x, following) in enumerate(pairwise(states)):
        c_x = float(following[0] / x[0])
        rest = (following - c_x * x).tolist()
        c_before = rest[i] if i else 0.0
        rows.append({"c_x": c_x, "c_x0": rest[1 + i], "c_before": c_before, "c_noise": rest[n + 1 + i], "c_latent": 0})
    return rows


def _few_rows(schedule: Schedule, timesteps: Sequence[int]) -> list[dict[str, Any]]:
    """The coefficients of a few-step model: noise the sample to timestep s; below T, read latent noise."""
    rows = []
    for t, s in pairwise(timesteps):
        a, latent = float(schedule.alpha_bar[s]), int(t < schedule.T)
        rows.append({"c_x": 0.0, "c_x0": a**0.5, "c_before": 0.0, "c_noise": (1 - a) ** 0.5, "c_latent": latent})
    return rows


# ---- diffusers -------------------------------------------------------------------------------------------------------


def write_diffusers(model: Model, out: Path) -> None:
    """Write a folder that ``DDPMPipeline.from_pretrained`` reads, for unconditional samples, whole or not at all.

    Raises InputError for a network without posterior means, such as a few-step model.
    """
    diffusers = needed("diffusers", "inkfill[export]")
    if model.gives != MEAN:
        raise InputError(
            f"objective {model.recipe.objective}: diffusers needs a denoiser: use a network trained with v or eps"
        )
    from inkfill.models.diffusers_unet import InkfillUNet

    net = InkfillUNet(
        sample_size=model.image_size,
        in_channels=model.channels,
        out_channels=model.channels,
        num_train_timesteps=model.schedule.T,
        unet=asdict(model.net.config),
    )
    net.net.load_state_dict(model.net.state_dict())
    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=model.schedule.T,
        trained_betas=(1 - model.schedule.alpha_bar[1:] / model.schedule.alpha_bar[:-1]).tolist(),
        prediction_type="v_prediction",
    )
    with folder_written_whole(out) as folder:
        try:
            diffusers.DDPMPipeline(net, scheduler).save_pretrained(folder, safe_serialization=True)
        except SafetensorError as error:
            raise InputError(f"{out}: cannot be written ({error})") from None
        (folder / "README.md").write_text(card(model, DIFFUSERS_CARD), encoding="utf-8")


# ---- the model card --------------------------------------------------------------------------------------------------

ONNX_CARD = """
`embed.onnx` takes the observed pixels (0 where missing) and their map (1 where observed) and runs once; `step.onnx`
runs at every timestep and returns v. Sides are multiples of MULTIPLE: pad other images by reflection at their lower and
right edges, and crop the result. `sampler.json` has all coefficients:

```python
pixels, known = ...  # float32 [B, C, H, W] in [-1, 1], 0 where missing; [B, 1, H, W]
(embedded,) = embed.run(None, {"known_pixels": pixels, "known_map": known})
x, before = rng.standard_normal(pixels.shape, np.float32), 0.0
for step in table["steps"]:
    given = {"x_t": x, "known_map": known, "time": np.array([step["time"]], np.float32), "embedded": embedded}
    if table["latent"]:
        given["latent"] = step["c_latent"] * rng.standard_normal(x.shape, np.float32)
    (v,) = net.run(None, given)
    x0 = np.where(known > 0, pixels, (step["signal"] * x - step["noise"] * v).clip(-1, 1))
    z = rng.standard_normal(x.shape, np.float32) if step["c_noise"] else 0.0
    x, before = step["c_x"] * x + step["c_x0"] * x0 + step["c_before"] * before + step["c_noise"] * z, x0
```
"""
DIFFUSERS_CARD = """
Unconditional samples by the samplers of diffusers (both packages must be installed):

```python
from diffusers import DDPMPipeline
images = DDPMPipeline.from_pretrained("this folder")(batch_size=16, num_inference_steps=100).images
```

The network predicts v. Inpainting needs its other inputs, which diffusers pipelines do not have: use inkfill.
"""


def card(model: Model, use: str) -> str:
    """A model card: the network, its training data and its use."""
    recipe = model.recipe
    size, count = "x".join(map(str, recipe.image_size)), sum(p.numel() for p in model.net.parameters())
    settings = {name: value for name, value in recipe.to_json().items() if name != "training"}
    return (
        f"# A network of inkfill {defaults.VERSION}\n\n{count / 1e6:.2f} M parameters for "
        f"{channel_words(recipe.channels)} images of {size}, trained on {shown(recipe.trained_on)} for "
        f"{recipe.step:,} steps of {recipe.batch_size} images. It fills holes in images of that kind only.\n{use}\n"
        "Scores: `inkfill evaluate --checkpoint FILE` measures them on held-out images.\n\n"
        "The code is under the Apache License 2.0; so are the weights, as far as the images that they were trained on "
        f"allow.\n\n```json\n{json.dumps(settings, indent=1)}\n```\n"
    )
