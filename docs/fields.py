"""docs/fields.md: Gaussian fields with gaps, filled by inkfill, which saw no whole one, and by kriging.

    .venv/bin/python docs/fields.py [--steps S]

The fields are made here, so the exact posterior of what the gaps hide is known. The run is kept in runs/fields.
"""

import argparse
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from skimage.restoration import inpaint_biharmonic

from inkfill.app import figures
from inkfill.files import written_whole
from inkfill.evaluation import metrics
from inkfill.tables import markdown
from inkfill.filling.inpaint import inpaint
from inkfill.models.model import load
from inkfill.core.rng import stream
from inkfill.training.config import TrainConfig
from inkfill.training.run import train

DOCS, FOLDER = Path(__file__).parent, Path("runs/fields")
SIDE, LENGTH, MEAN, COVERED = 28, 5.0, 10.0, 0.3
COUNT, NEW, K = 3000, 64, 16
Fields = NDArray[np.float32]


def covariance(length: float) -> NDArray[np.float64]:
    """Matern 3/2 of variance 1 between all pixels of a field."""
    places = np.indices((SIDE, SIDE)).reshape(2, -1).T
    scaled = np.sqrt(3) * cdist(places, places) / length
    found: NDArray[np.float64] = (1 + scaled) * np.exp(-scaled)
    return found


@cache
def root(length: float) -> NDArray[np.float64]:
    """A root of the covariance."""
    return np.linalg.cholesky(covariance(length) + 1e-8 * np.eye(SIDE**2))


def fields(count: int, rng: np.random.Generator) -> tuple[Fields, NDArray[np.bool_]]:
    """Fields ``[N, 28, 28]``, and where clouds cover them."""
    values = MEAN + rng.standard_normal((count, SIDE**2)) @ root(LENGTH).T
    clouds = rng.standard_normal((count, SIDE**2)) @ root(LENGTH).T
    covered = clouds > np.quantile(clouds, 1 - COVERED)
    return values.reshape(-1, SIDE, SIDE).astype(np.float32), covered.reshape(-1, SIDE, SIDE)


def kriged(field: Fields, hole: NDArray[np.bool_], length: float, rng: np.random.Generator) -> Fields:
    """``K`` draws from the posterior of what is covered, for fields of that length."""
    out, miss = np.repeat(field[None], K, 0), hole.ravel()
    if miss.any():
        all_of_it = covariance(length)
        seen, across, hidden = (all_of_it[np.ix_(a, b)] for a, b in ((~miss, ~miss), (miss, ~miss), (miss, miss)))
        weights = np.linalg.solve(seen + 1e-8 * np.eye(len(seen)), across.T).T
        rest = np.linalg.cholesky(hidden - weights @ across.T + 1e-8 * np.eye(len(hidden)))
        mean = MEAN + weights @ (field.ravel()[~miss] - MEAN)
        out[:, hole] = mean + rng.standard_normal((K, len(mean))) @ rest.T
    return out


def biharmonic(field: Fields, hole: NDArray[np.bool_]) -> Fields:
    """The one answer of scikit-image."""
    filled: Fields = inpaint_biharmonic(np.where(hole, 0, field).astype(np.float64), hole).astype(np.float32)
    return filled[None]


def scored(name: str, truth: Fields, hole: NDArray[np.bool_], filled: Fields) -> list[str]:
    """A row of the table."""
    unit = 255.0  # scores are of values from 0 to 255, told as shares of that
    off = np.sqrt(((filled.mean(1) - truth)[hole] ** 2).mean())
    if filled.shape[1] == 1:
        error = np.abs(filled[:, 0] - truth)[hole].mean()
        return [name, f"{error:.3f}", "", f"{off:.3f}", "", ""]
    crps = np.nanmean(metrics.crps(truth * unit, filled * unit, hole))
    energy = np.nanmean(metrics.energy_score(truth * unit, filled * unit, hole))
    histogram = metrics.ranks(truth, filled, hole, stream(0, "ties")).sum(0)
    covers = [f"{metrics.coverage(histogram, width):.3f}" for width in (0.5, 0.9)]
    return [name, f"{crps:.3f}", f"{energy:.3f}", f"{off:.3f}", *covers]


def main(steps: int) -> None:
    """Train, fill, score, write the page."""
    rng, out = stream(0, "fields"), FOLDER / "run"
    FOLDER.mkdir(parents=True, exist_ok=True)
    values, covered = fields(COUNT, rng)
    np.save(FOLDER / "fields.npy", np.where(covered, np.nan, values))
    if not (FOLDER / "done").exists():
        config = TrainConfig(
            data=str(FOLDER / "fields.npy"), data_mask="nan", steps=steps, batch_size=32, ema=0.998,
        )  # fmt: skip
        if not train(config, out, resume=(out / "state.pt").exists(), validate_every=10**9):
            raise KeyboardInterrupt
        (FOLDER / "done").touch()
    truth, hole = fields(NEW, rng)
    given = np.where(hole, np.nan, truth)
    ways = {"inkfill, from fields with gaps": inpaint(load(out / "model.safetensors"), given, "nan", K)}
    for name, length in (
        ("kriging, true covariance", 1),
        ("kriging, half the length", 0.5),
        ("kriging, twice the length", 2),
    ):
        ways[name] = np.stack([kriged(f, h, LENGTH * length, rng) for f, h in zip(truth, hole, strict=True)])
    ways["biharmonic"] = np.stack([biharmonic(f, h) for f, h in zip(truth, hole, strict=True)])
    rows = [scored(name, truth, hole, filled) for name, filled in ways.items()]
    table = markdown(["way", "CRPS", "energy", "RMSE of the mean", "50 % covers", "90 % covers"], rows)
    print(table)
    picture(truth, hole, ways)
    text = (DOCS / "fields.template.md").read_text()
    about = {
        "count": f"{COUNT:,}",
        "new": NEW,
        "K": K,
        "steps": f"{steps:,}",
        "share": f"{COVERED:.0%}",
        "table": table,
    }
    for name, value in about.items():
        text = text.replace(f"{{{name}}}", str(value))
    with written_whole(DOCS / "fields.md") as temporary:
        temporary.write_text(text)


def picture(truth: Fields, hole: NDArray[np.bool_], ways: dict[str, Fields]) -> None:
    """Four fields: covered, two completions by inkfill and by kriging each, biharmonic, the truth."""

    def shade(field: Fields) -> figures.RGB:
        return figures.grey(np.clip((field - MEAN) * 42 + 128, 0, 255).astype(np.uint8))

    (ours, exact, *_, plain), rows = list(ways.values()), []
    for i in np.argsort(-hole.mean((1, 2)))[:4]:
        covered = np.where(hole[i][..., None], figures.HIDDEN, shade(truth[i]))
        rows.append([covered, *(shade(f) for f in (*ours[i][:2], *exact[i][:2], plain[i][0], truth[i]))])
    columns = ["covered", "inkfill", "inkfill", "kriging", "kriging", "biharmonic", "truth"]
    figures.save_picture(figures.sheet(rows, columns), DOCS / "fields.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    main(parser.parse_args().steps)
