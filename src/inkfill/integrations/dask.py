"""Sets of images that no memory holds: the completions of a ``dask.array``, block by block, on any of its schedulers.

>>> import dask.array as da
>>> from inkfill.integrations import dask as lazy
>>> scans = da.from_zarr("scans.zarr")  # [N, H, W] or [N, H, W, C], with NaN where something is missing
>>> lazy.inpaint("mnist", scans, samples=4).to_zarr("filled.zarr")

Needs ``pip install inkfill[dask]``.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from inkfill import defaults
from inkfill.data import masks
from inkfill.data.images import Images, Mask, range_of_type, without_alpha
from inkfill.errors import InputError
from inkfill.filling.inpaint import inpaint as inpaint_now
from inkfill.models.model import Model, load

SAY_RANGE = "say what black and white are (value_range=(LOW, HIGH)), for blocks must agree on it"


@cache  # a process that works on many blocks reads the weights once
def _loaded(checkpoint: Path | str | None, device: str | None, dtype: str | None) -> Model:
    return load(checkpoint, device, dtype)


def _filled(
    images: Images,
    hidden: Mask | None,
    mask: str | None,
    network: tuple[Path | str | None, str | None, str | None],
    samples: int,
    fractions: bool,
    how: dict[str, Any],
    block_info: Any = None,
) -> Images:
    """The completions of one block; the noise of an image belongs to its number in the whole set."""
    first = block_info[0]["array-location"][0][0] if block_info else 0
    if hidden is not None:
        holes = hidden[..., 0] if images.ndim == 4 else hidden
    else:  # a block may have no holes where others have
        holes = masks.holes_of(images) if mask is None else masks.fit(mask, images)
    if fractions:
        known = without_alpha(images, _loaded(*network).channels)[~holes]
        if known.size and (known.min() < 0 or known.max() > 1):  # what is no number is said later
            raise InputError(f"values from {known.min():g} to {known.max():g} in a block: {SAY_RANGE}")
    filled: Images = inpaint_now(_loaded(*network), images, holes, samples, first=first, **how)
    return filled


def inpaint(
    checkpoint: Path | str | None,
    images: Any,
    mask: Any = None,
    samples: int = defaults.SAMPLES,
    *,
    device: str | None = None,
    dtype: str | None = None,
    **how: Any,
) -> Any:
    """The completions of a dask array ``[N, H, W]`` or ``[N, H, W, C]``: a dask array ``[N, samples, H, W]`` (or
    ``..., C]``) of its number type, computed when it is asked for.

    ``checkpoint`` is a file that every worker can read, or the name of shipped weights; ``mask`` is bool, True =
    missing, a numpy or dask array ``[N, H, W]``, one ``[H, W]`` for all, or ``"nan"`` or ``"alpha"`` (None: the holes
    that the images have). A spec is drawn for a whole set, so draw it first. Fractions are from 0 to 1 if
    ``value_range`` does not say otherwise: no block knows the values of the others. ``device`` and ``dtype`` are those
    of :func:`inkfill.load`; ``how`` is what else :func:`inkfill.inpaint` takes, such as ``steps`` and ``seed``.

    What is filled does not depend on the chunks, nor on which worker fills them, but for the rounding of batches of
    other sizes: by a grey level at most. Raises InputError, of what a block holds when that block is computed.
    """
    try:
        import dask.array as da
    except ImportError:
        raise InputError("completions of dask arrays need dask: pip install inkfill[dask]") from None
    if not isinstance(images, da.Array) or images.ndim not in (3, 4):
        raise InputError("images must be a dask array [N, H, W] or [N, H, W, C]")
    whole = images.rechunk(dict.fromkeys(range(1, images.ndim), -1))  # a block holds whole images
    model = _loaded(checkpoint, device, dtype)  # what is wrong with the weights is said now
    by_type = range_of_type(images.dtype, model.value_range, model.image_dtype)
    unsaid = how.get("value_range") is None and by_type is None
    if unsaid and images.dtype.kind != "f":
        raise InputError(f"{images.dtype} values: {SAY_RANGE}")
    how |= {"value_range": (0.0, 1.0)} if unsaid else {}
    hidden = None
    if isinstance(mask, str) and mask not in masks.OF_IMAGES:
        raise InputError(f"a spec is drawn for a whole set of images: draw {mask!r} first (inkfill.data.masks.fit)")
    if mask is not None and not isinstance(mask, str):
        each = mask if isinstance(mask, da.Array) else da.from_array(np.asarray(mask, bool))
        each = da.broadcast_to(each, images.shape[:3]) if each.shape == images.shape[1:3] else each
        if each.shape != images.shape[:3]:
            raise InputError(f"the mask's shape is {each.shape}: {images.shape[:3]} or {images.shape[1:3]} is needed")
        hidden = each.rechunk((whole.chunks[0], -1, -1))
        hidden = hidden[..., None] if images.ndim == 4 else hidden  # blocks are matched from the last axis on
    meta, chunks = np.empty((0,) * (images.ndim + 1), images.dtype), (whole.chunks[0], (samples,), *whole.chunks[1:])
    given = (hidden, mask if hidden is None else None, (checkpoint, device, dtype), samples, unsaid, how)
    return da.map_blocks(_filled, whole, *given, dtype=images.dtype, new_axis=[1], chunks=chunks, meta=meta)
