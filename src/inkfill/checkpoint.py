"""Files that are whole or not there: weights as safetensors with JSON metadata, training state, JSON, locks.

Every file is written under a temporary name and renamed, so that a crash leaves the old file or the new one. Nothing
that is read here can run.
"""

import errno
import hashlib
import io
import json
import math
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from inkfill.errors import InputError, shown
from inkfill.unet import UNet, UNetConfig

FORMAT = "inkfill-unet-1"
SHIPPED = Path(__file__).parent / "weights" / "mnist.safetensors"
NAMED = {name: SHIPPED.with_name(f"{name}.safetensors") for name in ("mnist", "mnist-few")}
MAX_ABOUT = 2**20  # characters of metadata that are read
# What numpy raises for a .npz that was cut short or changed, and what comes of one that holds something else.
NOT_WHOLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, RuntimeError)
UNFINISHED = ".unfinished-"  # how the name begins of what is being written; whoever reads a folder skips such names

Shapes = Mapping[str, tuple[int, ...]]

# ---- whole or not at all ---------------------------------------------------------------------------------------------


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; renamed onto it at the end, removed if anything fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=_unfinished(path.stem), suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp's 0600 is for secrets
        temporary.replace(path)
    except OSError as error:
        # numpy's words for a full disk have no number.
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "requested and" in str(error)
        if error.filename or not full:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` to write into; it takes the place of ``path`` at the end, with all in it."""
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=_unfinished(path.name)))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=_unfinished(path.name)))
            try:
                path.replace(old)
                temporary.replace(path)
            except BaseException:  # Ctrl-C too: what was there comes back
                if not path.exists():
                    old.replace(path)
                raise
            finally:
                if path.exists():
                    shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unfinished(name: str) -> str:
    """How a temporary name begins, cut so that file systems take it: they count bytes."""
    return f"{UNFINISHED}{os.fsencode(name)[:100].decode(errors='ignore')}-"


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def check_utf8(path: Path) -> None:
    """Raise InputError for a path that the readers of weights cannot take."""
    try:
        os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: this name is not UTF-8, which weights are read by: rename it") from None


def check_writable(path: Path) -> None:
    """Raise InputError now for a path that could not be written after minutes of work; makes nothing."""
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}): give another place") from None


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder for this process. Raises InputError, at once, where another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{what}.lock", timeout=0)
    try:
        with lock:
            yield
    except Timeout:
        raise InputError(
            f"{folder}: another inkfill {what} is at work there: wait for it, or give another --out"
        ) from None


# ---- JSON ------------------------------------------------------------------------------------------------------------


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all; NaN and infinity, which JSON does not know, become null."""

    def strict(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strict(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [strict(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(strict(value), indent=1), encoding="utf-8")


def parse_json(text: str, source: object) -> Any:
    """JSON of unknown origin. Raises InputError for what is none, is too deep, or holds endless numbers."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source}: holds broken JSON ({type(error).__name__})") from None


def read_json(path: Path) -> Any:
    """JSON from a file. Raises InputError."""
    try:
        return parse_json(path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


# ---- weights ---------------------------------------------------------------------------------------------------------


def write_weights(
    path: Path, weights: Mapping[str, Tensor], about: dict[str, Any], dtype: torch.dtype = torch.float32
) -> None:
    """Write weights and what they are, whole or not at all. Raises InputError for weights that are not finite."""
    tensors = {name: value.detach().cpu().to(dtype).contiguous() for name, value in weights.items()}
    if not all(bool(value.isfinite().all()) for value in tensors.values()):
        raise InputError(f"{path}: the weights are not finite; nothing was saved")
    # One entry: safetensors writes several in no fixed order, and equal weights should be equal bytes.
    metadata = {"inkfill": json.dumps(about, sort_keys=True)}
    with written_whole(path) as temporary:
        temporary.write_bytes(safetensors_bytes(tensors, metadata))


def read_weights(
    path: Path, kind: str, expected: Callable[[dict[str, Any]], Shapes]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights of a format (float32), and what they are.

    ``expected`` gives, from what the file says of itself, the shapes that its tensors must have; they are compared
    before any tensor is read. Raises InputError for anything that is not a whole file of that format.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    check_utf8(path)
    try:
        with safe_open(path, framework="pt") as file:
            about = _about(path, (file.metadata() or {}).get("inkfill"), kind)
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (not a dict)
            _compare(path, found, expected(about))
            weights = {name: file.get_tensor(name).float() for name in found}
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: not a whole safetensors file ({error}); pickles (.pt, .pth) are never read"
        ) from None
    if not all(bool(w.isfinite().all()) for w in weights.values()):
        raise InputError(f"{path}: holds NaN or infinite weights")
    return weights, about


def _about(path: Path, text: str | None, kind: str) -> dict[str, Any]:
    """What a file of weights says of itself."""
    about = parse_json(text, path) if text is not None and len(text) <= MAX_ABOUT else None
    if not isinstance(about, dict) or not isinstance(about.get("format"), str):
        raise InputError(f"{path}: not an inkfill checkpoint, it does not say how it was made")
    if about["format"] != kind:
        raise InputError(f"{path}: format {about['format']!r}, but {kind!r} is needed here")
    if not isinstance(about.get("recipe"), dict):
        raise InputError(f"{path}: not an inkfill checkpoint, it has no recipe")
    return about


def _compare(path: Path, found: Shapes, expected: Shapes) -> None:
    wrong = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    if wrong:
        difference = f"{wrong[0]} is {found.get(wrong[0])}, not {expected.get(wrong[0])}"
        raise InputError(f"{path}: weights of another architecture ({shown(difference)})")


def shapes_of(build: Callable[[], torch.nn.Module]) -> Shapes:
    """The shapes of a network's tensors, without the memory for them."""
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in build().state_dict().items()}


def save_network(path: Path, net: UNet, weights: Mapping[str, Tensor], recipe: dict[str, Any]) -> None:
    """Write weights, the network's shape and the recipe that made them."""
    write_weights(path, weights, {"format": FORMAT, "unet": asdict(net.config), "recipe": recipe})


def load_network(path: Path) -> tuple[UNet, dict[str, Any]]:
    """The network (eval mode, CPU, float32) and its recipe as it stands in the file. Raises InputError."""

    def config(about: dict[str, Any]) -> UNetConfig:
        try:
            return UNetConfig.read(about.get("unet"))
        except InputError as error:
            raise InputError(f"{path}: weights of another architecture ({error})") from None

    weights, about = read_weights(path, FORMAT, lambda about: shapes_of(lambda: UNet(config(about))))
    with torch.device("meta"):
        net = UNet(config(about))
    net.load_state_dict(weights, assign=True)
    return net.to(memory_format=torch.channels_last).eval().requires_grad_(False), about["recipe"]  # type: ignore[call-overload]


def find_checkpoint(path: Path | str | None) -> Path:
    """The file of a checkpoint: of shipped weights by their name (default: ``mnist``), else the path itself, or the
    weights in the folder of a run. Raises InputError for what is no path."""
    if not path:
        return SHIPPED
    if not isinstance(path, (str, Path)):
        raise InputError(f"a checkpoint is a file or a name, not {path!r}")
    found = NAMED.get(str(path), Path(path))
    return found / "model.safetensors" if (found / "model.safetensors").is_file() else found


def file_hash(path: Path) -> str:
    """SHA-256 of a file, first 16 hex digits, for provenance."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


# ---- training state --------------------------------------------------------------------------------------------------


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write training state: tensors, numbers and strings in dictionaries and lists."""
    packed = io.BytesIO()  # torch's own writer has words of its own for a full disk
    torch.save(state, packed)
    with written_whole(path) as temporary:
        temporary.write_bytes(packed.getbuffer())


def load_state(path: Path) -> dict[str, Any]:
    """Read training state with ``weights_only=True``: no code in the file can run. Raises InputError."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken or a hostile file
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: not a whole training state ({said})") from None
    if not isinstance(state, dict):
        raise InputError(f"{path}: not a training state")
    return state
