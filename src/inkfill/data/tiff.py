"""TIFF beyond what Pillow reads exactly: floats, signed and deep values, many bands; and TIFF files with their tags.

Reading and writing go through the optional package tifffile. Pages are images, samples are channels.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkfill.core.unet import MAX_CHANNELS
from inkfill.data.images import Images, check_size, upright
from inkfill.errors import InputError, needed, reason, remark

SUFFIXES = (".tif", ".tiff")
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
INSTALL = "inkfill[tiff]"
BITS, SAMPLES, EXTRA, SAMPLE_FORMAT, UNSIGNED = 258, 277, 338, 339, (1, 4)  # tags, and values of the last
SUBFILE, REDUCED = 254, 0b101  # a tag, and the bits of its value that mark overviews and transparency masks
ORIENTATION, X_RESOLUTION, Y_RESOLUTION, UNIT, ICC = 274, 282, 283, 296, 34675
DESCRIPTION, ASSOCIATED, UNASSOCIATED = 270, 1, 2  # a tag, and kinds of alpha
TEXTS = (269, DESCRIPTION, 305, 306, 315, 33432)  # document, description, software, date, artist, copyright
GEO = (33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113, 50844)  # GeoTIFF, GDAL's metadata and nodata, RPC
OF_STACKS = ("ImageJ=", "{", "<?xml")  # descriptions of the stack that a page was in
CLASSIC = 2**32 - 2**25  # bytes that a classic TIFF holds
logging.getLogger("tifffile").addHandler(logging.NullHandler())  # its errors are raised; its notices are for developers


def available() -> bool:
    """Whether tifffile is installed."""
    return find_spec("tifffile") is not None


def library(path: Path) -> Any:
    """The module tifffile. Raises InputError."""
    try:
        return needed("tifffile", INSTALL)
    except InputError as error:
        raise InputError(f"{path}: a TIFF that needs tifffile: {error}") from None


def is_exact(page: Any) -> bool:
    """Whether Pillow reads the values of its TIFF page unchanged, and all of them."""
    tags = page.tag_v2
    bits, formats, extra = (
        np.atleast_1d(tags.get(tag, default)) for tag, default in ((BITS, 8), (SAMPLE_FORMAT, 1), (EXTRA, 2))
    )
    samples = tags.get(SAMPLES, 1)
    if not set(formats.tolist()) <= set(UNSIGNED) or samples != (1 if "I" in page.mode else len(page.getbands())):
        return False
    if bits.max() > 8:
        return bool(page.mode.startswith("I;16"))
    return samples not in (2, 4) or page.mode not in ("LA", "RGBA") or extra[-1] != 0  # 0: a band, which is not alpha


def is_overview(page: Any) -> bool:
    """Whether a page of Pillow's is a smaller copy of another page, or its mask."""
    return bool(page.tag_v2.get(SUBFILE, 0) & REDUCED)


def _pages(file: Any) -> Iterator[Any]:
    """The pages of an open file without overviews and masks; the first whatever it says."""
    for i, page in enumerate(file.pages):
        page = page.aspage()
        if i == 0 or not page.subfiletype & REDUCED:
            yield page


def read_pages(body: bytes, path: Path, most: int) -> list[Images]:
    """The pages of a TIFF file, ``[H, W]`` or ``[H, W, C]``, in their own dtype, ``most`` bytes in all.

    Raises InputError.
    """
    found: list[Images] = []
    size = 0
    with library(path).TiffFile(BytesIO(body)) as file:
        for page in _pages(file):
            check_size(page.imagelength, page.imagewidth, str(path))
            if page.samplesperpixel > MAX_CHANNELS or page.imagedepth > 1:
                raise InputError(f"{path}: {page.samplesperpixel} bands: inkfill reads {MAX_CHANNELS} at most")
            size += page.nbytes
            if size > most:
                raise InputError(f"{path}: {size:,} bytes are more than inkfill reads: cut it into parts")
            try:
                values = page.asarray()
            except ValueError as error:
                missing = "imagecodecs" in str(error)
                raise InputError(f"{path}: {error}: pip install {INSTALL}") from None if missing else error
            values = np.moveaxis(values, 0, -1) if page.axes == "SYX" else values
            found.append(upright(values, page.tags.valueof(ORIENTATION, default=1)))
    if not found:
        raise InputError(f"{path}: no image in it")
    return found


@dataclass(frozen=True)
class Page:
    """Values ``[H, W]`` or ``[H, W, C]``, and the TIFF file and page, if any, that they are like."""

    values: Images
    file: Path | None = None
    frame: int = 0
    colours: NDArray[np.uint8] | None = None  # RGBA [n, 4]: the values are indices of a palette


def write(out: Path, pages: Iterable[Page], nbytes: int) -> None:
    """Write pages with the tags of the pages that they are like. ``nbytes`` is the size of all values.

    Bool is written with one bit. Values are not compressed.
    """
    tifffile = library(out)
    with tifffile.TiffWriter(out, bigtiff=nbytes > CLASSIC, byteorder="<") as writer:
        for page in pages:
            values = page.values[..., 0] if page.values.shape[2:] == (1,) else page.values
            how: dict[str, Any] = {"metadata": None, "software": False, "photometric": _photometric(values)}
            if values.ndim == 3:
                how["planarconfig"] = "contig"
            if page.file:
                try:
                    how |= _tags(tifffile, page.file, page.frame, values)
                except Exception as error:  # removed or changed meanwhile: samples are not lost for that
                    remark(f"{page.file}: its tags cannot be read ({reason(error)}): samples are written without them")
            if page.colours is not None:
                table = np.zeros((3, 256), np.uint16)
                table[:, : len(page.colours)] = page.colours[:, :3].T.astype(np.uint16) * 257
                how |= {"photometric": "palette", "colormap": table}
            writer.write(values, **how)


def _photometric(values: Images, colour: bool = True) -> str:
    return "rgb" if colour and values.ndim == 3 and values.shape[2] in (3, 4) else "minisblack"


def _tags(tifffile: Any, path: Path, frame: int, values: Images) -> dict[str, Any]:
    """What ``TiffWriter.write`` takes for values that were read from this page."""
    with tifffile.TiffFile(path) as file:
        page = next(islice(_pages(file), frame, None))
        colour = {tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.PALETTE, tifffile.PHOTOMETRIC.YCBCR}
        photometric = _photometric(values, page.photometric in colour)
        like: dict[str, Any] = {"photometric": photometric}
        channels = values.shape[2] if values.ndim == 3 else 1
        same = channels == page.samplesperpixel
        if count := channels - (3 if photometric == "rgb" else 1):
            like["extrasamples"] = _extra(page.extrasamples if same else (), count, values)
        like |= _resolution(page)
        codes = (*TEXTS, *GEO, *([ICC] if same else []))
        tags = [page.tags[code] for code in codes if code in page.tags and _is_of_page(page.tags[code])]
        like["extratags"] = [(tag.code, int(tag.dtype), tag.count, _bytes(file, tag), True) for tag in tags]
        return like


def _resolution(page: Any) -> dict[str, Any]:
    """The resolution of a page, if it has one."""
    x, y, unit = (page.tags.valueof(tag) for tag in (X_RESOLUTION, Y_RESOLUTION, UNIT))
    if not x or not y or 0 in (x[1], y[1]):
        return {}
    return {"resolution": (x, y), "resolutionunit": unit if unit in (1, 2, 3) else 2}


def _extra(given: Sequence[int], count: int, values: Images) -> list[int]:
    """The kinds of the samples beyond grey or colour: as given, else alpha if there is one, else bands."""
    if len(given) != count:
        return [UNASSOCIATED if count == 1 else 0] * count
    kinds = [kind if kind in (ASSOCIATED, UNASSOCIATED) else 0 for kind in map(int, given)]
    # Pillow reads associated alpha of 8 bits as unassociated.
    return [UNASSOCIATED if kind == ASSOCIATED and values.dtype == np.uint8 else kind for kind in kinds]


def _is_of_page(tag: Any) -> bool:
    """Whether a tag has a value and does not describe the stack that its page was in."""
    return tag.count > 0 and not (tag.code == DESCRIPTION and str(tag.value).startswith(OF_STACKS))


def _bytes(file: Any, tag: Any) -> bytes:
    """The value of a tag as it stands in the file, in the byte order of the output."""
    file.filehandle.seek(tag.valueoffset)
    raw: bytes = file.filehandle.read(tag.valuebytecount)
    size = len(raw) // tag.count
    if file.byteorder == "<" or size == 1:
        return raw
    size = 4 if tag.dtype in (5, 10) else size  # a rational is two integers
    return np.frombuffer(raw, f"u{size}").byteswap().tobytes()
