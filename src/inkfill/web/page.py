"""The browser page: one file with the network, its WebAssembly kernels and the editor. ``inkfill page`` writes it."""

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
from inkfill.data.images import as_bytes, channel_words
from inkfill.errors import InputError, escaped, shown
from inkfill.evaluation.classifier import WHOLE, judge, load_classifier
from inkfill.files import written_whole
from inkfill.filling.inpaint import sample
from inkfill.models.model import Model, load

WEB = Path(__file__).parent
ENGINE = ("noise", "schedule", "samplers", "unet", "worker")  # source of each worker, in order
DIGITS = ("mnist", "rendered")  # data sets that suit the classifier
TRIED = 80  # digits drawn, to find one of each label
POLICY = "default-src 'none'; script-src 'unsafe-inline' blob: 'wasm-unsafe-eval'; style-src 'unsafe-inline'; worker-src blob:; img-src blob: data:"  # noqa: E501
SAMPLERS = {
    "few": "This network is a few-step model: its prediction is a sample of x₀, not a mean.",
    "dpmpp-sde": "The sampler is SDE-DPM-Solver++(2M).",
    "dpmpp": "The sampler is DPM-Solver++(2M).",
    "ddim": "The sampler is DDIM.",
    "ancestral": "The sampler is ancestral: each state is drawn from q(x_s given x_t, x̂₀).",
}


def write_page(checkpoint: Path | str | None, out: Path, float32: bool = False) -> Path:
    """Write the page for a checkpoint (default: the shipped weights), whole or not at all; returns its path.

    ``float32`` keeps the weights in 32 bits instead of 16. Raises InputError for a model that a page cannot show.
    """
    path, text = page_file(out), page(load(checkpoint, "cpu", "float32"), str(checkpoint or "mnist"), float32)
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def page_file(out: Path) -> Path:
    """The path of the page: ``out`` if it is an HTML file, else ``out/index.html``."""
    return out if out.suffix.lower() in (".html", ".htm") else out / "index.html"


def page(model: Model, checkpoint: str = "mnist", float32: bool = False) -> str:
    """The page as HTML. ``checkpoint`` is named in its Python command; ``model`` must compute in float32.

    Raises InputError for a model that a page cannot show.
    """
    recipe, config, size = model.recipe, model.net.config, "x".join(map(str, model.image_size))
    for refused, what in (
        (model.channels not in (1, 3), f"images are {channel_words(model.channels)}: a page supports grey and colour"),
        (max(model.image_size) > 128, f"images are {size}: a page supports up to 128 pixels a side"),
        (recipe.objective == "regression", "objective is regression: a page needs one that draws samples"),
        (
            any(width % 4 for width in (*config.widths, config.head_width, config.time_width)),
            "network has a width that is no multiple of 4: a page needs multiples of 4",
        ),
    ):
        if refused:
            raise InputError(f"page: the model's {what}")
    weights = model.net.state_dict()
    digits = recipe.trained_on in DIGITS
    judged = digits and model.image_size == (28, 28) and model.channels == 1
    starts, names = _starts(model, judged)
    parameters = sum(value.numel() for value in weights.values()) / 1e6
    about: dict[str, Any] = {
        "recipe": {name: value for name, value in recipe.to_json().items() if name not in ("training", "data_hash")},
        "config": asdict(config),
        "alpha_bar": model.schedule.alpha_bar.tolist(),
        "float32": float32,
        "checkpoint": checkpoint,
        "tensors": {name: {"shape": list(value.shape)} for name, value in weights.items()},
        "starts": [_base64(image.tobytes()) for image in starts],
        "start_names": names,
        "lead": f"Paint over a part of the {'digit' if digits else 'image'}. A small diffusion model draws eight "
        "samples of what is missing.",
        "footer": f"inkfill {defaults.VERSION}. The network has {parameters:.1f} M parameters and was trained on "
        f"{shown(recipe.trained_on)} for {recipe.step:,} steps of {recipe.batch_size} images.",
        "sampler_words": SAMPLERS["few" if model.generative else recipe.sampler],
    }
    dtype = np.dtype(np.float32 if float32 else np.float16)
    numbers = np.concatenate([value.float().numpy().astype(dtype).ravel() for value in weights.values()])
    # The lowest byte of every number, then the next, and so on: in this order they compress better.
    binary = {"weights": numbers.view(np.uint8).reshape(-1, dtype.itemsize).T.tobytes()}
    if judged:
        about["classifier"], quantised = _quantised(load_classifier(WHOLE).state_dict())
        binary["classifier"] = quantised.tobytes()
    return _assembled(about, binary)


# ---- content ---------------------------------------------------------------------------------------------------------


def _starts(model: Model, judged: bool) -> tuple[Images, list[str]]:
    """Unconditional samples to start from: bytes ``[10, H, W]`` or ``[10, H, W, C]``, and their names."""
    drawn = as_bytes(sample(model, TRIED if judged else 10, steps=model.steps, seed=0), model.value_range)
    if not judged:
        return drawn, [f"image {i + 1}" for i in range(10)]
    odds, _ = judge(load_classifier(WHOLE), drawn)
    best = [int(odds[:, digit].argmax()) for digit in range(10)]
    return drawn[best], [f"digit {d}" for d in range(10)]


def _quantised(weights: Mapping[str, Tensor]) -> tuple[dict[str, Any], NDArray[np.int8]]:
    """Weights as int8 with one scale per tensor, and their shapes."""
    shapes, parts = {}, []
    for name, value in weights.items():
        scale = max(float(value.abs().max()), 1e-12) / 127
        shapes[name] = {"shape": list(value.shape), "scale": scale}
        parts.append((value / scale).round().numpy().astype(np.int8).ravel())
    return shapes, np.concatenate(parts)


# ---- one file --------------------------------------------------------------------------------------------------------


def _assembled(about: dict[str, Any], binary: dict[str, bytes]) -> str:
    title = re.sub(r"\s+", " ", f"fill holes in {about['recipe']['trained_on']}")[:80]
    engine = "\n".join((WEB / f"{name}.js").read_text(encoding="utf-8") for name in ENGINE)
    inert = {name: _base64(zlib.compress(data, 9)) for name, data in binary.items()}
    inert |= {name: _base64((WEB / f"{name}.wasm").read_bytes()) for name in ("kernels", "kernels-relaxed")}
    scripts = "".join(f'<script type="text/plain" id="{name}">{text}</script>\n' for name, text in inert.items())
    # Without "<", text from a checkpoint cannot end this script and begin another.
    described = json.dumps(about).replace("<", "\\u003c")
    style, body = ((WEB / name).read_text(encoding="utf-8") for name in ("page.css", "page.html"))
    code = "\n".join((WEB / f"{name}.js").read_text(encoding="utf-8") for name in ("complete", "page"))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>inkfill: {escaped(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n{body}\n"
        f'<script type="application/json" id="about">{described}</script>\n{scripts}'
        f'<script type="text/plain" id="engine">\n{engine}</script>\n<script>\n"use strict";\n{code}</script>\n'
        "</body>\n</html>\n"
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
