"""Scores of images in colour and of other dtypes."""

import numpy as np
import pytest

from helpers import images_of, model_of, tiny_model
from inkfill.data import masks
from inkfill.evaluation.cells import Completed
from inkfill.evaluation.protocol import evaluate
from inkfill.evaluation.scores import Cell, score
from inkfill.filling.inpaint import inpaint


def test_colour_is_scored_by_value(digits):
    """Three equal channels have the scores of one."""
    grey = inpaint(tiny_model(), digits[:4], "half:left", 4, steps=2)
    mask, colour = masks.fit("half:left", digits[:4]), np.stack([digits[:4]] * 3, -1)
    one = score(digits[:4], Completed(grey, mask, 2.0, 0.1), Cell("half:left"))
    three = score(colour, Completed(np.stack([grey] * 3, -1), mask, 2.0, 0.1), Cell("half:left"))
    for name in ("crps", "energy", "psnr_mean", "psnr_sample", "diversity"):
        assert three[name] == pytest.approx(one[name], rel=1e-5)
    assert three["ssim"] == pytest.approx(one["ssim"], abs=0.02)  # planes touch at their edges
    assert sum(three["ranks"]) == 3 * sum(one["ranks"])


@pytest.mark.parametrize(("dtype", "channels"), [("float32", 1), ("uint16", 1), ("uint8", 4)])
def test_any_dtype_and_channels_are_scored(dtype, channels):
    images = images_of(dtype, (4, 10, 15) if channels == 1 else (4, 10, 15, channels))
    values = {"float32": (0.0, 1.0), "uint16": (0.0, 65535.0), "uint8": (0.0, 255.0)}[dtype]
    model = model_of(channels, (10, 15), value_range=values, number_type=dtype)
    (row,) = evaluate(model, images, "half:left", steps=1, samples=3)
    assert 0 < row["crps"] < 1
    assert row["psnr_sample"] > 0
