"""Image formats whose values or frames would be taken for others."""

import struct
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from helpers import images_of, must_refuse, refused, run
from inkfill.data import readers
from inkfill.errors import InputError


def tiff(path, tags, strip):
    """A little-endian TIFF of one strip with these tags: number: (type, values)."""
    data, at = b"", 8
    entries = []
    tags = {**tags, 273: (4, [0]), 279: (4, [len(strip)])}
    offset = 8 + 2 + 12 * len(tags) + 4
    for number, (kind, values) in sorted(tags.items()):
        packed = struct.pack("<" + {3: "H", 4: "I"}[kind] * len(values), *values)
        if len(packed) > 4:
            entries.append((number, kind, len(values), struct.pack("<I", offset + len(data))))
            data += packed
        else:
            entries.append((number, kind, len(values), packed.ljust(4, b"\0")))
    start = offset + len(data)
    entries = [(n, k, c, struct.pack("<I", start) if n == 273 else v) for n, k, c, v in entries]
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHI", n, k, c) + v for n, k, c, v in entries)
    path.write_bytes(b"II*\0" + struct.pack("<I", at) + body + b"\0" * 4 + data + strip)


def test_deep_colour_tiff_is_not_reduced(tmp_path):
    pixels = np.full((16, 16, 3), 7710, "<u2")
    basic = {256: (4, [16]), 257: (4, [16]), 259: (3, [1]), 262: (3, [2]), 277: (3, [3]), 278: (4, [16])}
    tiff(tmp_path / "deep.tif", {**basic, 258: (3, [16, 16, 16])}, pixels.tobytes())
    (found,) = readers.read_frames(tmp_path / "deep.tif")
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, pixels)


def test_signed_bytes_stay_signed(tmp_path):
    pixels = np.full((16, 16), -68, np.int8)
    basic = {256: (4, [16]), 257: (4, [16]), 259: (3, [1]), 262: (3, [1]), 277: (3, [1]), 278: (4, [16])}
    tiff(tmp_path / "signed.tif", {**basic, 258: (3, [8]), 339: (3, [2])}, pixels.tobytes())
    (found,) = readers.read_frames(tmp_path / "signed.tif")
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, pixels)
    tiff(tmp_path / "bytes.tif", {**basic, 258: (3, [8])}, pixels.tobytes())
    assert readers.read_frames(tmp_path / "bytes.tif")[0].dtype == np.uint8


def test_a_camera_image_with_a_preview_is_one_image(tmp_path, checkpoint):
    """As cameras write them: a JPEG with a second frame in an MPF segment."""
    photo = [Image.fromarray(np.full((28, 28), value, np.uint8)) for value in (200, 90)]
    photo[0].save(tmp_path / "cam.jpg", "MPO", save_all=True, append_images=photo[1:])
    assert len(readers.read_frames(tmp_path / "cam.jpg")) == 1
    words = ["--mask", "box:8", "--steps", 1, "--checkpoint", checkpoint, "--out", tmp_path / "filled.png"]
    assert run("inpaint", tmp_path / "cam.jpg", *words) == 0
    assert Image.open(tmp_path / "filled.png").size == (28, 28)


def test_every_page_is_checked_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAX_PIXELS", 3000)
    pages = [Image.new("L", size) for size in ((20, 20), (60, 60))]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match="more than inkfill reads"):
        readers.read_frames(tmp_path / "pages.tif")


@pytest.mark.parametrize("name", ["image.jp2", "image.avif", "image.ico", "words.txt", "empty.bin"])
def test_unknown_formats_are_called_so(name, tmp_path, checkpoint, capsys):
    (tmp_path / name).write_bytes(b"" if name == "empty.bin" else b"\0\0\0\x0cjP  not what it says")
    words = ["--mask", "box:8", "--checkpoint", checkpoint, "--out", tmp_path / "filled.png"]
    refused(capsys, "inpaint", tmp_path / name, *words, says=[name, "unknown format"])


@pytest.mark.parametrize("suffix", [".jp2", ".j2k", ".avif", ".tga", ".ico"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_formats_that_pillow_reads_are_read(suffix, channels, tmp_path):
    pixels = images_of("uint8", (16, 16, channels)).squeeze()
    pixels = np.full_like(pixels, pixels[:1, :1]) if suffix == ".avif" else pixels  # which is lossy
    Image.fromarray(pixels).save(tmp_path / f"image{suffix}", **({"sizes": [(16, 16)]} if suffix == ".ico" else {}))
    (found,) = readers.read_frames(tmp_path / f"image{suffix}")
    assert found.dtype == np.uint8
    if suffix != ".avif":
        np.testing.assert_array_equal(found, pixels)


def test_deep_values_are_read_exactly_or_refused(tmp_path):
    """16-bit grey is exact; deep colour and 12 bits would be changed by Pillow."""
    grey = images_of("uint16", (16, 16))
    Image.fromarray(grey).save(tmp_path / "grey.jp2")
    (tmp_path / "grey.pgm").write_bytes(b"P5\n16 16\n65535\n" + grey.astype(">u2").tobytes())
    for name in ("grey.jp2", "grey.pgm"):
        np.testing.assert_array_equal(readers.read_frames(tmp_path / name)[0], grey)
    (tmp_path / "colour.ppm").write_bytes(b"P6\n16 16\n65535\n" + images_of("uint16", (16, 16, 3)).tobytes())
    (tmp_path / "twelve.pgm").write_bytes(b"P5\n16 16\n4095\n" + (grey & 4095).astype(">u2").tobytes())
    body = bytearray((tmp_path / "grey.jp2").read_bytes())
    body[body.index(b"\xff\x4f\xff\x51") + 42] = 11  # 12 bits
    (tmp_path / "twelve.jp2").write_bytes(body)
    Image.fromarray(images_of("uint8", (16, 16, 3))).save(tmp_path / "ten.avif")
    body = bytearray((tmp_path / "ten.avif").read_bytes())
    body[body.index(b"av1C") + 6] |= 0x40
    must_refuse(lambda: readers._check_depth(SimpleNamespace(format="AVIF"), bytes(body), tmp_path), "10 bits")
    for name in ("colour.ppm", "twelve.pgm", "twelve.jp2"):
        must_refuse(lambda name=name: readers.read_frames(tmp_path / name), name, "bits would be changed")


def test_a_pillow_without_a_format_is_named(tmp_path, monkeypatch):
    Image.fromarray(images_of("uint8", (16, 16))).save(tmp_path / "image.avif")
    monkeypatch.delitem(Image.OPEN, "AVIF")
    must_refuse(lambda: readers.read_frames(tmp_path / "image.avif"), "image.avif", "upgrade")


@pytest.mark.parametrize("suffix", [".ppm", ".jfif", ".pnm"])
def test_less_common_names_are_read(suffix, tmp_path):
    image = Image.fromarray(np.full((12, 12), 90, np.uint8))
    image.save(tmp_path / f"image{suffix}", "JPEG" if suffix == ".jfif" else "PPM")
    assert readers.read_images(tmp_path / f"image{suffix}").shape == (1, 12, 12)


def test_errors_name_no_python_objects(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image at all")
    with pytest.raises(InputError) as error:
        readers.read_frames(tmp_path / "broken.png")
    assert "BytesIO" not in str(error.value)
