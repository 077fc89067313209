"""Image files in, image files like them out: names, TIFF, palettes, masks by name."""

import numpy as np
import pytest
import tifffile
from PIL import Image

import inkfill
from helpers import images_of, model_of, refused, run, saved
from inkfill.errors import InputError
from inkfill.files import MANIFEST

HOLE = np.zeros((16, 16), bool)
HOLE[4:9, 5:10] = True
QUICK = ["--samples", 1, "--steps", 1, "--dtype", "float32"]


@pytest.fixture
def colour(tmp_path):
    return saved(model_of(3, (16, 16), black=None), tmp_path / "colour.safetensors")


@pytest.fixture
def metres(tmp_path):
    model = model_of(1, (16, 16), black=None, number_type="float32", value_range=(0.0, 4000.0))
    return saved(model, tmp_path / "metres.safetensors")


def save(path, pixels, **named):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path, **named)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)


def pixels_of(path):
    return np.asarray(Image.open(path))


def dem(path, holes=True):
    heights = images_of("float32", (16, 16)) * 4000
    if holes:
        heights[HOLE] = np.nan
    geo = [(33550, 12, 3, (30.0, 30.0, 0.0), True), (42113, 2, 0, "-9999", True)]
    tifffile.imwrite(path, heights, metadata=None, extratags=geo)
    return heights


def check_dem(path, heights):
    back = tifffile.imread(path)
    assert back.dtype == np.float32
    assert np.isfinite(back).all()
    assert back[~HOLE].tobytes() == heights[~HOLE].tobytes()
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].tags[33550].value == (30.0, 30.0, 0.0)
        assert file.pages[0].nodata == -9999


def test_geotiff_in_geotiff_out(tmp_path, metres):
    (tmp_path / "in").mkdir()
    heights = dem(tmp_path / "in" / "dem.tif")
    words = ["--mask", "nan", *QUICK, "--checkpoint", metres, "--out"]
    assert run("inpaint", tmp_path / "in" / "dem.tif", *words, tmp_path / "filled.tif") == 0
    check_dem(tmp_path / "filled.tif", heights)
    assert run("inpaint", tmp_path / "in", *words, tmp_path / "filled") == 0
    assert names(tmp_path / "filled") == ["dem.tif"]
    check_dem(tmp_path / "filled" / "dem.tif", heights)
    assert run("inpaint", tmp_path / "in", *words, tmp_path / "pages.tif", "--samples", 3) == 0
    with tifffile.TiffFile(tmp_path / "pages.tif") as file:
        assert len(file.pages) == 3
        assert all(page.nodata == -9999 for page in file.pages)


def test_one_sample_into_a_tiff_is_the_default(tmp_path, metres):
    dem(tmp_path / "dem.tif")
    words = ["--mask", "nan", "--steps", 1, "--checkpoint", metres, "--out"]
    assert run("inpaint", tmp_path / "dem.tif", *words, tmp_path / "filled.tif") == 0
    assert tifffile.imread(tmp_path / "filled.tif").shape == (16, 16)


def test_an_array_of_any_dtype_into_a_tiff(tmp_path, metres):
    images = images_of("float64", (2, 16, 16)) * 4000
    np.save(tmp_path / "a.npy", images)
    words = ["--mask", "half:left", *QUICK, "--checkpoint", metres, "--out"]
    assert run("inpaint", tmp_path / "a.npy", *words, tmp_path / "filled.tif") == 0
    back = tifffile.imread(tmp_path / "filled.tif")
    assert back.dtype == np.float64
    np.testing.assert_array_equal(back[..., 8:], images[..., 8:])


def test_unconditional_samples_into_a_tiff(tmp_path, metres):
    assert run("sample", "--count", 3, "--steps", 1, "--checkpoint", metres, "--out", tmp_path / "new.tif") == 0
    with tifffile.TiffFile(tmp_path / "new.tif") as file:
        assert [page.shape for page in file.pages] == [(16, 16)] * 3
        assert file.pages[0].dtype == np.float32


def test_without_tifffile_bytes_go_on_as_png(tmp_path, colour, metres, monkeypatch, capsys):
    save(tmp_path / "in" / "a.tif", images_of("uint8", (16, 16, 3)))
    dem(tmp_path / "dem.tif")
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    words = ["--mask", "box:6", *QUICK, "--checkpoint"]
    assert run("inpaint", tmp_path / "in", *words, colour, "--out", tmp_path / "filled") == 0
    assert "pip install inkfill[tiff]" in capsys.readouterr().err
    assert names(tmp_path / "filled") == ["a.png"]
    says = ["pip install inkfill[tiff]"]
    refused(capsys, "inpaint", tmp_path / "dem.tif", *words, metres, "--out", tmp_path / "x.npy", says=says)
    refused(capsys, "inpaint", tmp_path / "in", *words, colour, "--out", tmp_path / "x.tif", says=says)


def test_bands_of_floats_are_not_made_opaque(tmp_path, capsys):
    """Three bytes a pixel may be colour for weights with alpha; three measured bands are not four."""
    weights = saved(model_of(4, (16, 16)), tmp_path / "four.safetensors")
    bands = images_of("float32", (16, 16, 3))
    tifffile.imwrite(tmp_path / "bands.tif", bands, photometric="minisblack", planarconfig="contig", metadata=None)
    words = ["--mask", "box:6", *QUICK, "--checkpoint", weights, "--out", tmp_path / "x.tif"]
    refused(capsys, "inpaint", tmp_path / "bands.tif", *words, says=["bands.tif", "weights expect"])


def test_floats_do_not_fit_a_png(tmp_path, metres, capsys):
    dem(tmp_path / "dem.tif")
    words = ["--mask", "nan", *QUICK, "--checkpoint", metres, "--out", tmp_path / "x.png"]
    refused(capsys, "inpaint", tmp_path / "dem.tif", *words, says=["float32", ".tif"])


def test_one_sample_keeps_the_name_of_its_image(tmp_path, colour):
    for name in ("a", "b"):
        save(tmp_path / "in" / f"{name}.png", images_of("uint8", (16, 16, 3)))
    words = ["inpaint", tmp_path / "in", "--mask", "box:6", *QUICK, "--checkpoint", colour, "--out"]
    assert run(*words, tmp_path / "one") == 0
    assert names(tmp_path / "one") == ["a.png", "b.png"]
    assert run(*words, tmp_path / "mean", "--samples", 3, "--keep", "mean") == 0
    assert names(tmp_path / "mean") == ["a.png", "b.png"]
    assert run(*words, tmp_path / "two", "--samples", 2) == 0
    assert names(tmp_path / "two") == ["a_00.png", "a_01.png", "b_00.png", "b_01.png"]


@pytest.mark.parametrize("end", ["_mask", ".mask", "-mask"])
@pytest.mark.parametrize("place", ["in", "masks"])
def test_masks_called_after_their_images(end, place, tmp_path, colour):
    """Beside the images, or in another folder; ``a`` and ``a1`` sort in another order than their masks."""
    holes = {"a": HOLE, "a1": np.roll(HOLE, 5, 0)}
    for i, (name, hole) in enumerate(holes.items()):
        save(tmp_path / "in" / f"{name}.png", images_of("uint8", (16, 16, 3), i))
        save(tmp_path / place / f"{name}{end}.png", hole.astype(np.uint8) * 255)
    words = ["--mask", tmp_path / place, *QUICK, "--checkpoint", colour, "--out"]
    assert run("inpaint", tmp_path / "in", *words, tmp_path / "filled") == 0
    assert names(tmp_path / "filled") == ["a.png", "a1.png"]
    model = inkfill.load(colour)
    python = inkfill.inpaint(model, str(tmp_path / "in"), str(tmp_path / place), 1, steps=1)
    for i, (name, hole) in enumerate(holes.items()):
        before = images_of("uint8", (16, 16, 3), i)
        for filled in (pixels_of(tmp_path / "filled" / f"{name}.png"), python[i, 0]):
            np.testing.assert_array_equal(filled[~hole], before[~hole])
            assert (filled[hole] != before[hole]).any(-1).mean() > 0.5


def test_one_image_takes_its_own_of_many_masks(tmp_path, colour, capsys):
    image = save(tmp_path / "in" / "b.png", images_of("uint8", (16, 16, 3)))
    for i, name in enumerate("abc"):
        save(tmp_path / "masks" / f"{name}.png", np.roll(HOLE, i, 0).astype(np.uint8) * 255)
    words = ["--mask", tmp_path / "masks", *QUICK, "--checkpoint", colour, "--out"]
    assert run("inpaint", image, *words, tmp_path / "out.png") == 0
    same = (pixels_of(tmp_path / "out.png") == pixels_of(image)).all(-1)
    assert same[~np.roll(HOLE, 1, 0)].all()
    assert not same.all()
    other = save(tmp_path / "in" / "d.png", images_of("uint8", (16, 16, 3)))
    capsys.readouterr()
    refused(capsys, "inpaint", other, *words, tmp_path / "x.png", says=["no mask is called d"])


def test_palettes_and_jpeg_are_said_once(tmp_path, colour, capsys):
    for name in "ab":
        picture = Image.fromarray(images_of("uint8", (16, 16, 3))).quantize(5)
        (tmp_path / "in").mkdir(exist_ok=True)
        picture.save(tmp_path / "in" / f"{name}.png")
        save(tmp_path / "photos" / f"{name}.jpg", images_of("uint8", (16, 16, 3)))
    words = ["--mask", "box:6", *QUICK, "--checkpoint", colour, "--out"]
    assert run("inpaint", tmp_path / "in", *words, tmp_path / "plain") == 0
    assert capsys.readouterr().err.count("--palette keep") == 1
    assert Image.open(tmp_path / "plain" / "a.png").mode == "RGB"
    assert run("inpaint", tmp_path / "in", *words, tmp_path / "kept", "--palette", "keep") == 0
    assert "palette" not in capsys.readouterr().err
    kept, before = (Image.open(tmp_path / folder / "a.png") for folder in ("kept", "in"))
    assert kept.mode == "P"
    assert kept.getpalette() == before.getpalette()
    same = np.asarray(kept) == np.asarray(before)
    assert same[:5].all()
    assert same[11:].all()
    assert run("inpaint", tmp_path / "photos", *words, tmp_path / "png") == 0
    assert capsys.readouterr().err.count("JPEG images") == 1
    assert names(tmp_path / "png") == ["a.png", "b.png"]


def test_a_palette_and_one_bit_in_a_tiff(tmp_path, colour):
    picture = Image.fromarray(images_of("uint8", (16, 16, 3))).quantize(5)
    (tmp_path / "in").mkdir()
    picture.save(tmp_path / "in" / "classes.tif")
    words = ["--mask", "box:6", *QUICK, "--checkpoint", colour, "--out", tmp_path / "out", "--palette", "keep"]
    assert run("inpaint", tmp_path / "in", *words) == 0
    back = Image.open(tmp_path / "out" / "classes.tif")
    assert back.mode == "P"
    assert back.getpalette()[:15] == Image.open(tmp_path / "in" / "classes.tif").getpalette()[:15]
    np.testing.assert_array_equal(np.asarray(back)[:5], np.asarray(picture)[:5])


def test_lists_of_paths(tmp_path, capsys):
    model = model_of(3, (16, 16))
    paths = [save(tmp_path / f"{name}.png", images_of("uint8", (16, 16, 3), i)) for i, name in enumerate("ab")]
    whole = inkfill.inpaint(model, np.stack([pixels_of(path) for path in paths]), "box:6", 1, steps=1)
    np.testing.assert_array_equal(inkfill.inpaint(model, list(map(str, paths)), "box:6", 1, steps=1), whole)
    small = save(tmp_path / "small.png", images_of("uint8", (12, 16, 3)))
    assert [each.shape for each in inkfill.inpaint(model, [*paths, small], "box:6", 1, steps=1)][2] == (1, 12, 16, 3)
    with pytest.raises(InputError, match="pictures"):
        inkfill.inpaint(model, [str(paths[0]), "a.npy"], "box:6", 1)


def test_masks_are_taken_as_what_they_are(tmp_path):
    """Pillow images of any mode, integer arrays of 0 and 1 or 255, files, and lists of them."""
    model, image = model_of(3, (16, 16)), images_of("uint8", (1, 16, 16, 3))
    expected = inkfill.inpaint(model, image, HOLE, 1, steps=1)
    white = Image.fromarray(HOLE.astype(np.uint8) * 255)
    path = save(tmp_path / "mask.png", HOLE.astype(np.uint8))
    integers = [HOLE.astype(np.uint8), HOLE.astype(np.int64) * 255]
    for mask in (white, white.convert("1"), white.convert("RGB"), [white], path, [path], *integers):
        np.testing.assert_array_equal(inkfill.inpaint(model, image, mask, 1, steps=1), expected)
    two = [image[0], image[0, :12]]
    filled = inkfill.inpaint(model, two, [white, white.crop((0, 0, 16, 12))], 1, steps=1)
    assert (filled[1][0][~HOLE[:12]] == image[0, :12][~HOLE[:12]]).all()
    for wrong in (np.arange(256).reshape(16, 16), HOLE.astype(np.uint8) * 2, HOLE.astype(np.float32)):
        with pytest.raises(InputError, match="give bool"):
            inkfill.inpaint(model, image, wrong, 1, steps=1)
