"""Checkpoints: weights as safetensors with JSON metadata, and training state. Nothing that is read here can run."""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from inkfill.core.unet import UNet, UNetConfig
from inkfill.errors import InputError, reason, shown
from inkfill.files import check_utf8, parse_json, written_whole

FORMAT = "inkfill-unet-1"
WEIGHTS = Path(__file__).parent.parent / "weights"
SHIPPED = WEIGHTS / "mnist.safetensors"
NAMED = {name: WEIGHTS / f"{name}.safetensors" for name in ("mnist", "mnist-guided", "mnist-few")}
MAX_ABOUT = 2**20  # characters of metadata that are read
BEFORE_0_3 = {"stem_fresh.weight": "stem_latent.weight"}  # names of tensors in older checkpoints

Network = TypeVar("Network", bound=torch.nn.Module)

# ---- weights ---------------------------------------------------------------------------------------------------------


def write_weights(
    path: Path, weights: Mapping[str, Tensor], about: dict[str, Any], dtype: torch.dtype = torch.float32
) -> None:
    """Write weights and metadata, whole or not at all. Raises InputError for weights that are not finite."""
    tensors = {name: value.detach().cpu().to(dtype).contiguous() for name, value in weights.items()}
    if not all(bool(value.isfinite().all()) for value in tensors.values()):
        raise InputError(f"{path}: the weights are not finite; nothing was saved")
    # One entry: safetensors writes several in no fixed order, and equal weights should give equal files.
    metadata = {"inkfill": json.dumps(about, sort_keys=True)}
    with written_whole(path) as temporary:
        temporary.write_bytes(safetensors_bytes(tensors, metadata))


def read_network(path: Path, kind: str, build: Callable[[dict[str, Any]], Network]) -> tuple[Network, dict[str, Any]]:
    """The network (eval mode, CPU, float32) in a file of a format, and its recipe as JSON.

    ``build`` makes the network from the metadata. It runs on the meta device, so a small file cannot ask for a large
    one. Raises InputError for anything that is not a whole file of that format.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    check_utf8(path)
    try:
        with safe_open(path, framework="pt") as file:
            about = _about((file.metadata() or {}).get("inkfill"), kind)
            try:
                with torch.device("meta"):
                    net = build(about)
            except InputError as error:
                raise InputError(f"weights of another architecture: {error}") from None
            weights = {BEFORE_0_3.get(name, name): file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        net.load_state_dict(weights, assign=True)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except RuntimeError as error:
        raise InputError(f"{path}: weights of another architecture ({shown(reason(error)[:200])})") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: not a whole safetensors file ({error}); pickles (.pt, .pth) are never read"
        ) from None
    if not all(bool(value.isfinite().all()) for value in weights.values()):
        raise InputError(f"{path}: holds NaN or infinite weights")
    return net.to(memory_format=torch.channels_last).eval().requires_grad_(False), about["recipe"]  # type: ignore[call-overload]


def _about(text: str | None, kind: str) -> dict[str, Any]:
    """The checked metadata of a file of weights."""
    about = parse_json(text, "its metadata") if text is not None and len(text) <= MAX_ABOUT else None
    if not isinstance(about, dict):
        raise InputError("not an inkfill checkpoint: it has no metadata")
    if about.get("format") != kind or not isinstance(about.get("recipe"), dict):
        raise InputError(
            f"not an inkfill checkpoint of format {kind}: its format is {shown(about.get('format'))!r:.80}"
        )
    return about


def save_network(path: Path, net: UNet, weights: Mapping[str, Tensor], recipe: dict[str, Any]) -> None:
    """Write weights, the architecture and the recipe."""
    write_weights(path, weights, {"format": FORMAT, "unet": asdict(net.config), "recipe": recipe})


def load_network(path: Path) -> tuple[UNet, dict[str, Any]]:
    """The network (eval mode, CPU, float32) and its recipe as JSON. Raises InputError."""
    return read_network(path, FORMAT, lambda about: UNet(UNetConfig.read(about.get("unet"))))


def find_checkpoint(path: Path | str | None) -> Path:
    """The file of a checkpoint: shipped weights by name (default ``mnist``), a path, or the folder of a run.

    Raises InputError for anything but a name or a path.
    """
    if not path:
        return SHIPPED
    if not isinstance(path, (str, Path)):
        raise InputError(f"checkpoint: give a file or a name, not {path!r}")
    found = NAMED.get(str(path), Path(path))
    if not found.is_dir():
        return found
    if not (found / "model.safetensors").is_file():
        raise InputError(f"{found}: no model.safetensors in this folder: give the folder of a run, or a file")
    return found / "model.safetensors"


# ---- training state --------------------------------------------------------------------------------------------------


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write training state: dictionaries and lists of tensors, numbers and strings."""
    packed = io.BytesIO()  # torch's own writer hides the errno of a full disk
    torch.save(state, packed)
    with written_whole(path) as temporary:
        temporary.write_bytes(packed.getbuffer())


def load_state(path: Path) -> dict[str, Any]:
    """Read training state with ``weights_only=True``, so no code in the file runs. Raises InputError."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken or a hostile file
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: not a whole training state ({said})") from None
    if not isinstance(state, dict):
        raise InputError(f"{path}: not a training state")
    return state
