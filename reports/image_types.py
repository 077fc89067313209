"""Colour, alpha, odd sizes, large letters, NaN holes and a large photograph: five minutes of training each.

    .venv/bin/python reports/image_types.py measure      trains into runs/image-types, once; into reports/image-types/
    .venv/bin/python reports/image_types.py page

Fonts are Debian's fonts-noto-color-emoji and matplotlib's, photographs scikit-image's, elevations matplotlib's sample
data. The last 32 images of a kind are held out.
"""

from pathlib import Path

import numpy as np
import skimage.data
from matplotlib import get_data_path

from common import (
    Row,
    folder,
    icons,
    letters,
    on_white,
    run,
    save,
    saved,
    show,
    shuffled,
    timed,
    trained,
    write_tables,
)  # fmt: skip
from inkfill.app import figures
from inkfill.data import Images, masks
from inkfill.data.images import ValueRange, as_bytes
from inkfill.filling.inpaint import inpaint
from inkfill.models.model import Model, load
from inkfill.tables import table
from inkfill.training.config import TrainConfig

REPORT, FOLDER = "image-types", Path("runs/image-types")


def network(name: str, images: Images, minutes: float) -> tuple[Model, Images]:
    """A network trained on all but the last 32 of the images in a fixed random order, and those."""
    images = shuffled(images)
    FOLDER.mkdir(parents=True, exist_ok=True)
    np.save(FOLDER / f"{name}.npy", images[:-32])
    config = TrainConfig(data=str(FOLDER / f"{name}.npy"), minutes=minutes, ema=0.998, warmup=50)
    return load(trained(config, FOLDER / name)), images[-32:]


def row_of(name: str, images: Images, model: Model, seconds: float) -> Row:
    """A row of the table; seconds per sample."""
    size = "x".join(map(str, images.shape[1:]))
    return show(
        {"what": name, "size": size, "dtype": str(images.dtype), "steps": model.recipe.step, "seconds": seconds}
    )


def gallery(name: str, model: Model, images: Images, specs: list[str], zoom: int) -> Row:
    """Fill held-out images, check the observed values, draw the figure. Floats get NaN holes."""
    images = images[: len(specs)]
    mask, floats = masks.fit_each(specs, images), images.dtype.kind == "f"
    given = np.where(mask, np.float32(np.nan), images) if floats else images
    filled, took = timed(lambda: inpaint(model, given, None if floats else mask, 8))
    kept = ~np.broadcast_to(mask[:, None], filled.shape[:4])
    assert filled.dtype == images.dtype
    assert (filled[kept] == np.repeat(images[:, None], 8, 1)[kept]).all()
    values = ValueRange(float(images.min()), float(images.max())) if floats else model.value_range
    picture = figures.gallery(as_bytes(images, values), mask, as_bytes(filled, values), specs, zoom=zoom)
    figures.save_picture(picture, folder(REPORT) / f"{name}.png")
    return row_of(name, images, model, took / filled.shape[0] / filled.shape[1])


def elevation() -> tuple[Images, Images]:
    """Tiles of a mountain's height in metres, float32 ``[N, 32, 32]``: its west to learn from, its east to fill."""
    with np.load(Path(get_data_path(), "sample_data", "jacksboro_fault_dem.npz")) as file:
        height = file["elevation"].astype(np.float32)
    places = [(y, x) for y in range(0, height.shape[0] - 31, 4) for x in range(0, 257, 4)]
    east = [(y, x) for y in range(0, height.shape[0] - 31, 96) for x in (300, 350)]
    west, east_tiles = (np.stack([height[y : y + 32, x : x + 32] for y, x in part]) for part in (places, east))
    return west, east_tiles


def measure(minutes: float = 5.0) -> None:
    """Train, fill, draw."""
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
    sky = skimage.data.hubble_deep_field()
    scratch = np.zeros(sky.shape[:2], bool)
    for i in range(60, 940):
        scratch[300 + int(60 * np.sin(i / 90)) + i // 6 :, i][:4] = True
    filled, took = timed(lambda: inpaint(model, sky[None], scratch, 1)[0, 0])
    rows.append(row_of("photograph", sky[None], model, took))
    part = np.concatenate([figures.masked(sky, scratch), filled], 1)[250:560:, :]
    figures.save_picture(part, folder(REPORT) / "photograph.png")
    save(REPORT, "networks", rows)


def page() -> None:
    """Rewrite the tables of the page from JSON."""
    networks = {"what": ("images", "{}"), "size": ("size", "{:>}"), "dtype": ("dtype", "{:>}")}
    networks |= {"steps": ("training steps", "{:,}"), "seconds": ("seconds per sample", "{:.3g}")}
    batches = [
        row | {f"{mask} {side}": score for mask, each in row["crps"].items() for side, score in each.items()}
        for row in saved(REPORT, "batches")
    ]
    crps = {key: (key, "{:.3f}") for key in batches[0] if key not in ("way", "steps", "crps")}
    resolutions = [
        row | {f"{side} pixels": took for side, took in row["milliseconds"].items()}
        for row in saved(REPORT, "resolutions")
    ]
    times = {f"{side} pixels": (f"ms, {side} pixels", "{:.1f}") for side in resolutions[0]["milliseconds"]}
    learnt = {f"{key}_crps": (f"{mask} CRPS", "{:.3f}") for key, mask in (("half", "half:left"), ("box", "box:0.5"))}
    steps = {"steps": ("steps", "{:,}")}
    tables = {
        "networks": table(saved(REPORT, "networks"), networks),
        "batches": table(batches, {"way": ("batches of", "{}")} | steps | crps),
        "resolutions": table(resolutions, {"widths": ("widths", "{}")} | times | steps | learnt),
    }
    write_tables(REPORT, tables)


if __name__ == "__main__":
    run(measure, page)
