"""Scores of a cell: rows and columns of the table."""

import numpy as np
import pytest

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
