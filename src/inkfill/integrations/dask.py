"""Samples of a ``dask.array`` that need not fit in memory, block by block, on any dask scheduler.

>>> import dask.array as da
>>> from inkfill.integrations import dask as inkfill_dask
>>> scans = da.from_zarr("scans.zarr")  # [N, H, W] or [N, H, W, C], with NaN where something is missing
>>> inkfill_dask.inpaint("mnist", scans, samples=4).to_zarr("filled.zarr")

Needs ``pip install inkfill[dask]``.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from inkfill import defaults
from inkfill.core.denoiser import Prior
from inkfill.data import masks
from inkfill.data.images import Images, Mask, range_of_type, without_alpha
from inkfill.errors import InputError, needed
from inkfill.filling.inpaint import inpaint as inpaint_now
from inkfill.models.checkpoint import find_checkpoint
from inkfill.models.model import Model, load

GIVE_RANGE = "give value_range=(LOW, HIGH), the same for all blocks"


@lru_cache(maxsize=4)
def _model(checkpoint: Path | str | None, device: str | None, dtype: str | None, version: object) -> Model:
    """The model, read once per process and version of the file."""
    return load(checkpoint, device, dtype)


def _filled(
    images: Images,
    hidden: Mask | None,
    mask: str | None,
    network: tuple[Path | str | None, str | None, str | None, object],
    samples: int,
    floats: bool,
    first: int,
    how: dict[str, Any],
    block_info: Any = None,
) -> Images:
    """The samples of one block; the noise of an image depends on its number in the whole set.

    ``floats`` says that values must lie in [0, 1]: no data range was given.
    """
    model = _model(*network)
    first += block_info[0]["array-location"][0][0] if block_info else 0
    given = masks.read_mask(mask if hidden is None else by_pixel(hidden))
    holes = given.draw(images)
    if floats:
        known = images[~holes] if holes.ndim == 4 else without_alpha(images, model.channels)[~holes]
        if known.size and (known.min() < 0 or known.max() > 1):  # NaN is refused later
            raise InputError(f"images: a block has values from {known.min():g} to {known.max():g}: {GIVE_RANGE}")
    some = given if holes.any() else holes  # a block may have no holes where others have some
    filled: Images = inpaint_now(model, images, some, samples, first=first, **how)
    return filled


def by_pixel(mask: Mask) -> Mask:
    """A mask ``[N, H, W, C]`` as ``[N, H, W]`` where its channels are alike; others as they are."""
    alike = mask.ndim == 4 and bool((mask == mask[..., :1]).all())
    return mask[..., 0] if alike else mask


def inpaint(
    checkpoint: Path | str | Prior | None,
    images: Any,
    mask: Any = None,
    samples: int = defaults.SAMPLES,
    *,
    device: str | None = None,
    dtype: str | None = None,
    first: int = 0,
    **how: Any,
) -> Any:
    """Fill a dask array ``[N, H, W]`` or ``[N, H, W, C]``: a lazy array ``[N, samples, H, W]`` or ``..., C]``.

    It has the dtype of ``images``. ``checkpoint`` is a file that every worker can read, or the name of shipped weights.
    ``mask`` is bool, True = missing: a numpy or dask array ``[N, H, W]``, one ``[H, W]`` for all, ``[N, H, W, C]`` by
    channel, ``"nan"``, ``"alpha"`` or ``"value:V"``; None means the missing values of the images. Floats must lie in
    [0, 1] unless ``value_range`` gives their data range. ``device`` and ``dtype`` are those of :func:`inkfill.load`;
    ``how`` holds other arguments of :func:`inkfill.inpaint`, such as ``steps`` and ``seed``.

    ``checkpoint`` may be a model that was read from a file. ``first`` is the number of the first image.

    Samples do not depend on chunks or workers, except by float rounding: one grey value at most. Raises InputError;
    errors in a block are raised when it is computed.
    """
    da = needed("dask.array", "inkfill[dask]")
    if not isinstance(images, da.Array) or images.ndim not in (3, 4):
        raise InputError("images must be a dask array [N, H, W] or [N, H, W, C]")
    whole = images.rechunk(dict.fromkeys(range(1, images.ndim), -1))  # a block holds whole images
    if isinstance(checkpoint, Model) and checkpoint.source:
        device, dtype, checkpoint = str(checkpoint.device), str(checkpoint.dtype), checkpoint.source
    if isinstance(checkpoint, Prior):
        raise InputError("chunked images need a model that was read from a file: use inkfill.load")
    path = find_checkpoint(checkpoint)
    about = path.stat() if path.exists() else None
    network = (checkpoint, device, dtype, about and (about.st_mtime_ns, about.st_ino))
    model = _model(*network)  # bad weights are refused here, not in a block
    given = how.get("value_range") is not None
    floats = not given and range_of_type(images.dtype, model.value_range, model.image_dtype) is None
    if floats and images.dtype.kind != "f":
        raise InputError(f"images: {images.dtype} has no natural data range: {GIVE_RANGE}")
    how |= {"value_range": (0.0, 1.0)} if floats else {}
    hidden = None
    if isinstance(mask, str) and not masks.read_mask(mask).of_images:
        raise InputError(f"mask: a spec needs all images at once: draw {mask!r} first (inkfill.data.masks.fit)")
    if mask is not None and not isinstance(mask, str):
        each = mask if isinstance(mask, da.Array) else da.from_array(np.asarray(mask, bool))
        each = da.broadcast_to(each, images.shape[:3]) if each.shape == images.shape[1:3] else each
        if each.shape not in (images.shape, images.shape[:3]):
            shapes = f"{images.shape[:3]}, {images.shape[1:3]} or, by channel, {images.shape}"
            raise InputError(f"mask: its shape {each.shape} must be {shapes}")
        each = each if each.ndim == images.ndim else each[..., None]  # dask matches blocks from the last axis on
        hidden = each.rechunk((whole.chunks[0], *[-1] * (images.ndim - 1)))
    meta, chunks = np.empty((0,) * (images.ndim + 1), images.dtype), (whole.chunks[0], (samples,), *whole.chunks[1:])
    block = (hidden, mask if hidden is None else None, network, samples, floats, first, how)
    return da.map_blocks(_filled, whole, *block, dtype=images.dtype, new_axis=[1], chunks=chunks, meta=meta)
