"""Samples of dask arrays: independent of chunks and workers, even if one is killed."""

import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest

import inkfill
from helpers import TINY, random_net
from inkfill.core.unet import UNet
from inkfill.data import masks
from inkfill.errors import InputError
from inkfill.integrations import dask as inkfill_dask
from inkfill.models.checkpoint import save_network
from inkfill.models.model import Recipe

da = pytest.importorskip("dask.array")


def largest_difference(a, b) -> int:
    return int(np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max())


def test_samples_do_not_depend_on_the_chunks(checkpoint, digits):
    mask = masks.fit("half:random", digits[:10], 3)
    how = {"samples": 2, "steps": 3, "seed": 4}
    want = inkfill.inpaint(inkfill.load(checkpoint, dtype="float32"), digits[:10], mask, **how)
    for chunks in ((10, 28, 28), (3, 28, 28), (4, 10, 28)):
        lazily = inkfill_dask.inpaint(checkpoint, da.from_array(digits[:10], chunks), mask, dtype="float32", **how)
        assert (lazily.shape, lazily.dtype) == (want.shape, want.dtype)
        assert largest_difference(lazily.compute(scheduler="threads"), want) <= 1


def test_kinds_of_masks(checkpoint, digits):
    model, half = inkfill.load(checkpoint, dtype="float32"), masks.fit("half:left", digits[:4])
    with_gaps = np.where(half, np.nan, digits[:4] / 255).astype(np.float32)
    images = da.from_array(with_gaps, (2, 28, 28))
    want = inkfill.inpaint(model, with_gaps, samples=1, steps=2, value_range=(0, 1))
    for mask in (None, "nan", half[0], da.from_array(half, (3, 28, 28))):
        got = inkfill_dask.inpaint(checkpoint, images, mask, 1, dtype="float32", steps=2, value_range=(0, 1)).compute()
        np.testing.assert_allclose(got, want, atol=1e-5)
        np.testing.assert_array_equal(got[:, 0][~half], with_gaps[~half])


def test_from_zarr_to_zarr(checkpoint, digits, tmp_path):
    pytest.importorskip("zarr")
    da.from_array(digits[:6], (2, 28, 28)).to_zarr(tmp_path / "scans.zarr")
    scans, mask = da.from_zarr(tmp_path / "scans.zarr"), np.arange(28) < np.full((28, 1), 14)
    inkfill_dask.inpaint(checkpoint, scans, mask, 2, steps=2).to_zarr(tmp_path / "filled.zarr")
    filled = da.from_zarr(tmp_path / "filled.zarr").compute()
    assert filled.shape == (6, 2, 28, 28)
    np.testing.assert_array_equal(filled[:, 0][:, ~mask], digits[:6][:, ~mask])


def test_weights_are_read_again_when_their_file_changes(digits, tmp_path):
    images, half, found = da.from_array(digits[:2], (2, 28, 28)), np.arange(28) < np.full((28, 1), 14), []
    for seed in (0, 1):
        net = random_net(TINY, seed)
        save_network(tmp_path / "w.safetensors", net, net.state_dict(), Recipe().to_json())
        found.append(inkfill_dask.inpaint(tmp_path / "w.safetensors", images, half, 1, steps=1).compute())
    assert largest_difference(*found) > 0


@pytest.mark.check
def test_a_killed_worker_changes_nothing(checkpoint, digits, tmp_path):
    """Three processes; one is killed at work, and others repeat its blocks."""
    distributed = pytest.importorskip("distributed")
    half, how = masks.fit("half:left", digits[:1])[0], {"samples": 2, "steps": 40, "dtype": "float32"}
    images = da.from_array(digits[:24], (2, 28, 28))
    want = inkfill_dask.inpaint(checkpoint, images, half, **how).compute(scheduler="synchronous")
    with (
        distributed.LocalCluster(3, threads_per_worker=1, dashboard_address=None, local_directory=tmp_path) as cluster,
        distributed.Client(cluster) as client,
    ):
        pids = client.run(os.getpid)
        found = client.compute(inkfill_dask.inpaint(checkpoint, images, half, **how))
        victim = next(iter(pids.values()))
        while not client.processing()[next(iter(pids))]:
            time.sleep(0.01)
        time.sleep(0.5)
        os.kill(victim, signal.SIGKILL)
        np.testing.assert_array_equal(found.result(timeout=120), want)
        assert victim not in client.run(os.getpid).values()


def test_bad_arguments_are_refused(checkpoint, digits):
    images = da.from_array(digits[:2], (1, 28, 28))
    for bad, says in (
        ((checkpoint, digits[:2]), "dask array"),
        ((checkpoint, images[0]), "dask array"),
        ((checkpoint, images, "half:left"), "draw 'half:left' first"),
        ((checkpoint, images, np.zeros((3, 28, 28), bool)), "must be"),
        (("nowhere.safetensors", images), "nowhere"),
    ):
        with pytest.raises(InputError, match=says):
            inkfill_dask.inpaint(*bad)


def test_all_blocks_have_one_data_range(checkpoint, digits):
    """Floats are in [0, 1] unless value_range is given: no block determines it."""
    grey = digits[:3].astype(np.float32)
    grey[0] /= 255
    images, how = da.from_array(grey, (1, 28, 28)), {"samples": 1, "steps": 1, "dtype": "float32"}
    with pytest.raises(InputError, match=r"a block has values from 0 to 2.*give value_range"):
        inkfill_dask.inpaint(checkpoint, images, np.ones((28, 28), bool) & (np.arange(28) < 14), **how).compute()
    with pytest.raises(InputError, match="int32 has no natural data range: give value_range"):
        inkfill_dask.inpaint(checkpoint, images.astype("int32"), np.ones((28, 28), bool), **how)
    half = np.arange(28) < np.full((28, 1), 14)
    filled = [
        inkfill_dask.inpaint(checkpoint, images.rechunk((n, 28, 28)), half, value_range=(0, 255), **how).compute()
        for n in (1, 3)
    ]
    np.testing.assert_allclose(filled[0], filled[1], atol=1e-2)


def test_colour_and_complete_blocks(tmp_path, digits):
    net = UNet(replace(TINY, channels=3))
    save_network(tmp_path / "colour", net, net.state_dict(), Recipe(channels=3).to_json())
    images = np.repeat(digits[:4, ..., None], 3, -1) / np.float32(255)
    mask = masks.fit("half:left", images)
    lazily = inkfill_dask.inpaint(
        tmp_path / "colour", da.from_array(images, (2, 28, 28, 3)), mask, 1, steps=1
    ).compute()
    assert lazily.shape == (4, 1, 28, 28, 3)
    np.testing.assert_array_equal(lazily[:, 0][~mask], images[~mask])
    images[0][mask[0]] = np.nan
    lazily = inkfill_dask.inpaint(
        tmp_path / "colour", da.from_array(images, (2, 28, 28, 3)), None, 1, steps=1
    ).compute()
    assert np.isfinite(lazily).all()
    np.testing.assert_array_equal(lazily[1:, 0], images[1:])
