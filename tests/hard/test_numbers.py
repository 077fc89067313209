"""Every method on odd sizes, dtypes, channels and masks: observed pixels bit for bit, and finite samples.

``INKFILL_HARD`` above 10,000 tries all combinations; otherwise each method has a random selection of its own.
"""

import itertools
import os

import numpy as np
import pytest
import torch

from inkfill.core.rng import stream
from inkfill.core.samplers import SAMPLERS
from inkfill.core.unet import UNet, UNetConfig
from inkfill.data import masks
from inkfill.filling.inpaint import inpaint
from inkfill.methods import METHODS
from inkfill.models.model import Model, Recipe

ALL = int(os.environ.get("INKFILL_HARD", "10000")) > 10_000
SIZES = ((8, 8), (9, 31), (28, 28))
DTYPES = ("uint8", "bool", "uint16", "float16", "float32", "float64")
HOLES = ("none", "all", "one", "half:left", "pixels:0.5")
CASES = list(itertools.product(SIZES, DTYPES, HOLES, (1, 2, 3, 4), SAMPLERS, ("float32", "bfloat16")))


def network(channels: int, generative: bool, dtype: str) -> Model:
    config = UNetConfig(
        channels=channels, widths=(8, 16), blocks=(1, 1), head_width=8, time_width=16, latent=generative
    )
    net, generator = UNet(config), torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    recipe = Recipe(channels=channels, objective="few" if generative else "v", image_size=(28, 28))
    return Model(net, recipe, dtype=getattr(torch, dtype))


def random_images(size, dtype, channels, rng):
    shape = (2, *size) if channels == 1 else (2, *size, channels)
    values = rng.random(shape)
    if dtype == "bool":
        return values > 0.5
    if dtype.startswith("uint"):
        return (values * np.iinfo(dtype).max).astype(dtype)
    return values.astype(dtype)


def hole(kind, images, rng):
    if kind != "one":
        return masks.fit(kind, images)
    mask = np.zeros(images.shape[:3], bool)
    mask[:, rng.integers(images.shape[1]), rng.integers(images.shape[2])] = True
    return mask


@pytest.mark.parametrize("method", METHODS)
def test_observed_pixels_come_back_and_samples_are_finite(method, record_property):
    rng = stream(0, "hard", method)
    chosen = CASES if ALL else [CASES[i] for i in rng.choice(len(CASES), 12, replace=False)]
    for size, dtype, kind, channels, sampler, precision in chosen:
        model, images = (
            network(channels, METHODS[method].needs == "generative", precision),
            random_images(size, dtype, channels, rng),
        )
        mask = hole(kind, images, rng)
        settings = {"particles": 2} if "particles" in METHODS[method].defaults() else {}
        scale = (0, 1) if dtype.startswith("float") else None
        filled = inpaint(model, images, mask, 2, method, 2, sampler=sampler, settings=settings, value_range=scale)
        where = f"{method} {size} {dtype} {kind} {channels} {sampler} {precision}"
        assert filled.dtype == images.dtype, where
        assert filled.shape == (2, 2, *images.shape[1:]), where
        for k in range(2):
            assert (filled[:, k] == images)[~mask].all(), where
        if filled.dtype.kind == "f":
            assert np.isfinite(filled).all(), where
    record_property(
        "figures", f"numbers: {method}: {len(chosen):,} combinations, observed pixels bit for bit, all finite"
    )


@pytest.mark.parametrize("steps", [1, 1000])
@pytest.mark.parametrize("method", ["conditional", "few"])
def test_one_step_and_a_thousand(method, steps):
    model = network(1, METHODS[method].needs == "generative", "float32")
    images = random_images((8, 8), "float32", 1, stream(1))
    filled = inpaint(model, images, "half:left", 1, method, steps, value_range=(0, 1))
    assert np.isfinite(filled).all()


def test_a_thousand_samples():
    model, images = network(1, False, "float32"), random_images((8, 8), "uint8", 1, stream(2))
    filled = inpaint(model, images[:1], "all", 1000, steps=2)
    assert filled.shape == (1, 1000, 8, 8)
    assert len(np.unique(filled.reshape(1000, -1), axis=0)) == 1000


def test_batches_change_samples_by_rounding(record_property):
    """The rest of a batch changes a sample by one grey level at most, in float32; the difference is printed."""
    model, images = network(1, False, "float32"), random_images((28, 28), "uint8", 1, stream(3))
    runs = [inpaint(model, images, "half:left", 4, steps=8, rows=rows).astype(int) for rows in (1, 3, 8)]
    most = max(np.abs(run - runs[0]).max() for run in runs)
    record_property("figures", f"batches of 1, 3 and 8: they change samples by {most} grey levels at most")
    assert most <= 1
