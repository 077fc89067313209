"""Gaussian fields with gaps, filled by inkfill, which trains on incomplete fields, and by kriging.

    .venv/bin/python reports/fields.py measure [--steps S]      trains into runs/fields, once; into reports/fields/
    .venv/bin/python reports/fields.py bands [--steps S]        two correlated bands, one of them missing
    .venv/bin/python reports/fields.py counts [--minutes M]     counts from 1 to 100,000 with gaps
    .venv/bin/python reports/fields.py page

The fields are simulated, so the exact posterior of the gaps is known.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from skimage.restoration import inpaint_biharmonic

from common import Row, folder, run, save, saved, show, trained, write_tables
from inkfill.app import figures
from inkfill.core.rng import stream
from inkfill.core.unet import UNetConfig
from inkfill.evaluation import metrics
from inkfill.filling.inpaint import inpaint
from inkfill.models.model import load
from inkfill.tables import table
from inkfill.training.config import TrainConfig

REPORT, FOLDER = "fields", Path("runs/fields")
SIDE, LENGTH, MEAN, COVERED = 28, 5.0, 10.0, 0.3
BAND, CORRELATION = 16, 0.9  # side of two bands, and the correlation of their values at a pixel
COUNT, NEW, K = 3000, 64, 16
Fields = NDArray[np.float32]


def covariance(length: float) -> NDArray[np.float64]:
    """Matérn 3/2 of variance 1 between all pixels of a field."""
    places = np.indices((SIDE, SIDE)).reshape(2, -1).T
    scaled = np.sqrt(3) * cdist(places, places) / length
    found: NDArray[np.float64] = (1 + scaled) * np.exp(-scaled)
    return found


@cache
def root(length: float) -> NDArray[np.float64]:
    """A root of the covariance."""
    return np.linalg.cholesky(covariance(length) + 1e-8 * np.eye(SIDE**2))


def fields(count: int, rng: np.random.Generator) -> tuple[Fields, NDArray[np.bool_]]:
    """Fields ``[N, 28, 28]``, and their gaps."""
    values = MEAN + rng.standard_normal((count, SIDE**2)) @ root(LENGTH).T
    clouds = rng.standard_normal((count, SIDE**2)) @ root(LENGTH).T
    covered = clouds > np.quantile(clouds, 1 - COVERED)
    return values.reshape(-1, SIDE, SIDE).astype(np.float32), covered.reshape(-1, SIDE, SIDE)


def kriged(field: Fields, hole: NDArray[np.bool_], length: float, rng: np.random.Generator) -> Fields:
    """``K`` posterior samples of the gaps, for a covariance of that length."""
    out, miss = np.repeat(field[None], K, 0), hole.ravel()
    if miss.any():
        whole = covariance(length)
        observed, across, hidden = (whole[np.ix_(a, b)] for a, b in ((~miss, ~miss), (miss, ~miss), (miss, miss)))
        weights = np.linalg.solve(observed + 1e-8 * np.eye(len(observed)), across.T).T
        rest = np.linalg.cholesky(hidden - weights @ across.T + 1e-8 * np.eye(len(hidden)))
        mean = MEAN + weights @ (field.ravel()[~miss] - MEAN)
        out[:, hole] = mean + rng.standard_normal((K, len(mean))) @ rest.T
    return out


def biharmonic(field: Fields, hole: NDArray[np.bool_]) -> Fields:
    """The estimate of scikit-image."""
    filled: Fields = inpaint_biharmonic(np.where(hole, 0, field).astype(np.float64), hole).astype(np.float32)
    return filled[None]


def scored(name: str, truth: Fields, hole: NDArray[np.bool_], filled: Fields) -> Row:
    """A row of the table, in the unit of the fields. Of one estimate the CRPS is its absolute error."""
    row: Row = {"filling": name, "rmse": float(np.sqrt(((filled.mean(1) - truth)[hole] ** 2).mean()))}
    if filled.shape[1] == 1:
        return show(row | {"crps": float(np.abs(filled[:, 0] - truth)[hole].mean())})
    for key, metric in (("crps", metrics.crps), ("energy", metrics.energy_score)):
        each = metric(truth, filled, hole)
        row |= {key: float(np.nanmean(each)), f"{key}_se": metrics.standard_error(each)}
    histogram = metrics.ranks(truth, filled, hole, stream(0, "ties")).sum(0)
    return show(row | {f"coverage{100 * w:.0f}": float(metrics.coverage(histogram, w)) for w in (0.5, 0.9)})


def measure(steps: int = 1500) -> None:
    """Train, fill, score, draw."""
    rng = stream(0, "fields")
    FOLDER.mkdir(parents=True, exist_ok=True)
    values, covered = fields(COUNT, rng)
    np.save(FOLDER / "fields.npy", np.where(covered, np.nan, values))
    config = TrainConfig(data=str(FOLDER / "fields.npy"), data_mask="nan", steps=steps, batch_size=32, ema=0.998)
    weights = trained(config, FOLDER / "run")
    truth, hole = fields(NEW, rng)
    ways = {"inkfill": inpaint(load(weights), np.where(hole, np.nan, truth), "nan", K)}
    for name, length in (("true covariance", 1), ("half the length", 0.5), ("twice the length", 2)):
        each = [kriged(f, h, LENGTH * length, rng) for f, h in zip(truth, hole, strict=True)]
        ways[f"kriging, {name}"] = np.stack(each)
    ways["biharmonic"] = np.stack([biharmonic(f, h) for f, h in zip(truth, hole, strict=True)])
    save(REPORT, "scores", [scored(name, truth, hole, filled) for name, filled in ways.items()])
    picture(truth, hole, ways)


def bands(steps: int = 1500) -> None:
    """Two bands of 16x16: is the second drawn from its posterior given the first, by a network that reads both?"""
    rng, config = stream(0, "bands"), replace(UNetConfig(), channels=2, planes=2)
    places = np.indices((BAND, BAND)).reshape(2, -1).T
    scaled = np.sqrt(3) * cdist(places, places) / LENGTH
    whole = np.kron(np.array([[1, CORRELATION], [CORRELATION, 1]]), (1 + scaled) * np.exp(-scaled))
    factor = np.linalg.cholesky(whole + 1e-8 * np.eye(len(whole)))

    def drawn(count: int) -> Fields:
        values = MEAN + rng.standard_normal((count, len(whole))) @ factor.T
        return np.moveaxis(values.reshape(count, 2, BAND, BAND), 1, -1).astype(np.float32)

    FOLDER.mkdir(parents=True, exist_ok=True)
    np.save(FOLDER / "bands.npy", drawn(COUNT))
    settings = TrainConfig(data=str(FOLDER / "bands.npy"), steps=steps, batch_size=32, ema=0.998, unet=config)
    model = load(trained(settings, FOLDER / "bands"))
    truth, hole = drawn(NEW), np.zeros((NEW, BAND, BAND, 2), bool)
    hole[..., 1] = True
    first, second, half = truth[..., 0].reshape(NEW, -1), truth[..., 1], len(whole) // 2
    rest = np.linalg.cholesky((1 - CORRELATION**2) * whole[:half, :half] + 1e-8 * np.eye(half))
    exact = (MEAN + CORRELATION * (first - MEAN))[:, None] + rng.standard_normal((NEW, K, half)) @ rest.T
    ways = {
        "inkfill": inpaint(model, np.where(hole, np.nan, truth), None, K)[..., 1],
        "kriging, true covariance": exact.reshape(NEW, K, BAND, BAND).astype(np.float32),
    }
    save(REPORT, "bands", [scored(name, second, hole[..., 1], filled) for name, filled in ways.items()])


def counts(minutes: float = 10.0) -> None:
    """Counts over five decades, with gaps: by which factor is the median of the samples off?"""
    rng = stream(0, "counts")
    FOLDER.mkdir(parents=True, exist_ok=True)
    images, covered = (each[:, :BAND, :BAND] for each in fields(COUNT, rng))
    np.save(FOLDER / "counts.npy", np.where(covered, np.nan, rng.poisson(intensity(images))).astype(np.float32))
    truth, hole = fields(NEW, rng)
    hole[:, BAND:] = hole[:, :, BAND:] = True  # outside the images
    part = np.s_[:, :BAND, :BAND]
    drawn = rng.poisson(intensity(truth[part])).astype(np.float32)

    def factors(filling: str, filled: NDArray[np.floating], **about: float) -> Row:
        median = np.median(filled, 1)[hole[part]]
        off = np.exp(np.abs(np.log((median + 1) / (drawn[hole[part]] + 1))))
        return show({"filling": filling, **about, "factor": float(np.median(off)), "p90": float(np.quantile(off, 0.9))})

    config = TrainConfig(
        data=str(FOLDER / "counts.npy"), data_mask="nan", minutes=minutes, batch_size=32, ema=0.998, transform="log1p"
    )
    model = load(trained(config, FOLDER / "counts"))
    ours = inpaint(model, np.where(hole[part], np.nan, drawn), None, K)
    exact = np.stack([kriged(field, gaps, LENGTH, rng) for field, gaps in zip(truth, hole, strict=True)])
    rows = [
        factors("inkfill, --transform log1p", ours, minutes=minutes, steps=model.recipe.step),
        factors("kriging of the log intensity, true covariance", intensity(exact[:, :, :BAND, :BAND])),
    ]
    save(REPORT, "counts", rows)


def intensity(values: Fields) -> NDArray[np.float64]:
    """Expected counts from 1 to 100,000, about log-normal."""
    return np.exp(np.clip(np.log(300) + 1.7 * (values.astype(np.float64) - MEAN), 0, np.log(1e5)))


def page() -> None:
    """Rewrite the tables of the page from JSON."""
    columns = {
        "filling": ("filling", "{}"), "crps": ("CRPS", "{:.3f}"), "crps_se": ("±", "{:.3f}"),
        "energy": ("energy score", "{:.3f}"), "energy_se": ("±", "{:.3f}"), "rmse": ("RMSE of the mean", "{:.3f}"),
        "coverage50": ("coverage 50 %", "{:.3f}"), "coverage90": ("coverage 90 %", "{:.3f}"),
    }  # fmt: skip
    factors = {
        "filling": ("filling", "{}"), "minutes": ("minutes", "{:g}"), "steps": ("steps", "{:,}"),
        "factor": ("median factor", "{:.2f}"), "p90": ("90 % of pixels within", "{:.1f}"),
    }  # fmt: skip
    tables = {name: table(saved(REPORT, name), columns) for name in ("scores", "bands")}
    write_tables(REPORT, {**tables, "counts": table(saved(REPORT, "counts"), factors)})


def picture(truth: Fields, hole: NDArray[np.bool_], ways: dict[str, Fields]) -> None:
    """Four fields: covered, two samples each of inkfill and kriging, biharmonic, the truth."""

    def shade(field: Fields) -> figures.RGB:
        return figures.grey(np.clip((field - MEAN) * 42 + 128, 0, 255).astype(np.uint8))

    (ours, exact, *_, plain), rows = list(ways.values()), []
    for i in np.argsort(-hole.mean((1, 2)))[:4]:
        covered = np.where(hole[i][..., None], figures.MISSING, shade(truth[i]))
        rows.append([covered, *(shade(f) for f in (*ours[i][:2], *exact[i][:2], plain[i][0], truth[i]))])
    columns = ["covered", "inkfill", "inkfill", "kriging", "kriging", "biharmonic", "truth"]
    figures.save_picture(figures.sheet(rows, columns), folder(REPORT) / "fields.png")


if __name__ == "__main__":
    run(measure, bands, counts, page)
