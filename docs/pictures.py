"""docs/pictures.md: any small image, filled. Colour icons, odd sizes, NaN holes, letters, a scratched photograph.

    .venv/bin/python docs/pictures.py --minutes 5

Fonts are those of Debian's fonts-noto-color-emoji and of matplotlib, photographs those of scikit-image, elevations
those of matplotlib's sample data. Networks are kept in runs/pictures; a second run trains those that are not there.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from fontTools.ttLib import TTFont
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from inkfill.app import figures
from inkfill.files import written_whole
from inkfill.data import Images, masks
from inkfill.data.images import ValueRange, as_bytes
from inkfill.tables import markdown
from inkfill.filling.inpaint import inpaint
from inkfill.models.model import Model, load
from inkfill.training.config import TrainConfig
from inkfill.training.run import train

EMOJI = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
DOCS = Path(__file__).parent
FOLDER = Path("runs/pictures")


def glyphs(font: Path, codes: list[int], size: int, box: tuple[int, int], shape: tuple[int, int], mode: str) -> Images:
    """Characters of a font, uint8 ``[N, *shape]`` (``mode`` L) or ``[N, *shape, 4]`` (RGBA); empty ones left out."""
    face, drawn = ImageFont.truetype(font, size), []
    for code in codes:
        page = Image.new(mode, box)
        ink: Any = 255 if mode == "L" else None
        place = (box[0] / 2, box[1] / 2)
        ImageDraw.Draw(page).text(place, chr(code), ink, face, anchor="mm", embedded_color=mode == "RGBA")
        drawn.append(np.asarray(page.resize(shape[::-1], Image.Resampling.BOX)))
    return np.stack([picture for picture in drawn if picture.max() > 0])


def icons(shape: tuple[int, int]) -> Images:
    """The pictures of a colour font, uint8 ``[N, *shape, 4]``."""
    codes = [code for code in TTFont(EMOJI).getBestCmap() if code > 0x2000]
    return glyphs(EMOJI, codes, 109, (136, 128), shape, "RGBA")


def letters() -> Images:
    """Letters of many scripts in matplotlib's fonts, uint8 ``[N, 64, 64]``."""
    fonts = [f for f in sorted(Path(get_data_path(), "fonts", "ttf").glob("DejaVu*.ttf")) if "Display" not in f.name]
    codes = [c for c in range(0x41, 0x590) if chr(c).isalpha()]
    return np.concatenate([glyphs(f, codes, 48, (64, 64), (64, 64), "L") for f in fonts])


def on_white(images: Images) -> Images:
    """Colour with alpha laid on white."""
    alpha = images[..., 3:] / 255
    return (images[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)


def shuffled(images: Images) -> Images:
    """In a fixed random order."""
    return images[np.random.Generator(np.random.Philox(1)).permutation(len(images))]


def network(name: str, images: Images, minutes: float) -> tuple[Model, Images]:
    """A network trained on all but the last 32 of the images in a fixed random order, and those."""
    images = shuffled(images)
    FOLDER.mkdir(parents=True, exist_ok=True)
    np.save(FOLDER / f"{name}.npy", images[:-32])
    if not (FOLDER / name / "model.safetensors").exists():
        config = TrainConfig(data=str(FOLDER / f"{name}.npy"), minutes=minutes, ema=0.998, warmup=50)
        if not train(config, FOLDER / name, validate_every=10**9):
            raise KeyboardInterrupt
    return load(FOLDER / name / "model.safetensors"), images[-32:]


def gallery(name: str, model: Model, images: Images, specs: list[str], zoom: int) -> list[object]:
    """Complete held-out images, write the picture, and give a row for the table. Fractions get their holes as NaN."""
    images = images[: len(specs)]
    mask = masks.fit_each(specs, images)
    fractions = images.dtype.kind == "f"
    given = np.where(mask, np.float32(np.nan), images) if fractions else images
    began = time.perf_counter()
    filled = inpaint(model, given, None if fractions else mask, 8)
    seconds = (time.perf_counter() - began) / filled.shape[0] / filled.shape[1]
    kept = ~np.broadcast_to(mask[:, None], filled.shape[:4])
    assert filled.dtype == images.dtype
    assert (filled[kept] == np.repeat(images[:, None], 8, 1)[kept]).all()
    seen = ValueRange(float(images.min()), float(images.max())) if fractions else model.value_range
    picture = figures.gallery(as_bytes(images, seen), mask, as_bytes(filled, seen), specs).picture(zoom)
    figures.save_picture(picture, DOCS / "pictures" / f"{name}.png")
    size = "x".join(map(str, images.shape[1:]))
    return [name, size, images.dtype, f"{model.recipe.step:,}", f"{seconds:.3f}"]


def elevation() -> tuple[Images, Images]:
    """Tiles of a mountain's height in metres, float32 ``[N, 32, 32]``: its west to learn from, its east to fill."""
    with np.load(Path(get_data_path(), "sample_data", "jacksboro_fault_dem.npz")) as file:
        height = file["elevation"].astype(np.float32)
    places = [(y, x) for y in range(0, height.shape[0] - 31, 4) for x in range(0, 257, 4)]
    east = [(y, x) for y in range(0, height.shape[0] - 31, 96) for x in (300, 350)]
    west, east_tiles = (np.stack([height[y : y + 32, x : x + 32] for y, x in part]) for part in (places, east))
    return west, east_tiles


def main(minutes: float = 5.0) -> None:
    """Train, fill, and write the page."""
    specs = ["half:left", "box:0.5", "quadrants:3", "strokes", "pixels:0.9", "half:bottom"]
    rows = []
    for name, images, zoom in (
        ("icons", on_white(icons((32, 32))), 3),
        ("sprites", icons((32, 32)), 3),
        ("odd", on_white(icons((30, 45))), 3),
        ("letters", letters(), 2),
    ):
        rows.append(gallery(name, *network(name, images, minutes), specs, zoom))
    west, east = elevation()
    rows.append(gallery("elevation", network("elevation", west, minutes)[0], east, specs, 3))
    photographs = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea(), skimage.data.rocket()]
    tiles = np.stack([part for photo in photographs for part in (photo[:300, :400], photo[-300:, -400:])])
    cut = [tiles[:, y : y + 32, x : x + 32] for y in range(0, 256, 24) for x in range(0, 360, 24)]
    model, _ = network("photographs", np.concatenate(cut), minutes)
    sky, began = skimage.data.hubble_deep_field(), time.perf_counter()
    scratch = np.zeros(sky.shape[:2], bool)
    for i in range(60, 940):
        scratch[300 + int(60 * np.sin(i / 90)) + i // 6 :, i][:4] = True
    filled = inpaint(model, sky[None], scratch, 1)[0, 0]
    rows.append(["photograph", "872x1000x3", "uint8", f"{model.recipe.step:,}", f"{time.perf_counter() - began:.1f}"])
    part = np.concatenate([figures.masked(sky, scratch), filled], 1)[250:560:, :]
    figures.save_picture(part, DOCS / "pictures" / "photograph.png")
    headings = ["what", "size", "type", "training steps", "seconds a completion"]
    text = (DOCS / "pictures.template.md").read_text()
    with written_whole(DOCS / "pictures.md") as temporary:
        temporary.write_text(text.replace("{table}", markdown(headings, rows)).replace("{minutes}", f"{minutes:g}"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="of training, each network")
    main(parser.parse_args().minutes)
