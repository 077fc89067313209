"""Every reader on broken files: InputError alone, and bounded memory.

``INKFILL_HARD`` is the number of inputs (``make hard``: a million; default 10,000).
"""

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import TINY
from inkfill.core.rng import stream
from inkfill.core.unet import UNet
from inkfill.data import masks
from inkfill.data.readers import read_array, read_idx, read_images
from inkfill.errors import InputError
from inkfill.files import read_json
from inkfill.models.adapters import from_diffusers
from inkfill.models.checkpoint import load_network, load_state, save_network, save_state
from inkfill.models.model import Recipe

INPUTS = int(os.environ.get("INKFILL_HARD", "10000"))
MOST = 2**28  # largest number of bytes for reading a file of a few kilobytes
READ = {  # kind: its reader
    "idx": read_idx,
    "idx.gz": read_idx,
    "npy": read_array,
    "npz": read_images,
    "png": read_images,
    "tif": read_images,
    "gif": read_images,
    "mask.npy": masks.read_mask,
    "mask.png": masks.read_mask,
    "safetensors": load_network,
    "state.pt": load_state,
    "json": read_json,
}


def whole(folder: Path, digits: np.ndarray) -> dict[str, Path]:
    """A valid file of every kind."""
    import gzip

    body = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in digits[:3].shape) + digits[:3].tobytes()
    files = {kind: folder / f"whole.{kind}" for kind in READ}
    files["idx"].write_bytes(body)
    files["idx.gz"].write_bytes(gzip.compress(body, mtime=0))
    np.save(files["npy"], digits[:2])
    np.savez_compressed(files["npz"], images=digits[:2])
    for kind in ("png", "tif", "gif"):
        Image.fromarray(digits[0]).save(files[kind])
    np.save(files["mask.npy"], digits[0] > 0)
    Image.fromarray((digits[0] > 0).astype(np.uint8) * 255).save(files["mask.png"])
    net = UNet(TINY)
    save_network(files["safetensors"], net, net.state_dict(), Recipe().to_json())
    save_state(files["state.pt"], {"step": 3, "net": {"a": torch.zeros(4)}, "config": "{}"})
    files["json"].write_text(json.dumps({"rows": [{"mask": "half:left", "crps": 0.1}] * 3}))
    return files


def mutated(body: bytes, rng: np.random.Generator) -> bytes:
    """Bytes changed, cut out, doubled or appended, more often at the beginning, where headers are."""
    out = bytearray(body)
    for _ in range(int(rng.integers(1, 6))):
        reach = len(out) if rng.random() < 0.4 else min(len(out), 256)
        at, kind = int(rng.integers(reach or 1)), rng.random()
        if kind < 0.6 and out:
            out[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.integers(256)]))
        elif kind < 0.75:
            del out[at : at + int(rng.integers(1, 64))]
        elif kind < 0.9:
            out[at:at] = out[at : at + int(rng.integers(1, 64))]
        else:
            out += rng.bytes(int(rng.integers(1, 64)))
    return bytes(out)


def refused_or_read(read: Callable[[Path], object], path: Path) -> bool:
    """Whether the file was read; errors other than InputError are raised."""
    words = ""
    try:
        read(path)
    except InputError as error:
        words = str(error)
    assert "\n" not in words
    return not words


@pytest.mark.parametrize("kind", READ)
def test_broken_files_are_read_or_refused_in_one_line(kind, tmp_path, digits, record_property):
    body, rng = whole(tmp_path, digits)[kind].read_bytes(), stream(0, "hard", kind)
    path = tmp_path / f"broken.{kind}"
    tries, read, most = max(1, INPUTS // len(READ)), 0, 0
    for i in range(tries):
        path.write_bytes(mutated(body, rng))
        watched = i % 50 == 0
        if watched:
            tracemalloc.start()
        try:
            read += refused_or_read(READ[kind], path)
        except BaseException:
            print(f"{kind}, input {i}: {path.read_bytes()[:200]!r}")
            raise
        finally:
            if watched:
                _, peak = tracemalloc.get_traced_memory()
                tracemalloc.stop()
        if watched:
            assert peak < MOST
            most = max(most, peak)
    assert read < tries  # some are refused
    refused = f"{tries - read:,} refused in one line, {read:,} still a valid file"
    record_property("figures", f"broken files: {kind}: {tries:,} tried, {refused}, at most {most / 2**20:.1f} MiB")


def test_broken_folders_of_diffusers(tmp_path, record_property):
    diffusers = pytest.importorskip("diffusers")
    net = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    folder, rng = tmp_path / "whole", stream(0, "hard", "diffusers")
    diffusers.DDPMPipeline(net, diffusers.DDPMScheduler()).save_pretrained(folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    bodies = {path: path.read_bytes() for path in files}
    tries, read = max(5, INPUTS // 500), 0
    for _ in range(tries):
        path = files[int(rng.integers(len(files)))]
        path.write_bytes(mutated(bodies[path], rng))
        read += refused_or_read(from_diffusers, folder)
        path.write_bytes(bodies[path])
    assert refused_or_read(from_diffusers, folder)
    refused = f"{tries - read:,} refused in one line, {read:,} still a valid folder"
    record_property("figures", f"broken files: folders of diffusers: {tries:,} tried, {refused}")


def test_a_valid_file_of_every_kind_is_read(tmp_path, digits):
    for kind, path in whole(tmp_path, digits).items():
        assert refused_or_read(READ[kind], path), kind
