"""Figures from arrays. Nothing here runs a network."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from inkfill.data.images import Images, of_values
from inkfill.files import written_whole

RGB = NDArray[np.uint8]
MISSING = np.array([70, 96, 160], np.uint8)  # the colour of a missing pixel
PAPER, CLEAR, INK = 250, 220, (30, 30, 30)
ZOOM, SIDE = 3, 160  # largest pixels of a figure for each pixel of an image, and side up to which one is enlarged


def grey(image: Images) -> RGB:
    """uint8 ``[..., H, W]`` to ``[..., H, W, 3]``."""
    return np.repeat(image[..., None], 3, axis=-1)


def tile(image: Images) -> RGB:
    """uint8 ``[H, W]`` or ``[H, W, C]`` to ``[H, W, 3]``; transparent pixels are light grey.

    More than four channels are shown side by side: ``[H, C W, 3]``.
    """
    if image.ndim == 2 or image.shape[2] > 4:
        return grey(image if image.ndim == 2 else side_by_side(image))
    colour = image[..., :3] if image.shape[2] >= 3 else grey(image[..., 0])
    if image.shape[2] in (1, 3):
        return colour
    alpha = image[..., -1:] / 255
    return (colour * alpha + CLEAR * (1 - alpha)).round().astype(np.uint8)


def side_by_side(images: Images) -> Images:
    """The channels of images ``[..., H, W, C]`` as grey ones beside each other: ``[..., H, C W]``."""
    return np.concatenate(list(np.moveaxis(images, -1, 0)), -1)


def masked(image: Images, mask: NDArray[np.bool_]) -> RGB:
    """The image with missing pixels in blue, which tells them from black ones."""
    return np.where(mask[..., None], MISSING, tile(image) if mask.ndim == 2 else grey(image))


def std(samples: Images) -> NDArray[np.float64]:
    """Standard deviation per pixel over K samples ``[K, H, W]`` or ``[K, H, W, C]``: ``[H, W]``.

    For colour, the root mean square over channels.
    """
    values = samples.astype(np.float64).std(0)
    return values if values.ndim == 2 else np.sqrt((values**2).mean(-1))


def heat(values: NDArray[np.floating]) -> RGB:
    """Grey-level differences ``[H, W]`` as colour: black at 0, then orange, white from 127.5 on."""
    level = np.clip(values / 127.5, 0, 1)
    return np.stack([255 * np.clip(c * level, 0, 1) for c in (3.0, 1.6, 1.0)], -1).round().astype(np.uint8)


def sheet(
    rows: Sequence[Sequence[RGB]], columns: Sequence[str] = (), names: Sequence[str] = (), zoom: int | None = None
) -> RGB:
    """A grid of images ``[H, W, 3]`` of one size, with a title over each column and a name before each row.

    By default small images are enlarged by up to ``ZOOM``.
    """
    zoom = zoom or max(1, min(ZOOM, SIDE // max(rows[0][0].shape[:2])))
    font = ImageFont.load_default(12)
    h, w = (zoom * side for side in rows[0][0].shape[:2])
    gap, top = 4, 20 if columns else 4
    left = 8 + max((int(font.getlength(name)) for name in names), default=-4)
    across = max(len(row) for row in rows)
    page = Image.new("RGB", (left + across * (w + gap), top + len(rows) * (h + gap)), (PAPER,) * 3)
    draw = ImageDraw.Draw(page)
    for x, title in enumerate(columns):
        draw.text((left + x * (w + gap) + w / 2, 3), title, INK, font, anchor="ma")
    for y, row in enumerate(rows):
        if names:
            draw.text((4, top + y * (h + gap) + h / 2), names[y], INK, font, anchor="lm")
        for x, tile in enumerate(row):
            picture = Image.fromarray(np.ascontiguousarray(tile)).resize((w, h), Image.Resampling.NEAREST)
            page.paste(picture, (left + x * (w + gap), top + y * (h + gap)))
    return np.asarray(page)


def gallery(
    images: Images,
    mask: NDArray[np.bool_],
    filled: Images,
    names: Sequence[str] = (),
    show: int = 4,
    original: bool = True,
    zoom: int | None = None,
) -> RGB:
    """One row per image: masked, ``show`` samples, mean and standard deviation of all samples, original.

    ``images`` uint8 ``[N, H, W]`` or ``[N, H, W, C]``, ``mask`` bool ``[N, H, W]`` or ``[N, H, W, C]``, ``filled``
    uint8 ``[N, K, ...]``. Channels are shown side by side where they have masks of their own or are more than four.
    """
    if images.ndim == 4 and (images.shape[3] > 4 or mask.ndim == 4):
        mask = np.broadcast_to(of_values(mask, images), images.shape)
        images, mask, filled = (side_by_side(each) for each in (images, mask, filled))
    show = min(show, filled.shape[1])
    rows = []
    for image, missing, samples in zip(images, mask, filled, strict=True):
        mean = samples.mean(0).round().astype(np.uint8)
        row = [masked(image, missing), *map(tile, samples[:show]), tile(mean), heat(std(samples))]
        rows.append([*row, tile(image)] if original else row)
    columns = ["masked", *(f"sample {k + 1}" for k in range(show)), "mean", "std"]
    return sheet(rows, [*columns, "original"] if original else columns, names, zoom)


def grid(images: Images, across: int | None = None) -> RGB:
    """Images ``[N, H, W]`` or ``[N, H, W, C]`` in rows of ``across``, by default in about a square."""
    across = across or int(np.ceil(np.sqrt(len(images))))
    tiles = [tile(image) for image in images]
    return sheet([tiles[i : i + across] for i in range(0, len(tiles), across)])


def save_picture(pixels: NDArray[np.uint8], path: Path) -> None:
    """Write an image file, whole or not at all; the suffix decides the format."""
    with written_whole(path) as temporary:
        Image.fromarray(pixels).save(temporary)


def save_animation(frames: Sequence[RGB], path: Path, milliseconds: int = 90) -> None:
    """Write an animated GIF that rests on its last frame."""
    pictures = [Image.fromarray(frame) for frame in frames]
    times = [milliseconds] * (len(frames) - 1) + [2000]
    with written_whole(path) as temporary:
        pictures[0].save(temporary, save_all=True, append_images=pictures[1:], duration=times, loop=0)


@contextmanager
def plot(path: Path, panels: int, across: int, size: tuple[float, float]) -> Iterator[list[Any]]:
    """A grid of matplotlib axes of ``size`` inches each; written to ``path``, whole or not at all, on exit."""
    from matplotlib.figure import Figure

    across = max(1, min(across, panels))
    down = max(1, -(-panels // across))
    figure = Figure(figsize=(across * size[0], down * size[1]), layout="constrained")
    yield [figure.add_subplot(down, across, i + 1) for i in range(panels)]
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=110)
