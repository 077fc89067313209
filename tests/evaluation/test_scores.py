"""Scores of a cell: rows and columns of the table."""

import numpy as np
import pytest

from inkfill.data import ValueRange
from inkfill.evaluation import scores
from inkfill.evaluation.cells import Cell, Completed
from inkfill.evaluation.scores import score
from inkfill.tables import table


def test_coverage_of_uneven_pixels_shows_overconfidence_that_black_pixels_hide():
    """Nine pixels in ten are black in truth and samples, the tenth is overconfident.

    400 images of 36 such pixels: the bootstrap standard error is under 0.02, so 0.75 is five of them below 0.9.
    """
    rng = np.random.default_rng(0)
    truth = np.clip(rng.normal(127, 25, (400, 6, 6)).round(), 0, 255).astype(np.uint8)
    filled = np.clip(rng.normal(127, 12.5, (400, 16, 6, 6)).round(), 0, 255).astype(np.uint8)
    mask = np.ones(truth.shape, bool)
    side = np.zeros((*truth.shape[:-1], 9 * truth.shape[-1]), np.uint8)
    truth = np.concatenate([truth, side], -1)
    filled = np.concatenate([filled, np.repeat(side[:, None], filled.shape[1], 1)], -1)
    mask = np.concatenate([mask, np.ones(side.shape, bool)], -1)
    row = score(truth, Completed(filled, mask, 1.0, 1.0), Cell("half:left", samples=filled.shape[1]))
    assert row["coverage90"] == pytest.approx(0.9, abs=0.04)
    assert row["uneven90"] < 0.75
    assert 0 < row["uneven90_se"] < 0.02


def test_distances_between_few_images_are_left_out(digits):
    """The samples are the truth itself, which is among the training images."""
    judges = scores.Judges(
        scores.load_classifier(scores.WHOLE),
        scores.load_classifier(scores.MASKED),
        np.random.rand(300, 128),  # noqa: NPY002
        digits,
    )

    def row(n):
        truth = np.resize(digits, (n, 28, 28))
        done = Completed(np.repeat(truth[:, None], 2, 1), np.ones(truth.shape, bool), 1.0, 1.0)
        return scores.score(truth, done, Cell("all"), np.zeros(n, int), judges)

    few, many = row(20), row(scores.LEAST_IMAGES)
    assert not [name for name in few if name.startswith(("frechet", "kernel"))]
    assert many["frechet"] == pytest.approx(many["frechet_floor"])
    assert "vote" in few
    assert few["confident"] == few["real_confident"]
    assert few["nearest"] == few["real_nearest"] == pytest.approx(0, abs=1e-3)
    assert few["real_imbalance"] == pytest.approx(0.9)  # all labels are 0
    assert "imbalance" in table([few], scores.NEW_COLUMNS)
    assert "Fréchet" not in table([few], scores.LABEL_COLUMNS)
    assert "Fréchet" in table([few, many], scores.LABEL_COLUMNS)


UINT8 = {  # scores of random bytes, grey and colour, as they have been since 0.1
    (6, 12, 9): {
        "crps": 0.18465153049094982, "crps_se": 0.00797863062183138, "energy": 0.22422846196368854,
        "psnr_mean": 9.315290810907443, "psnr_limit": 9.99214210717513, "psnr_sample": 7.336278441824372,
        "ssim": 0.008019397675642382, "diversity": 0.4086206716831311, "coverage90": 0.8869230769230769,
        "ranks": [52, 42, 43, 43, 34, 46],
    },
    (4, 10, 8, 3): {
        "crps": 0.16283119364702903, "crps_se": 0.007548177818641429, "energy": 0.19894470308090154,
        "psnr_mean": 10.16164505008507, "psnr_limit": 10.98050933114614, "psnr_sample": 7.889554114910952,
        "ssim": 0.03624320948358475, "diversity": 0.4061213677896385, "coverage90": 0.9013793103448275,
        "ranks": [58, 66, 76, 65, 85, 85],
    },
}  # fmt: skip


@pytest.mark.parametrize("shape", UINT8)
def test_scores_of_bytes_are_what_they_were(shape):
    """The values on another machine may differ by the rounding of float64."""
    rng = np.random.default_rng(0)
    for size in UINT8:  # one stream for both
        truth, filled = (rng.integers(0, 256, each, dtype=np.uint8) for each in (size, (size[0], 5, *size[1:])))
        mask = rng.random(size[:3]) < 0.4
        if size == shape:
            row = score(truth, Completed(filled, mask, 1.0, 1.0), Cell("half:left", samples=5))
    assert UINT8[shape]
    for name, value in UINT8[shape].items():
        assert row[name] == pytest.approx(value, rel=1e-9), name
    assert row["crps_units"] == row["crps"] * 255


def of_outliers(n=20):
    """Small values with two outliers an image, which make the range a thousand times as wide; K = 2 equal fills each.

    One is off by .0005 of the images' unit and the other by .0004, less than a byte of the range.
    """
    truth = np.random.default_rng(0).normal(0, 0.001, (n, 8, 8))
    truth[:, 0, 0], truth[:, 7, 7] = 1, -1
    mask = np.zeros(truth.shape, bool)
    mask[:, 2:6, 2:6] = True
    return truth, mask, [np.repeat((truth + np.where(mask, off, 0))[:, None], 2, 1) for off in (0.0005, 0.0004)]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_floats_are_scored_in_their_own_values(dtype):
    truth, mask, fills = of_outliers()
    for filled, off in zip(fills, (0.0005, 0.0004), strict=True):
        done = Completed(filled.astype(dtype), mask, 1.0, 1.0)
        row = score(truth.astype(dtype), done, Cell("box:4"), values=ValueRange(-1, 1))
        assert row["crps_units"] == pytest.approx(off, rel=1e-2 if dtype == "float16" else 1e-4)
        assert row["crps"] == row["crps_units"] / 2
        assert row["psnr_sample"] == pytest.approx(-20 * np.log10(off / 2), abs=0.1)


def test_integers_are_scored_in_their_own_values():
    """A grey level of 65,536 is no byte."""
    truth = np.full((2, 8, 8), 1000, np.uint16)
    done = Completed(np.full((2, 3, 8, 8), 1001, np.uint16), np.ones((2, 8, 8), bool), 1.0, 1.0)
    row = score(truth, done, Cell("all"), values=ValueRange(0, 65535))
    assert row["crps_units"] == pytest.approx(1)
    assert row["ranks"] == [2 * 64, 0, 0, 0]


def test_a_mask_by_channel_is_scored_by_channel():
    """Channel 1 is never missing and has no score, although it is wrong."""
    rng = np.random.default_rng(0)
    truth, filled = rng.random((3, 8, 9, 2)), rng.random((3, 4, 8, 9, 2))
    mask = np.zeros(truth.shape, bool)
    mask[..., 0] = rng.random((3, 8, 9)) < 0.5
    both = score(truth, Completed(filled, mask, 1.0, 1.0), Cell("x"), values=ValueRange(0, 1))
    one = score(truth[..., 0], Completed(filled[..., 0], mask[..., 0], 1.0, 1.0), Cell("x"), values=ValueRange(0, 1))
    for name in ("crps", "crps_units", "energy", "psnr_mean", "diversity", "coverage90"):
        assert both[name] == pytest.approx(one[name], rel=1e-12), name
    assert both["ranks"] == one["ranks"]


def test_the_table_has_units_where_they_are_no_bytes():
    row = {"mask": "box:4", "method": "mean", "crps": 0.0002, "crps_se": 0.1, "crps_units": 0.0005123}
    assert "units" not in table([row], scores.columns_for(ValueRange()))
    headings = table([row], scores.columns_for(ValueRange(-1, 1))).splitlines()[0].split()
    assert headings.index("CRPS") < headings.index("(units)")
    assert "0.0005123" in table([row], scores.columns_for(ValueRange(-1, 1)))
