"""What image files say beside their pixels, in PNG outputs; and PNG of colour with 16 bits."""

import struct
import sys

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from helpers import images_of, must_refuse
from inkfill.data import deep_png, readers
from inkfill.data.details import Details, save_png
from inkfill.data.readers import Source

NOTHING = np.zeros((12, 14), bool)
COLOUR = images_of("uint8", (12, 14, 3))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def words():
    info = PngInfo()
    info.add_text("Title", "<script>alert(1)</script>")
    info.add_itxt("Author", "Zo\xeb", "fr", "Auteur")
    info.add_text("Long", "x" * 5000, zip=True)
    info.add_text("Raw profile type exif", "orientation, thumbnails")
    info.add(b"gAMA", struct.pack(">I", 55_555))
    return {"icc_profile": SRGB, "dpi": (300, 150), "pnginfo": info}


def again(source, out, pixels, missing=NOTHING, keep_palette=False):
    """The image file ``out``, written like ``source``."""
    save_png(out, pixels, readers.read_details(Source("a", source)), missing, keep_palette)
    with Image.open(out) as picture:
        picture.load()
        return picture


def test_profile_resolution_gamma_and_text_are_carried_over(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "in.png", **words())
    back = again(tmp_path / "in.png", tmp_path / "out.png", COLOUR)
    before = Image.open(tmp_path / "in.png")
    assert back.info["icc_profile"] == SRGB
    assert back.info["dpi"] == before.info["dpi"]
    assert back.info["gamma"] == before.info["gamma"]
    kept = {key: value for key, value in before.text.items() if not key.startswith("Raw profile")}
    assert len(kept) == 3
    assert dict(back.text) == kept
    assert (back.text["Author"].lang, back.text["Author"].tkey) == ("fr", "Auteur")
    np.testing.assert_array_equal(np.asarray(back), COLOUR)


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".webp"])
def test_details_of_other_formats(suffix, tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / f"in{suffix}", icc_profile=SRGB, dpi=(300, 300))
    back = again(tmp_path / f"in{suffix}", tmp_path / "out.png", COLOUR)
    assert back.info["icc_profile"] == SRGB
    assert suffix == ".webp" or back.info["dpi"] == pytest.approx((300, 300), abs=0.02)


def test_a_grey_image_with_a_profile_of_colour_is_written_in_colour(tmp_path):
    """A grey PNG cannot hold such a profile, and without it the image would look different."""
    grey = COLOUR[..., 0]
    Image.fromarray(np.dstack([grey] * 3)).save(tmp_path / "in.png", icc_profile=SRGB)
    back = again(tmp_path / "in.png", tmp_path / "out.png", grey)
    assert back.mode == "RGB"
    assert back.info["icc_profile"] == SRGB
    np.testing.assert_array_equal(np.asarray(back)[..., 1], grey)


def test_a_turned_image_has_no_orientation(tmp_path):
    exif = Image.Exif()
    exif[readers.ORIENTATION] = 6
    Image.fromarray(COLOUR).save(tmp_path / "in.png", exif=exif, pnginfo=words()["pnginfo"])
    (pixels,) = readers.read_frames(tmp_path / "in.png")
    back = again(tmp_path / "in.png", tmp_path / "out.png", pixels)
    assert readers.ORIENTATION not in back.getexif()
    np.testing.assert_array_equal(readers.read_frames(tmp_path / "out.png")[0], pixels)


def test_one_bit_stays_one_bit(tmp_path):
    bits = images_of("bool", (12, 14))
    Image.fromarray(bits).save(tmp_path / "in.png")
    (pixels,) = readers.read_frames(tmp_path / "in.png")
    pixels = pixels.copy()
    pixels[0, :2] = (100, 200)
    back = again(tmp_path / "in.png", tmp_path / "out.png", pixels)
    assert back.mode == "1"
    expected = bits.copy()
    expected[0, :2] = (False, True)
    np.testing.assert_array_equal(np.asarray(back), expected)


@pytest.mark.parametrize("transparency", [None, 2, b"\xff\xff\x80\x00"])
def test_a_palette_is_kept(transparency, tmp_path):
    """Equal colours keep their indices; filled pixels get the nearest colour; masked indices are not read."""
    colours = np.array([[0, 0, 0], [255, 0, 0], [255, 0, 0], [0, 0, 200]], np.uint8)
    indices = np.random.default_rng(0).integers(0, 4, (12, 14), dtype=np.uint8)
    indices[2, 2] = 2
    picture = Image.fromarray(indices)
    picture.putpalette(colours.tobytes())
    picture.save(tmp_path / "in.png", **({} if transparency is None else {"transparency": transparency}))
    (pixels,) = readers.read_frames(tmp_path / "in.png")
    missing = NOTHING.copy()
    missing[2:6, 2:6] = True
    filled = np.where(missing[..., None], np.array([250, 10, 30, 255][: pixels.shape[2]], np.uint8), pixels)
    filled[2, 2, :3] = (255, 0, 0)
    back = again(tmp_path / "in.png", tmp_path / "out.png", filled, missing, keep_palette=True)
    assert back.mode == "P"
    assert back.getpalette() == Image.open(tmp_path / "in.png").getpalette()
    assert back.info.get("transparency") == Image.open(tmp_path / "in.png").info.get("transparency")
    np.testing.assert_array_equal(np.asarray(back)[~missing], indices[~missing])
    assert (np.asarray(back)[missing] == 1).all()
    plain = again(tmp_path / "in.png", tmp_path / "plain.png", filled, missing)
    np.testing.assert_array_equal(np.asarray(plain), filled)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_png_of_colour_with_16_bits(channels, tmp_path):
    pixels = images_of("uint16", (12, 14, channels))
    details = Details(profile=SRGB, dpi=(300, 150), text={"Title": "a"}, gamma=0.5)
    save_png(tmp_path / "in.png", pixels, details, NOTHING)
    (found,) = readers.read_frames(tmp_path / "in.png")
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, pixels)
    back = Image.open(tmp_path / "in.png")
    back.load()
    assert back.info.get("icc_profile") == (SRGB if channels > 2 else None)
    assert back.info["gamma"] == 0.5
    assert dict(back.text) == {"Title": "a"}
    assert back.info["dpi"] == pytest.approx((300, 150), abs=0.02)


def test_deep_grey_content_and_opaque_alpha_are_dropped(tmp_path):
    grey = images_of("uint16", (12, 14))
    deep = np.dstack([grey] * 3 + [np.full_like(grey, 65535)])
    save_png(tmp_path / "in.png", deep, Details(), NOTHING)
    np.testing.assert_array_equal(readers.read_frames(tmp_path / "in.png")[0], grey)


def test_without_imagecodecs_one_line_names_it(tmp_path, monkeypatch):
    save_png(tmp_path / "in.png", images_of("uint16", (12, 14, 3)), Details(), NOTHING)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    must_refuse(lambda: readers.read_frames(tmp_path / "in.png"), "in.png", "16 bits", "pip install inkfill[tiff]")
    must_refuse(lambda: deep_png.library(tmp_path), "pip install inkfill[tiff]")


@pytest.mark.parametrize("dpi", [(float("nan"), 1), (0, 0), (1e300, 1), "ab"])
def test_odd_resolutions_are_dropped(dpi, tmp_path):
    picture = Image.fromarray(COLOUR)
    picture.info["dpi"] = dpi
    from inkfill.data.details import details_of

    save_png(tmp_path / "out.png", COLOUR, details_of(picture, picture), NOTHING)
    assert "dpi" not in Image.open(tmp_path / "out.png").info
