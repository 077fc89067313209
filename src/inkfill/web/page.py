"""The browser page: one file that holds the network, its kernels and what to paint with. ``inkfill page`` writes it."""

import base64
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from inkfill import defaults
from inkfill.data import Images
from inkfill.data.images import CHANNELS, as_bytes
from inkfill.errors import InputError, escaped, shown
from inkfill.evaluation.classifier import WHOLE, judge, load_classifier
from inkfill.files import written_whole
from inkfill.filling.inpaint import sample
from inkfill.models.model import Model, load

WEB = Path(__file__).parent
ENGINE = ("noise", "schedule", "samplers", "unet", "worker")  # of each worker, in the order of reading
DIGITS = ("mnist", "rendered")  # data sets that the classifier knows
TRIED = 80  # digits drawn to find one of each
POLICY = "default-src 'none'; script-src 'unsafe-inline' blob: 'wasm-unsafe-eval'; style-src 'unsafe-inline'; worker-src blob:; img-src blob: data:"  # noqa: E501
SAMPLERS = {
    "few": "This network was taught to draw x₀ itself, in one evaluation or two: its beliefs are no means.",
    "dpmpp-sde": "The steps between the levels are those of SDE-DPM-Solver++(2M).",
    "dpmpp": "The steps between the levels are those of DPM-Solver++(2M).",
    "ddim": "The steps between the levels are those of DDIM.",
    "ancestral": "The steps between the levels are ancestral: draws of q(x_s given x_t, x̂₀).",
}


def write_page(checkpoint: Path | str | None, out: Path, float32: bool = False) -> Path:
    """Write the page for a checkpoint (default: the shipped weights), whole or not at all; gives its path.

    Raises InputError for weights that a page cannot show.
    """
    path, text = page_file(out), page(load(checkpoint, "cpu", "float32"), str(checkpoint or "mnist"), float32)
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def page_file(out: Path) -> Path:
    """Where the page goes: a file of HTML as it is, ``index.html`` of anything else."""
    return out if out.suffix.lower() in (".html", ".htm") else out / "index.html"


def page(model: Model, checkpoint: str = "mnist", float32: bool = False) -> str:
    """The page as text; ``model`` computes in float32, ``checkpoint`` is for the Python line. Raises InputError."""
    _check(model)
    weights = model.net.state_dict()
    dtype = np.float32 if float32 else np.float16
    judged = model.recipe.trained_on in DIGITS and model.image_size == (28, 28) and model.channels == 1
    starts, names, source = _starts(model, judged)
    about: dict[str, Any] = {
        "recipe": {
            name: value for name, value in model.recipe.to_json().items() if name not in ("training", "data_hash")
        },
        "config": asdict(model.net.config),
        "float32": float32,
        "checkpoint": checkpoint,
        "tensors": {name: {"shape": list(value.shape)} for name, value in weights.items()},
        "starts": [_base64(image.tobytes()) for image in starts],
        "start_names": names,
        "source": source,
        **_words(model),
    }
    binary = {"weights": _planes(_numbers(weights, dtype))}
    if judged:
        shapes, bytes_ = _whole_numbers(load_classifier(WHOLE).state_dict())
        about["classifier"] = shapes
        binary["classifier"] = bytes_.tobytes()
    return _assembled(about, binary)


def _check(model: Model) -> None:
    """Raise InputError for a model that the page's kernels or its canvas cannot serve."""
    config, objective = model.net.config, model.recipe.objective
    if model.channels not in (1, 3):
        kind = CHANNELS[model.channels]
        raise InputError(f"a page shows grey and colour; these weights are of images that are {kind}")
    if objective == "regression":
        raise InputError("a page draws completions; these weights were trained with the objective regression")
    if any(width % 4 for width in (*config.widths, config.head_width, config.time_width)):
        raise InputError("a page needs a network whose widths are multiples of 4")
    if max(model.image_size) > 128:
        size = "x".join(map(str, model.image_size))
        raise InputError(f"a page shows pictures of up to 128 pixels a side; these weights are of {size}")


# ---- what it holds ---------------------------------------------------------------------------------------------------


def _starts(model: Model, judged: bool) -> tuple[Images, list[str], str]:
    """Pictures to begin with, drawn by the network itself: bytes ``[10, H, W]`` or ``[10, H, W, C]``, with names."""
    drawn = as_bytes(sample(model, TRIED if judged else 10, steps=model.steps, seed=0), model.value_range)
    if not judged:
        return drawn, [f"picture {i + 1}" for i in range(10)], "These pictures were drawn by the network, from nothing."
    odds, _ = judge(load_classifier(WHOLE), drawn)
    best = [int(odds[:, digit].argmax()) for digit in range(10)]
    return drawn[best], [f"digit {d}" for d in range(10)], "These digits were drawn by the network, from nothing."


def _words(model: Model) -> dict[str, str]:
    recipe = model.recipe
    what = "digit" if recipe.trained_on in DIGITS else "picture"
    ways = "eight ways, in this page: nothing is sent anywhere."
    parameters = sum(p.numel() for p in model.net.parameters()) / 1e6
    return {
        "lead": f"Paint over a part of the {what}. A small diffusion model completes it, {ways}",
        "footer": (
            f"inkfill {defaults.VERSION}. The network has {parameters:.1f} M parameters and was trained on "
            f"{shown(recipe.trained_on)} for {recipe.step:,} steps of {recipe.batch_size} images."
        ),
        "sampler_words": SAMPLERS["few" if model.generative else recipe.sampler],
    }


def _numbers(weights: Mapping[str, Tensor], dtype: type) -> NDArray[Any]:
    return np.concatenate([value.float().numpy().astype(dtype).ravel() for value in weights.values()])


def _planes(numbers: NDArray[Any]) -> bytes:
    """First the lowest byte of every number, then the next: sorted so, the bytes compress better."""
    size = numbers.dtype.itemsize
    return np.ascontiguousarray(numbers.view(np.uint8).reshape(-1, size).T).tobytes()


def _whole_numbers(weights: Mapping[str, Tensor]) -> tuple[dict[str, Any], NDArray[np.int8]]:
    """Weights as bytes with one scale a tensor: enough for a classifier, and half the size."""
    shapes, parts = {}, []
    for name, value in weights.items():
        scale = max(float(value.abs().max()), 1e-12) / 127
        shapes[name] = {"shape": list(value.shape), "scale": scale}
        parts.append((value / scale).round().numpy().astype(np.int8).ravel())
    return shapes, np.concatenate(parts)


# ---- one file --------------------------------------------------------------------------------------------------------


def _assembled(about: dict[str, Any], binary: dict[str, bytes]) -> str:
    engine = "\n".join((WEB / f"{name}.js").read_text(encoding="utf-8") for name in ENGINE)
    inert = {name: _base64(zlib.compress(data, 9)) for name, data in binary.items()}
    inert |= {name: _base64((WEB / f"{name}.wasm").read_bytes()) for name in ("kernels", "kernels-relaxed")}
    scripts = "".join(f'<script type="text/plain" id="{name}">{text}</script>\n' for name, text in inert.items())
    # "<" may not stand in a script: what a checkpoint says of itself could end it, and begin another.
    told = json.dumps(about).replace("<", "\\u003c")
    style, body = ((WEB / name).read_text(encoding="utf-8") for name in ("page.css", "page.html"))
    code = "\n".join((WEB / f"{name}.js").read_text(encoding="utf-8") for name in ("complete", "page"))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>inkfill: {escaped(_title(about))}</title>\n<style>\n{style}</style>\n</head>\n<body>\n{body}\n"
        f'<script type="application/json" id="about">{told}</script>\n{scripts}'
        f'<script type="text/plain" id="engine">\n{engine}</script>\n<script>\n"use strict";\n{code}</script>\n'
        "</body>\n</html>\n"
    )


def _title(about: dict[str, Any]) -> str:
    return re.sub(r"\s+", " ", f"fill holes in {about['recipe']['trained_on']}")[:80]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
