"""What an image file says beside its pixels, and PNG files that say it again."""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkfill.data import deep_png
from inkfill.data.images import Images, Mask

OF_OTHERS = ("Raw profile type", "XML:com.adobe.xmp")  # texts that hold Exif data: orientation, thumbnails


@dataclass(frozen=True)
class Palette:
    """A palette image: its indices ``[H, W]`` and its colours, RGBA ``[n, 4]``."""

    indices: NDArray[np.uint8]
    colours: NDArray[np.uint8]
    transparency: Any = None  # as Pillow holds it

    def nearest(self, pixels: Images, missing: Mask) -> NDArray[np.uint8]:
        """The indices of ``pixels``: observed pixels as they were, others by the nearest colour."""
        from PIL import Image

        rgba = np.asarray(Image.fromarray(pixels).convert("RGBA"))
        same = (self.colours[self.indices] == rgba).all(-1) & ~missing
        colours, inverse = np.unique(rgba.reshape(-1, 4), axis=0, return_inverse=True)
        apart = [
            ((self.colours.astype(np.int32) - colour) ** 2).sum(-1).argmin() for colour in colours.astype(np.int32)
        ]
        return np.where(same, self.indices, np.array(apart)[inverse].reshape(same.shape)).astype(np.uint8)

    def picture(self, pixels: Images, missing: Mask) -> Any:
        """A Pillow image of ``pixels`` with this palette."""
        from PIL import Image

        picture = Image.fromarray(self.nearest(pixels, missing))
        picture.putpalette(self.colours[:, :3].tobytes())
        return picture


@dataclass(frozen=True)
class Details:
    """Format, pixel format, and what the PNG writer of Pillow takes: ICC profile, resolution, gamma, text."""

    format: str = ""
    mode: str = ""
    palette: Palette | None = None
    profile: bytes = b""
    dpi: tuple[float, float] | None = None
    text: Mapping[str, Any] = field(default_factory=dict)
    gamma: float | None = None

    def depth(self, pixels: Images) -> Images:
        """Pixels as bool if the image had one bit."""
        return pixels >= 128 if self.mode == "1" and pixels.dtype == np.uint8 and pixels.ndim == 2 else pixels

    def saved(self, grey: bool) -> dict[str, Any]:
        """Arguments of Pillow's ``save``. A profile is kept where it is one of grey or of colour as the image is."""
        from PIL.PngImagePlugin import PngInfo, iTXt

        info = PngInfo()
        for key, text in self.text.items():
            if isinstance(text, iTXt):
                info.add_itxt(key, text, text.lang or "", text.tkey or "")
            else:
                info.add_text(key, text)
        if self.gamma is not None:
            info.add(b"gAMA", struct.pack(">I", round(self.gamma * 100_000)))
        profile = self.profile if self.profile[16:20] == (b"GRAY" if grey else b"RGB ") else None
        return {"icc_profile": profile, "pnginfo": info, **({"dpi": self.dpi} if self.dpi else {})}


def details_of(picture: Any, upright: Any) -> Details:
    """The details of an opened Pillow image; ``upright`` is the same, turned as its Exif data say."""
    profile, dpi, gamma = (picture.info.get(name) for name in ("icc_profile", "dpi", "gamma"))
    text = getattr(picture, "text", {})
    return Details(
        picture.format or "",
        picture.mode,
        _palette(upright) if picture.mode == "P" else None,
        profile if isinstance(profile, bytes) else b"",
        _dpi(dpi),
        {key: value for key, value in text.items() if not key.startswith(OF_OTHERS)},
        gamma if isinstance(gamma, float) and 0 < gamma < 42_949 else None,
    )


def _dpi(given: Any) -> tuple[float, float] | None:
    try:
        x, y = map(float, given)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if all(math.isfinite(each) and 0 < each < 1e6 for each in (x, y)) else None


def _palette(picture: Any) -> Palette:
    from PIL import Image

    flat, indices = picture.getpalette(), np.asarray(picture)
    count = max(len(flat) // 3, int(indices.max()) + 1)  # some files have too few colours
    every = Image.fromarray(np.arange(count, dtype=np.uint8)[None])
    every.putpalette(flat)
    transparency = picture.info.get("transparency")
    if transparency is not None:
        every.info["transparency"] = transparency
    return Palette(indices, np.asarray(every.convert("RGBA"))[0], transparency)


def save_png(out: Path, pixels: Images, details: Details, missing: Mask, keep_palette: bool = False) -> None:
    """Write a PNG of bool, uint8 or uint16 pixels with these details: with one bit, or a palette, as the input was."""
    from PIL import Image

    pixels = details.depth(pixels)
    if details.profile[16:20] == b"RGB " and pixels.dtype == np.uint8 and is_grey(pixels):  # for colour alone
        pixels = np.asarray(Image.fromarray(pixels).convert("RGB" if pixels.ndim == 2 else "RGBA"))
    if keep_palette and details.palette:
        words = {**details.saved(grey=False), "transparency": details.palette.transparency}
        details.palette.picture(pixels, missing).save(out, "PNG", **words)
    elif pixels.dtype == np.uint16 and pixels.ndim == 3:
        deep_png.write(out, pixels, details.saved(is_grey(pixels)))
    else:
        Image.fromarray(pixels).save(out, "PNG", **details.saved(is_grey(pixels)))


def is_grey(pixels: Images) -> bool:
    """Whether ``[H, W]`` or ``[H, W, C]`` are grey, with or without alpha."""
    return pixels.ndim == 2 or pixels.shape[2] < 3
