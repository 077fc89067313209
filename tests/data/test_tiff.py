"""TIFF of any dtype and number of bands, read with tifffile, and written with the tags of the input."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from helpers import images_of, must_refuse
from inkfill.data import readers, tiff
from inkfill.data.masks import read_mask

DTYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]
GEO = [
    (33550, 12, 3, (30.0, 30.0, 0.0), True),
    (33922, 12, 6, (0.0, 0.0, 0.0, 1 / 3, 2.0, 0.0), True),
    (34735, 3, 8, (1, 1, 0, 1, 1024, 0, 1, 1), True),
    (34736, 12, 2, (6378137.0, 298.257223563), True),
    (34737, 2, 0, "WGS 84|", True),
    (42112, 2, 0, "<GDALMetadata>\n<Item>caf\xe9</Item></GDALMetadata>".encode(), True),
    (42113, 2, 0, "-9999", True),
]


def save(path, values, **named):
    planes = {"planarconfig": "contig"} if values.ndim == 3 and "planarconfig" not in named else {}
    tifffile.imwrite(path, values, **{"photometric": "minisblack", "metadata": None, **planes, **named})
    return path


def raw_tags(path, page=0):
    with tifffile.TiffFile(path) as file:
        found = {}
        for tag in file.pages[page].tags.values():
            file.filehandle.seek(tag.valueoffset)
            found[tag.code] = (int(tag.dtype), tag.count, file.filehandle.read(tag.valuebytecount))
        return found


def written(path, values, source):
    tiff.write(path, [tiff.Page(values, source)], values.nbytes)
    return path


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bands", [0, 1, 2, 3, 4, 5, 32])
def test_every_dtype_and_number_of_bands_comes_back(dtype, bands, tmp_path):
    values = images_of(dtype, (12, 14, bands) if bands else (12, 14))
    stored = values[..., 0] if bands == 1 else values
    (found,) = readers.read_frames(save(tmp_path / "in.tif", stored))
    np.testing.assert_array_equal(found, stored)
    assert found.dtype == dtype
    (back,) = readers.read_frames(written(tmp_path / "out.tif", values, tmp_path / "in.tif"))
    assert back.tobytes() == found.tobytes()
    assert (back.dtype, back.shape) == (found.dtype, found.shape)


def test_planes_are_channels_and_pages_are_frames(tmp_path):
    values = images_of("float32", (3, 12, 14))
    (found,) = readers.read_frames(save(tmp_path / "planes.tif", values, planarconfig="separate"))
    np.testing.assert_array_equal(found, np.moveaxis(values, 0, -1))
    with tifffile.TiffWriter(tmp_path / "pages.tif") as writer:
        for page in values:
            writer.write(page, metadata=None)
    images, sources = readers.read_pictures([tmp_path / "pages.tif"])
    np.testing.assert_array_equal(images, values)
    assert [source.name for source in sources] == ["pages-0", "pages-1", "pages-2"]


@pytest.mark.parametrize("compression", ["lzw", "deflate", "zstd", "lerc"])
def test_compressed_values(compression, tmp_path):
    values = images_of("float32", (24, 32, 5))
    (found,) = readers.read_frames(save(tmp_path / "in.tif", values, compression=compression, predictor=None))
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_overviews_and_masks_are_no_frames(dtype, tmp_path):
    """As cloud-optimised GeoTIFFs have them."""
    values = images_of(dtype, (32, 32))
    with tifffile.TiffWriter(tmp_path / "cog.tif") as writer:
        writer.write(values, metadata=None)
        writer.write(values[::2, ::2], metadata=None, subfiletype=1)
        writer.write(values > 0, metadata=None, subfiletype=4)
    (found,) = readers.read_frames(tmp_path / "cog.tif")
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("bands", [2, 4])
def test_a_band_is_not_taken_for_alpha(bands, tmp_path):
    values = images_of("uint8", (12, 14, bands))
    (found,) = readers.read_frames(save(tmp_path / "bands.tif", values))
    np.testing.assert_array_equal(found, values)
    photometric = {"photometric": "rgb", "extrasamples": [0]} if bands == 4 else {"extrasamples": [0]}
    (found,) = readers.read_frames(save(tmp_path / "more.tif", values, **photometric))
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_as_pillow_does(orientation, tmp_path):
    values = images_of("uint8", (12, 14))
    tags = {"extratags": [(274, 3, 1, orientation, True)]}
    (expected,) = readers.read_frames(save(tmp_path / "bytes.tif", values, **tags))
    (found,) = readers.read_frames(save(tmp_path / "floats.tif", values.astype(np.float32), **tags))
    np.testing.assert_array_equal(found, expected)
    assert (orientation == 1) == (found.shape == values.shape and bool((found == values).all()))


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_tags_are_carried_over(byteorder, dtype, tmp_path):
    values = images_of(dtype, (12, 14))
    told = {"resolution": ((300, 1), (150, 7)), "resolutionunit": 3, "description": "a dem", "software": "mine"}
    save(tmp_path / "in.tif", values, extratags=GEO, byteorder=byteorder, **told)
    written(tmp_path / "out.tif", values, tmp_path / "in.tif")
    with tifffile.TiffFile(tmp_path / "in.tif") as one, tifffile.TiffFile(tmp_path / "out.tif") as two:
        for code in (270, 282, 283, 296, 305, *(tag[0] for tag in GEO)):
            assert two.pages[0].tags[code].value == one.pages[0].tags[code].value
        assert two.pages[0].nodata == one.pages[0].nodata == (-9999 if dtype == "float32" else 0)
    if byteorder == "<":
        before, after = raw_tags(tmp_path / "in.tif"), raw_tags(tmp_path / "out.tif")
        assert {code: before[code] for code, *_ in GEO} == {code: after[code] for code, *_ in GEO}


def test_descriptions_of_a_stack_and_foreign_profiles_are_dropped(tmp_path):
    values = images_of("uint8", (12, 14, 3))
    tags = {"extratags": [(34675, 7, 8, b"\0" * 8, True)], "photometric": "rgb"}
    save(tmp_path / "in.tif", values, description='{"shape": [7, 12, 14]}', **tags)
    assert 34675 in raw_tags(written(tmp_path / "colour.tif", values, tmp_path / "in.tif"))
    found = raw_tags(written(tmp_path / "grey.tif", values[..., 0], tmp_path / "in.tif"))
    assert 34675 not in found
    assert 270 not in found


def test_broken_tags_do_not_lose_the_samples(tmp_path):
    values = images_of("float32", (12, 14))
    save(tmp_path / "in.tif", values, resolution=((7, 3), (5, 2)), extratags=GEO)
    body, tag = bytearray((tmp_path / "in.tif").read_bytes()), raw_tags(tmp_path / "in.tif")
    at = body.index(tag[282][2])
    body[at : at + 8] = bytes(8)
    (tmp_path / "in.tif").write_bytes(body)
    written(tmp_path / "out.tif", values, tmp_path / "in.tif")
    np.testing.assert_array_equal(readers.read_frames(tmp_path / "out.tif")[0], values)


def test_one_bit_is_written_for_bool(tmp_path):
    values = images_of("bool", (12, 14))
    written(tmp_path / "out.tif", values, None)
    assert Image.open(tmp_path / "out.tif").mode == "1"
    np.testing.assert_array_equal(readers.read_frames(tmp_path / "out.tif")[0] > 0, values)


def test_too_many_bands_or_pixels_are_refused(tmp_path, monkeypatch):
    must_refuse(lambda: readers.read_frames(save(tmp_path / "a.tif", images_of("uint8", (12, 14, 33)))), "33 bands")
    monkeypatch.setattr(readers, "MAX_BYTES", 3000)
    must_refuse(lambda: readers.read_frames(save(tmp_path / "b.tif", images_of("float32", (12, 64)))), "cut it")


def test_without_tifffile_one_line_names_it(tmp_path, monkeypatch):
    deep, plain = (save(tmp_path / f"{dtype}.tif", images_of(dtype, (12, 14))) for dtype in ("float32", "uint8"))
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    must_refuse(lambda: readers.read_frames(deep), "float32.tif", "pip install inkfill[tiff]")
    assert readers.read_frames(plain)[0].dtype == np.uint8
    assert not tiff.available()


def test_without_imagecodecs_one_line_names_it(tmp_path, monkeypatch):
    path = save(tmp_path / "in.tif", images_of("float32", (24, 32, 5)), compression="lzw")
    monkeypatch.setattr(tifffile.tifffile, "imagecodecs", __import__("tifffile._imagecodecs", fromlist=["x"]))
    tifffile.TIFF.__dict__.pop("DECOMPRESSORS", None)
    tifffile.TIFF.__dict__.pop("IMAGE_DECOMPRESSORS", None)
    must_refuse(lambda: readers.read_frames(path), "in.tif", "pip install inkfill[tiff]")


def test_a_mask_of_floats_or_bits(tmp_path):
    mask = images_of("bool", (12, 14))
    for dtype in ("float32", "int16", "bool"):
        path = save(tmp_path / f"{dtype}.tif", mask.astype(dtype))
        np.testing.assert_array_equal(read_mask(str(path)).array[0], mask)
    must_refuse(lambda: read_mask(str(save(tmp_path / "x.tif", images_of("float32", (12, 14))))), "not binary")


def test_mutated_tiff_files_are_read_or_refused(tmp_path):
    """300 random mutations of a file with tags: each is read or refused in one line, and its tags never fail."""
    save(tmp_path / "whole.tif", images_of("float32", (12, 14, 5)), extratags=GEO, resolution=((7, 3), (5, 2)))
    body, rng, path = (tmp_path / "whole.tif").read_bytes(), np.random.default_rng(0), tmp_path / "mutated.tif"
    for _ in range(300):
        mutated = bytearray(body)
        for place in rng.integers(min(len(body), 900), size=rng.integers(1, 8)):
            mutated[place] = rng.integers(256)
        path.write_bytes(mutated[: rng.integers(1, len(mutated) + 1)] if rng.random() < 0.3 else mutated)
        try:
            frames = readers.read_frames(path)
        except readers.InputError:
            continue
        if all(frame.dtype.name in DTYPES for frame in frames):
            written(tmp_path / "out.tif", frames[0], path)
