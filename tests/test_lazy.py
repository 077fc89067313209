"""Completions of dask arrays: the same whatever the chunks and the workers, one of them killed on the way too."""

import os
import signal
import time

import numpy as np
import pytest

import inkfill
from inkfill import lazy
from inkfill.data import masks
from inkfill.errors import InputError

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


@pytest.mark.slow
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
