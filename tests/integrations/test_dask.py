"""Completions of dask arrays: the same whatever the chunks and the workers, one of them killed on the way too."""

import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest

import inkfill
from helpers import TINY
from inkfill.core.unet import UNet
from inkfill.data import masks
from inkfill.errors import InputError
from inkfill.integrations import dask as lazy
from inkfill.models.checkpoint import save_network
from inkfill.models.model import Recipe

da = pytest.importorskip("dask.array")


def apart(a, b) -> int:
    return int(np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max())


def test_whatever_the_chunks(checkpoint, digits):
    mask = masks.fit("half:random", digits[:10], 3)
    how = {"samples": 2, "steps": 3, "seed": 4}
    want = inkfill.inpaint(inkfill.load(checkpoint, dtype="float32"), digits[:10], mask, **how)
    for chunks in ((10, 28, 28), (3, 28, 28), (4, 10, 28)):
        lazily = lazy.inpaint(checkpoint, da.from_array(digits[:10], chunks), mask, dtype="float32", **how)
        assert (lazily.shape, lazily.dtype) == (want.shape, want.dtype)
        assert apart(lazily.compute(scheduler="threads"), want) <= 1


def test_masks_of_other_kinds(checkpoint, digits):
    model, half = inkfill.load(checkpoint, dtype="float32"), masks.fit("half:left", digits[:4])
    with_gaps = np.where(half, np.nan, digits[:4] / 255).astype(np.float32)
    images = da.from_array(with_gaps, (2, 28, 28))
    want = inkfill.inpaint(model, with_gaps, samples=1, steps=2, value_range=(0, 1))
    for mask in (None, "nan", half[0], da.from_array(half, (3, 28, 28))):
        got = lazy.inpaint(checkpoint, images, mask, 1, dtype="float32", steps=2, value_range=(0, 1)).compute()
        np.testing.assert_allclose(got, want, atol=1e-5)
        np.testing.assert_array_equal(got[:, 0][~half], with_gaps[~half])


def test_from_a_store_into_a_store(checkpoint, digits, tmp_path):
    pytest.importorskip("zarr")
    da.from_array(digits[:6], (2, 28, 28)).to_zarr(tmp_path / "scans.zarr")
    scans, mask = da.from_zarr(tmp_path / "scans.zarr"), np.arange(28) < np.full((28, 1), 14)
    lazy.inpaint(checkpoint, scans, mask, 2, steps=2).to_zarr(tmp_path / "filled.zarr")
    filled = da.from_zarr(tmp_path / "filled.zarr").compute()
    assert filled.shape == (6, 2, 28, 28)
    np.testing.assert_array_equal(filled[:, 0][:, ~mask], digits[:6][:, ~mask])


@pytest.mark.check
def test_a_worker_that_is_killed_changes_nothing(checkpoint, digits, tmp_path):
    """Three processes; one dies in the middle of its work, and its blocks are done again by others."""
    distributed = pytest.importorskip("distributed")
    half, how = masks.fit("half:left", digits[:1])[0], {"samples": 2, "steps": 40, "dtype": "float32"}
    images = da.from_array(digits[:24], (2, 28, 28))
    want = lazy.inpaint(checkpoint, images, half, **how).compute(scheduler="synchronous")
    with (
        distributed.LocalCluster(3, threads_per_worker=1, dashboard_address=None, local_directory=tmp_path) as cluster,
        distributed.Client(cluster) as client,
    ):
        pids = client.run(os.getpid)
        found = client.compute(lazy.inpaint(checkpoint, images, half, **how))
        victim = next(iter(pids.values()))
        while not client.processing()[next(iter(pids))]:
            time.sleep(0.01)
        time.sleep(0.5)
        os.kill(victim, signal.SIGKILL)
        np.testing.assert_array_equal(found.result(timeout=120), want)
        assert victim not in client.run(os.getpid).values()


def test_what_cannot_be(checkpoint, digits):
    images = da.from_array(digits[:2], (1, 28, 28))
    for bad, says in (
        ((checkpoint, digits[:2]), "dask array"),
        ((checkpoint, images[0]), "dask array"),
        ((checkpoint, images, "half:left"), "draw 'half:left' first"),
        ((checkpoint, images, np.zeros((3, 28, 28), bool)), "is needed"),
        (("nowhere.safetensors", images), "nowhere"),
    ):
        with pytest.raises(InputError, match=says):
            lazy.inpaint(*bad)


def test_blocks_agree_on_black_and_white(checkpoint, digits):
    """Fractions are from 0 to 1, or one says otherwise: what a block holds does not tell."""
    grey = digits[:3].astype(np.float32)
    grey[0] /= 255
    images, how = da.from_array(grey, (1, 28, 28)), {"samples": 1, "steps": 1, "dtype": "float32"}
    with pytest.raises(InputError, match="say what black and white are"):
        lazy.inpaint(checkpoint, images, np.ones((28, 28), bool) & (np.arange(28) < 14), **how).compute()
    with pytest.raises(InputError, match="int32 values: say what"):
        lazy.inpaint(checkpoint, images.astype("int32"), np.ones((28, 28), bool), **how)
    half = np.arange(28) < np.full((28, 1), 14)
    filled = [
        lazy.inpaint(checkpoint, images.rechunk((n, 28, 28)), half, value_range=(0, 255), **how).compute()
        for n in (1, 3)
    ]
    np.testing.assert_allclose(filled[0], filled[1], atol=1e-2)


def test_a_block_that_is_whole_and_colour_with_a_mask(tmp_path, digits):
    net = UNet(replace(TINY, channels=3))
    save_network(tmp_path / "colour", net, net.state_dict(), Recipe(channels=3).to_json())
    images = np.repeat(digits[:4, ..., None], 3, -1) / np.float32(255)
    mask = masks.fit("half:left", images)
    lazily = lazy.inpaint(tmp_path / "colour", da.from_array(images, (2, 28, 28, 3)), mask, 1, steps=1).compute()
    assert lazily.shape == (4, 1, 28, 28, 3)
    np.testing.assert_array_equal(lazily[:, 0][~mask], images[~mask])
    images[0][mask[0]] = np.nan
    lazily = lazy.inpaint(tmp_path / "colour", da.from_array(images, (2, 28, 28, 3)), None, 1, steps=1).compute()
    assert np.isfinite(lazily).all()
    np.testing.assert_array_equal(lazily[1:, 0], images[1:])
