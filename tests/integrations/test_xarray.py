"""xarray in, xarray out: labels, layouts, masks, lazy arrays and Datasets."""

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

import inkfill
from helpers import images_of, incomplete, model_of, must_refuse, saved
from inkfill.integrations import xarray as labelled

HOW = {"samples": 2, "steps": 2, "seed": 3}


@pytest.fixture
def grey():
    """A model of grey floats, read from nothing."""
    return model_of(1, number_type="float32", value_range=(0.0, 1.0))


@pytest.fixture
def colour(tmp_path):
    """A model of three bands, read from a file."""
    path = saved(model_of(3, number_type="float32", value_range=(0.0, 1.0)), tmp_path / "bands.safetensors")
    return inkfill.load(path, dtype="float32")


def scenes(bands: int = 3, count: int = 4) -> xr.DataArray:
    """Images ``(time, band, y, x)`` with pixels that are missing in all bands, and labels of every kind."""
    pixels, mask = incomplete(images_of("uint8", (count, 12, 10)))
    values = np.stack([np.where(mask, np.nan, pixels * (1 - 0.1 * i)) for i in range(bands)], 1).astype(np.float32)
    coords = {
        "time": np.datetime64("2024-01-01") + np.arange(count),
        "band": [f"B{i}" for i in range(bands)],
        "y": np.linspace(60, 50, 12),
        "x": np.linspace(5, 9, 10),
        "height": (("y", "x"), np.ones((12, 10))),
        "spatial_ref": 0,
    }
    return xr.DataArray(values, coords, ("time", "band", "y", "x"), "reflectance", {"units": "1"})


def stacked(images: xr.DataArray) -> np.ndarray:
    """The values of scenes as ``[N, H, W, C]``."""
    return np.moveaxis(images.to_numpy(), 1, -1)


def observed_alike(filled: xr.DataArray, images: xr.DataArray) -> bool:
    """Whether nothing is missing, and all that was observed is the same bit for bit, in dtype too."""
    same = all((one.to_numpy().view("u4") == images.to_numpy().view("u4"))[images.notnull()].all() for one in filled)
    return filled.dtype == images.dtype and bool(filled.notnull().all()) and same


def test_labels_are_kept_after_a_dimension_of_samples(colour):
    images = scenes()
    filled = inkfill.inpaint(colour, images, **HOW)
    assert filled.dims == ("sample", "time", "band", "y", "x")
    assert (filled.name, filled.attrs) == (images.name, images.attrs)
    assert filled.coords.to_dataset().identical(images.coords.to_dataset())
    assert observed_alike(filled, images)
    want = inkfill.inpaint(colour, stacked(images), **HOW)  # [N, K, H, W, C]
    np.testing.assert_array_equal(filled.transpose("time", "sample", "y", "x", "band"), want)


@pytest.mark.parametrize(
    ("dims", "names"),
    [
        (("lat", "lon"), None),
        (("longitude", "latitude", "level", "member"), None),
        (("member", "x", "y"), None),
        (("row", "member", "column"), ("row", "column")),
    ],
)
def test_images_are_found_by_name_in_any_order(grey, dims, names):
    rows, columns = names or next(pair for pair in labelled.ROWS_AND_COLUMNS if set(pair) <= set(dims))
    sizes = {rows: 9, columns: 11, "level": 2, "member": 3}
    images = xr.DataArray(images_of("float32", [sizes[dim] for dim in dims]), dims=dims)
    images = images.where(images > 0.3)
    filled = labelled.inpaint(grey, images, dims=names, **HOW)
    assert filled.dims == ("sample", *dims)
    assert observed_alike(filled, images)
    flat = images.transpose(..., rows, columns).to_numpy().reshape(-1, 9, 11)
    want = inkfill.inpaint(grey, flat, **HOW)  # [N, K, H, W]
    np.testing.assert_array_equal(
        filled.transpose("sample", ..., rows, columns).to_numpy().reshape(2, -1, 9, 11), np.moveaxis(want, 1, 0)
    )


def test_dtypes_and_one_band(grey):
    """A dimension of one band is a channel; without channels every band is an image. Integers stay integers."""
    images = scenes(bands=1)
    want = inkfill.inpaint(grey, images[:, 0], **HOW)
    np.testing.assert_array_equal(inkfill.inpaint(grey, images, **HOW)[:, :, 0], want)
    each = labelled.inpaint(grey, scenes(), channel="", **HOW)
    assert each.dims == ("sample", "time", "band", "y", "x")
    whole = xr.DataArray(images_of("int16", (9, 9)), dims=("y", "x"))
    filled = inkfill.inpaint(model_of(1), whole, "half:left", value_range=(-32768, 32767), **HOW)
    assert filled.dtype == "int16"
    np.testing.assert_array_equal(filled[0, :, 5:], whole[:, 5:])


def test_masks_are_aligned_by_their_coordinates(colour):
    """A mask of another order, of more labels, of fewer dimensions, without labels: all mean the same."""
    images = scenes().fillna(0.5)
    mask = xr.DataArray(np.random.default_rng(1).random((4, 12, 10)) < 0.3, scenes()[:, 0].coords, ("time", "y", "x"))
    want = inkfill.inpaint(colour, stacked(images), mask.to_numpy(), **HOW)
    more = mask.pad(time=(0, 2), constant_values=True).assign_coords(time=np.datetime64("2024-01-01") + np.arange(6))
    for same in (
        mask,
        mask[:, ::-1].transpose("x", "y", "time"),
        more[::-1],
        mask.to_numpy(),
        mask.expand_dims(band=images.band),
        mask.expand_dims(band=images.band).transpose(*images.dims).to_numpy(),
        mask.drop_vars(["time", "y", "x"]),
    ):
        filled = inkfill.inpaint(colour, images, same, **HOW)
        np.testing.assert_array_equal(filled.transpose("time", "sample", "y", "x", "band"), want)
    one = inkfill.inpaint(colour, images, mask[0].drop_vars("time"), **HOW)
    np.testing.assert_array_equal(one, inkfill.inpaint(colour, images, mask[0].to_numpy(), **HOW))


def test_masks_that_do_not_fit_are_refused(colour):
    images = scenes()
    mask = images.isnull()[:, 0]
    for bad, words in (
        (mask.assign_coords(y=np.arange(12)), ["mask: its coordinates y do not fit those of the images"]),
        (mask[:, 1:], ["its coordinates y"]),
        (mask[:, 1:].drop_vars("y"), ["y: 11", "y: 12", "sizes must agree"]),
        (mask.rename(time="day"), ["the images have no dimension day"]),
        (mask.astype(int), ["dtype int64: give bool"]),
        (np.zeros((12, 11), bool), ["(12, 11)", "(4, 3, 12, 10) or (4, 12, 10) or (12, 10)"]),
    ):
        must_refuse(lambda bad=bad: inkfill.inpaint(colour, images, bad, **HOW), *words)


def test_images_without_a_layout_are_refused(colour):
    images = scenes()
    for bad, how, words in (
        (images.rename(y="v"), {}, ["time, band, v, x", 'dims=("y", "x")']),
        (images, {"dims": ("y", "z")}, ["rows and columns are not among the dimensions"]),
        (images, {"dims": ("y", "y")}, ["rows and columns are not among the dimensions"]),
        (images, {"channel": "colour"}, ["colour is not among the dimensions"]),
        (images, {"channel": "x"}, ["which dimension are channels"]),
        (images.rename(time="channel"), {}, ["which dimension are channels, band or channel?"]),
        (images.rename(time="sample"), {}, ["sample is the dimension of samples: rename it"]),
        (images[..., :4], {}, ["12x4 pixels"]),
        (images[:0], {}, ["empty", "time: 0"]),
        (images.to_numpy(), {}, ["not a ndarray"]),
    ):
        must_refuse(lambda bad=bad, how=how: labelled.inpaint(colour, bad, **HOW, **how), *words)


@pytest.mark.parametrize("chunks", [{"time": 1}, {"time": 3, "y": 5, "band": 1}, {"x": 2}])
def test_chunked_arrays_are_filled_lazily_with_the_same_samples(colour, chunks):
    pytest.importorskip("dask.array")
    images = scenes()
    want = inkfill.inpaint(colour, images, **HOW)
    lazy = inkfill.inpaint(colour, images.chunk(chunks), **HOW)
    assert lazy.chunks is not None
    assert lazy.drop_vars("height").coords.to_dataset().identical(want.drop_vars("height").coords.to_dataset())
    np.testing.assert_allclose(lazy, want, atol=1e-5)
    assert observed_alike(lazy.compute(), images)
    for mask in (images.isnull(), images.chunk(chunks).isnull(), images.isnull()[:, 0]):
        again = inkfill.inpaint(colour, images.fillna(0.5).chunk(chunks), mask, **HOW)
        np.testing.assert_allclose(again, want, atol=1e-5)


def test_observed_bands_of_a_pixel_come_back(colour):
    """Where another band is missing; in chunks with and without missing values."""
    pytest.importorskip("dask.array")
    images = scenes().fillna(0.5)
    images[1:3, 1, 2:6, 3:7] = np.nan
    want = inkfill.inpaint(colour, images, **HOW)
    assert observed_alike(want, images)
    for given, mask in ((images, None), (images, "nan"), (images.fillna(0.5), images.isnull())):
        lazy = inkfill.inpaint(colour, given.chunk(time=1), mask, **HOW).compute()
        for filled in (lazy, inkfill.inpaint(colour, given, mask, **HOW)):
            np.testing.assert_allclose(filled, want, atol=1e-5)
            assert observed_alike(filled, images)


def test_chunks_of_several_dimensions_and_the_number_of_the_first_image(colour):
    pytest.importorskip("dask.array")
    images = xr.concat([scenes(), scenes() * 0.5], "tile")
    want = inkfill.inpaint(colour, images, **HOW)
    np.testing.assert_allclose(inkfill.inpaint(colour, images.chunk(tile=1, time=3), **HOW), want, atol=1e-5)
    later = inkfill.inpaint(colour, images[1].chunk(time=2), first=4, **HOW)
    np.testing.assert_allclose(later, want[:, 1], atol=1e-5)


def test_chunked_arrays_need_a_model_from_a_file(grey):
    pytest.importorskip("dask.array")
    must_refuse(lambda: inkfill.inpaint(grey, scenes(1).chunk(), **HOW), "read from a file: use inkfill.load")


def variables() -> xr.Dataset:
    """Scenes as a Dataset, each band a variable with its own attributes."""
    images = scenes()
    each = {str(name): images.sel(band=name, drop=True).assign_attrs(band=str(name)) for name in images.band.values}
    return xr.Dataset(each, attrs={"title": "scenes"})


@pytest.mark.parametrize("chunks", [None, {"time": 3}])
def test_variables_of_a_dataset_are_channels(colour, chunks):
    images = variables()
    filled = inkfill.inpaint(colour, images.chunk(chunks) if chunks else images, **HOW)
    assert isinstance(filled, xr.Dataset)
    assert (list(filled), filled.attrs) == (list(images), images.attrs)
    want = inkfill.inpaint(colour, scenes(), **HOW)
    for name in images:
        assert filled[name].dims == ("sample", "time", "y", "x")
        assert filled[name].attrs == images[name].attrs
        np.testing.assert_allclose(filled[name], want.sel(band=name), atol=1e-5)
        assert observed_alike(filled[name].compute(), images[name])
    assert filled.coords.to_dataset().identical(images.coords.to_dataset()) or chunks
    complete = images.fillna(0.5)
    for mask in (images.isnull(), images.isnull()[["B2", "B0", "B1"]], images["B0"].isnull()):
        again = inkfill.inpaint(colour, complete.chunk(chunks) if chunks else complete, mask, **HOW)
        np.testing.assert_allclose(again["B1"], filled["B1"], atol=1e-5)


def test_a_dataset_of_one_variable_keeps_its_bands(colour):
    images = scenes().to_dataset()
    filled = inkfill.inpaint(colour, images, images.isnull(), **HOW)
    assert filled["reflectance"].identical(inkfill.inpaint(colour, scenes(), **HOW))


def test_datasets_that_do_not_fit_are_refused(colour):
    images = variables()
    for bad, mask, words in (
        (images.assign(B1=images.B1[0]), None, ["B0 is float32 (time: 4, y: 12, x: 10), B1 is float32 (y: 12"]),
        (images.assign(B1=images.B1.astype("f8")), None, ["B1 is float64", "select variables of one shape and dtype"]),
        (images.assign(B1=images.B1.transpose("y", ...)), None, ["B1 is float32 (y: 12, time: 4"]),
        (images[[]], None, ["no variables"]),
        (images.expand_dims("band"), None, ["variables of a Dataset are its channels"]),
        (images, images.isnull()[["B0", "B1"]], ["mask: the Dataset has no variable B2"]),
    ):
        must_refuse(lambda bad=bad, mask=mask: inkfill.inpaint(colour, bad, mask, **HOW), *words)


def test_inkfill_does_not_import_xarray():
    """Only an array of xarray makes it do so."""
    code = (
        "import sys, numpy as np, inkfill\n"
        "inkfill.inpaint(inkfill.load(), np.zeros((1, 28, 28), np.uint8), 'half:left', samples=1, steps=1)\n"
        "assert 'xarray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
