"""Weights as safetensors with their recipe as JSON metadata; training state beside them. Nothing in either can run.

Every file is written under a temporary name and renamed, so that a crash leaves the old file or the new one.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from inkfill.errors import InputError
from inkfill.unet import UNet, UNetConfig

FORMAT = "inkfill-unet-1"
SHIPPED = Path(__file__).parent / "weights" / "mnist.safetensors"


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; renamed onto it at the end, removed if anything fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp's 0600 is for secrets
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def unet_config(settings: dict[str, Any]) -> UNetConfig:
    """The network's shape from JSON, which knows lists and no tuples."""
    shape: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}
    return UNetConfig(**shape)


def write_weights(
    path: Path, weights: dict[str, Tensor], about: dict[str, Any], dtype: torch.dtype = torch.float32
) -> None:
    """Write weights and what they are, whole or not at all."""
    tensors = {name: value.detach().cpu().to(dtype).contiguous() for name, value in weights.items()}
    # One entry: safetensors writes several in no fixed order, and equal weights should be equal bytes.
    metadata = {"inkfill": json.dumps(about, sort_keys=True)}
    with written_whole(path) as temporary:
        temporary.write_bytes(safetensors_bytes(tensors, metadata))


def read_weights(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights of a format (float32), and what they are. Raises InputError for anything that is not a whole file of that
    format."""
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: not a whole safetensors file ({error}); pickles (.pt, .pth) are never read"
        ) from None
    try:
        about: dict[str, Any] = json.loads(metadata["inkfill"])
        if about["format"] != kind:
            raise InputError(f"{path}: format {about['format']!r}, but {kind!r} is needed here")
    except (KeyError, TypeError, json.JSONDecodeError):
        raise InputError(f"{path}: not an inkfill checkpoint, it does not say how it was made") from None
    if not all(bool(w.isfinite().all()) for w in weights.values()):
        raise InputError(f"{path}: holds NaN or infinite weights")
    return weights, about


def save_network(path: Path, net: UNet, weights: dict[str, Tensor], recipe: dict[str, Any]) -> None:
    """Write weights, the network's shape and the recipe that made them."""
    write_weights(path, weights, {"format": FORMAT, "unet": asdict(net.config), "recipe": recipe})


def load_network(path: Path) -> tuple[UNet, dict[str, Any]]:
    """The network (eval mode, CPU, float32) and its recipe. Raises InputError."""
    weights, about = read_weights(path, FORMAT)
    try:
        recipe: dict[str, Any] = about["recipe"]
        net = UNet(unet_config(about["unet"]))
        net.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{path}: weights of another architecture ({first})") from None
    return net.eval().requires_grad_(False), recipe


def file_hash(path: Path) -> str:
    """SHA-256 of a file, first 16 hex digits, for provenance."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write training state: tensors, numbers and strings in dictionaries and lists."""
    with written_whole(path) as temporary:
        torch.save(state, temporary)


def load_state(path: Path) -> dict[str, Any]:
    """Read training state with ``weights_only=True``: no code in the file can run. Raises InputError."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken or a hostile file
        raise InputError(f"{path}: not a whole training state ({str(error).splitlines()[0]})") from None
    return state
