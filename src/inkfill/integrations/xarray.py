"""Samples of an xarray ``DataArray`` or ``Dataset``, with its coordinates and attributes.

>>> import inkfill, xarray as xr
>>> scenes = xr.open_dataarray("scenes.nc")  # dimensions time, band, y, x, with NaN where something is missing
>>> filled = inkfill.inpaint(inkfill.load("runs/scenes"), scenes)  # dimensions sample, time, band, y, x

Needs ``pip install inkfill[xarray]``.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from pandas.errors import InvalidIndexError

from inkfill import defaults
from inkfill.core.denoiser import Prior
from inkfill.data.images import check_size
from inkfill.errors import InputError
from inkfill.filling.inpaint import inpaint as inpaint_now
from inkfill.integrations import dask as lazily

ROWS_AND_COLUMNS = (("y", "x"), ("lat", "lon"), ("latitude", "longitude"))
CHANNELS = ("band", "channel", "variable")
SAMPLE, VARIABLE = "sample", "variable"


def inpaint(
    model: Prior,
    images: Any,
    mask: Any = None,
    samples: int = defaults.SAMPLES,
    *,
    dims: tuple[Hashable, Hashable] | None = None,
    channel: Hashable | None = None,
    first: int = 0,
    **how: Any,
) -> Any:
    """Fill a DataArray or Dataset: the same with a first dimension ``sample``, in its dtype.

    ``dims`` names the dimensions of rows and columns, by default y and x, lat and lon, or latitude and longitude.
    ``channel`` names that of channels, by default band, channel or variable, if there is one; "" means none. The
    variables of a Dataset are its channels. Every index of the other dimensions is an image.

    ``mask`` is bool, True = missing: a DataArray (aligned by its coordinates; dimensions that it lacks share it), an
    array in the shape of ``images``, the same without channels, or one image; a spec or file; None means NaN.
    ``first`` and ``how`` are arguments of :func:`inkfill.inpaint`.

    Chunked arrays are filled lazily (:mod:`inkfill.integrations.dask`), by a model that was read from a file.
    Raises InputError.
    """
    if isinstance(images, xr.Dataset):
        return _inpaint_variables(model, images, mask, samples, dims=dims, channel=channel, first=first, **how)
    if not isinstance(images, xr.DataArray):
        raise InputError(f"images: give a DataArray or a Dataset, not a {type(images).__name__}")
    layout = _layout(images, dims, channel)
    hidden = _mask(mask, images, layout)
    if images.chunks is None:
        filled = inpaint_now(model, layout.stacked(images), hidden, samples, first=first, **how)
    else:
        filled = lazily.inpaint(model, layout.stacked(images), hidden, samples, first=first, **how)
    return layout.labelled(filled, images)


def _inpaint_variables(model: Prior, images: Any, mask: Any, samples: int, **how: Any) -> Any:
    """A Dataset: its variables are channels; a single variable is filled as a DataArray is."""
    variables = list(images.data_vars.values())
    if not variables:
        raise InputError("images: the Dataset has no variables")
    kinds = [(each.dims, each.shape, each.dtype) for each in variables]
    for each, kind in zip(variables, kinds, strict=True):
        if kind != kinds[0]:
            two = f"{variables[0].name} is {_words(variables[0])}, {each.name} is {_words(each)}"
            raise InputError(f"images: {two}: select variables of one shape and dtype")
        if isinstance(mask, xr.Dataset) and each.name not in mask.data_vars:
            raise InputError(f"mask: the Dataset has no variable {each.name}")
    if len(variables) == 1:
        mask = mask[variables[0].name] if isinstance(mask, xr.Dataset) else mask
        return inpaint(model, variables[0], mask, samples, **how).to_dataset().assign_attrs(images.attrs)
    if how["channel"] or any(name in images.dims for name in CHANNELS):
        raise InputError("images: the variables of a Dataset are its channels: select one variable to have others")
    mask = mask[list(images.data_vars)].to_dataarray(VARIABLE) if isinstance(mask, xr.Dataset) else mask
    filled = inpaint(model, images.to_dataarray(VARIABLE), mask, samples, **how | {"channel": VARIABLE})
    filled = filled.drop_attrs(deep=False)
    back = {each.name: filled.sel({VARIABLE: each.name}, drop=True).assign_attrs(each.attrs) for each in variables}
    return xr.Dataset(back, attrs=images.attrs)


def _words(array: Any) -> str:
    """Dtype and sizes of a DataArray, such as ``float32 (y: 64, x: 64)``."""
    return f"{array.dtype} ({', '.join(f'{dim}: {size}' for dim, size in array.sizes.items())})"


@dataclass(frozen=True)
class _Layout:
    """The dimensions of images: those that count them, then rows, columns and perhaps channels."""

    count: tuple[Hashable, ...]
    pixels: tuple[Hashable, Hashable]
    channel: tuple[Hashable, ...]  # one or none

    def stacked(self, array: Any) -> Any:
        """The values of a DataArray as ``[N, H, W]`` or, if it has channels, ``[N, H, W, C]``."""
        channel = tuple(dim for dim in self.channel if dim in array.dims)
        data = array.transpose(*self.count, *self.pixels, *channel).data
        number = len(self.count)
        return data.reshape(math.prod(data.shape[:number]), *data.shape[number:])

    def labelled(self, filled: Any, images: Any) -> Any:
        """Samples ``[N, K, ...]`` with the labels of the images, in the order of their dimensions after ``sample``."""
        data = filled.reshape(*(images.sizes[dim] for dim in self.count), *filled.shape[1:])
        dims = (*self.count, SAMPLE, *self.pixels, *self.channel)
        out = xr.DataArray(data, images.coords, dims, images.name, images.attrs)
        return out.transpose(SAMPLE, *images.dims)


def _layout(images: Any, dims: tuple[Hashable, Hashable] | None, channel: Hashable | None) -> _Layout:
    """The layout of images, from names that are given or usual. Raises InputError."""
    found = [pair for pair in ([dims] if dims else ROWS_AND_COLUMNS) if set(pair) <= set(images.dims)]
    if not found or len(set(found[0])) != 2:
        raise InputError(
            f"images: rows and columns are not among the dimensions {', '.join(map(str, images.dims))}: "
            'name them: inkfill.integrations.xarray.inpaint(..., dims=("y", "x"))'
        )
    if SAMPLE in images.dims or SAMPLE in images.coords:
        raise InputError(f"images: {SAMPLE} is the dimension of samples: rename it")
    if channel and channel not in images.dims:
        raise InputError(f"images: {channel} is not among the dimensions {', '.join(map(str, images.dims))}")
    names = [name for name in CHANNELS if name in images.dims] if channel is None else [channel] if channel else []
    pixels = found[0]
    if len(names) > 1 or set(names) & set(pixels):
        raise InputError(f"images: which dimension are channels, {' or '.join(map(str, names))}? give channel=NAME")
    if 0 in images.shape:
        raise InputError(f"images: empty: {_words(images)}")
    check_size(images.sizes[pixels[0]], images.sizes[pixels[1]], "images")
    count = tuple(dim for dim in images.dims if dim not in {*pixels, *names})
    return _Layout(count, pixels, tuple(names))


def _mask(mask: Any, images: Any, layout: _Layout) -> Any:
    """The mask as ``[N, H, W]``, or ``[N, H, W, C]`` where channels differ; None, specs and paths as they are."""
    if mask is None or isinstance(mask, (str, Path)):
        return mask
    labelled = _aligned(mask, images) if isinstance(mask, xr.DataArray) else _by_shape(mask, images, layout)
    if labelled.dtype != np.bool_:
        raise InputError(f"the mask has dtype {labelled.dtype}: give bool, True = missing")
    like = images.isel({dim: 0 for dim in layout.channel if dim not in labelled.dims}, drop=True)
    try:
        whole = labelled.broadcast_like(like)
    except ValueError:
        whole = labelled
    if whole.sizes != like.sizes:
        raise InputError(f"mask: it is {_words(labelled)}, the images are {_words(like)}: sizes must agree")
    hidden = layout.stacked(whole)
    return hidden if whole.chunks is not None else lazily.by_pixel(hidden)


def _aligned(mask: Any, images: Any) -> Any:
    """A labelled mask at the coordinates of the images, in their order. Raises InputError where it has none."""
    for dim in mask.dims:
        if dim not in images.dims:
            raise InputError(f"mask: the images have no dimension {dim}")
        if dim in mask.indexes and dim in images.indexes and not mask.indexes[dim].equals(images.indexes[dim]):
            try:
                mask = mask.sel({dim: images.indexes[dim]})
            except (KeyError, InvalidIndexError):
                raise InputError(f"mask: its coordinates {dim} do not fit those of the images: use the same") from None
    return mask


def _by_shape(mask: Any, images: Any, layout: _Layout) -> Any:
    """A mask without labels, with the dimensions that its shape implies. Raises InputError."""
    array = xr.DataArray(mask)
    pixels = tuple(dim for dim in images.dims if dim in layout.pixels)
    choices = [images.dims, tuple(dim for dim in images.dims if dim not in layout.channel), pixels]
    shapes = [tuple(images.sizes[dim] for dim in dims) for dims in choices]
    if array.shape not in shapes:
        raise InputError(f"mask: its shape {array.shape} must be {' or '.join(map(str, dict.fromkeys(shapes)))}")
    return xr.DataArray(array.data, dims=choices[shapes.index(array.shape)])
