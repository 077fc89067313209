"""PNG files of colour or alpha with 16 bits, of which Pillow reads 8: through the optional package imagecodecs."""

import struct
from pathlib import Path
from typing import Any

import numpy as np

from inkfill.data.images import Images, reduced
from inkfill.errors import InputError, needed

INSTALL = "inkfill[tiff]"
SIGNATURE, HEADER = b"\x89PNG\r\n\x1a\n", 33  # bytes of the signature and the first chunk
DEEP = (2, 4, 6)  # colour types: RGB, grey with alpha, RGBA


def is_deep(body: bytes) -> bool:
    """Whether a file is a PNG of colour or alpha with 16 bits."""
    return body[:8] == SIGNATURE and body[24] == 16 and body[25] in DEEP


def library(path: Path) -> Any:
    """The module imagecodecs. Raises InputError."""
    try:
        return needed("imagecodecs", INSTALL)
    except InputError as error:
        raise InputError(f"{path}: a PNG of colour with 16 bits: {error}") from None


def read(body: bytes, path: Path) -> Images:
    """The pixels, uint16, without colour where all are grey and without alpha where all are opaque."""
    return reduced(library(path).png_decode(body))


def write(out: Path, pixels: Images, words: dict[str, Any]) -> None:
    """Write uint16 ``[H, W, C]``, C from 2 to 4, and the chunks that Pillow makes of ``words``."""
    from PIL import Image
    from PIL.PngImagePlugin import getchunks

    body = library(out).png_encode(np.ascontiguousarray(pixels))
    chunks = [
        chunk for chunk in getchunks(Image.new("L", (1, 1)), **words) if chunk[0] not in (b"IHDR", b"IDAT", b"IEND")
    ]
    said = b"".join(struct.pack(">I", len(data)) + kind + data + crc for kind, data, crc in chunks)
    out.write_bytes(body[:HEADER] + said + body[HEADER:])
