"""inkfill.evaluate: any prior, arrays and masks in, rows out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import inkfill
from helpers import incomplete, independent, model_of, must_refuse, run, tiny_model
from inkfill.core.schedule import Schedule
from inkfill.data import masks
from inkfill.evaluation.analytic import AnalyticPrior
from inkfill.models import adapters


def test_a_row_for_each_mask_method_and_number_of_steps(model, digits):
    rows = inkfill.evaluate(
        model, digits[:3], ["half:left", "box:10"], ["conditional", "biharmonic"], [1, 2], samples=2
    )
    assert [(row["mask"], row["method"], row["steps"], row["evaluations"]) for row in rows] == [
        (mask, method, steps, evaluations)
        for mask in ("half:left", "box:10")
        for method, steps, evaluations in (("conditional", 1, 1), ("conditional", 2, 2), ("biharmonic", 1, 0))
    ]
    assert all(row.keys() == rows[0].keys() for row in rows)  # a table
    assert all(0 < row["crps"] < 1 and row["images"] == 3 and row["samples"] == 2 for row in rows)


def test_the_rows_are_those_of_the_command(tmp_path, checkpoint, digits):
    """Ten images in a file: the last one in the data set's order is for testing."""
    import json

    from inkfill import data

    np.save(tmp_path / "digits.npy", digits[:10])
    words = ["--data", tmp_path / "digits.npy", "--mask", "strokes", "--samples", 3, "--steps", 2, "--seed", 4]
    methods = ["--method", "conditional", "--method", "nearest"]
    assert run("evaluate", *words, *methods, "--checkpoint", checkpoint, "--out", tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    dataset, model = data.load(str(tmp_path / "digits.npy")), inkfill.load(checkpoint)
    methods = ["conditional", "nearest"]
    rows = inkfill.evaluate(model, dataset.test, "strokes", methods, 2, 3, seed=4, train=dataset.train)
    for one, other in zip(found, rows, strict=True):
        for name in ("mask", "method", "crps", "energy", "ranks", "psnr_sample", "crps_units", "copied"):
            assert one.get(name) == other.get(name), name


def test_an_analytic_prior_is_calibrated():
    """Independent pixels, 640 of them missing: coverage within 5 standard errors of 0.012; CRPS sigma / sqrt(pi)."""
    images = np.random.default_rng(0).normal(0, 0.2, (20, 8, 8)).astype(np.float32)

    def row(variance):
        prior = AnalyticPrior(independent(*[variance] * 64), Schedule.named("cosine"))
        how = {"samples": 8, "sampler": "ancestral", "value_range": (-1, 1)}
        (found,) = inkfill.evaluate(prior, images, "half:left", steps=60, **how)
        return found

    right, overconfident = row(0.04), row(0.0025)
    assert right["method"] == "conditional"
    assert right["coverage90"] == pytest.approx(0.9, abs=0.06)
    assert right["crps_units"] == pytest.approx(0.2 / np.pi**0.5, rel=0.1)
    assert overconfident["coverage90"] < 0.75
    assert overconfident["crps"] > 1.1 * right["crps"]


def test_a_foreign_model_is_scored_by_its_own_method():
    table = torch.linspace(0.999, 0.01, 20)
    prior = adapters.prior(lambda x, t: torch.zeros_like(x), table, predicts="x0", channels=3)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 9, 3), dtype=np.uint8)
    (row,) = inkfill.evaluate(prior, images, "box:4", steps=3, samples=2)
    assert (row["method"], row["evaluations"]) == ("ddnm", 3)


def test_a_function_is_a_method(model, digits):
    def halfway(task):
        return torch.where(task.observation.known, task.observation.pixels, 0.0)

    rows = inkfill.evaluate(model, digits[:2], "half:left", [halfway, "ddnm"], steps=1, samples=2)
    assert [row["method"] for row in rows] == ["halfway", "ddnm"]
    left = digits[:2, :, :14]
    assert rows[0]["crps_units"] == pytest.approx(np.abs(left - 128.0).mean(), rel=1e-6)  # 127.5, rounded to even


def test_masks_as_people_have_them(tmp_path, model, digits):
    """A spec, its array, a file of it and a name for it: one score."""
    images, spec = digits[:4], "half:left"
    array = np.array(masks.fit(spec, images))
    np.save(tmp_path / "each.npy", array)
    Image.fromarray(array[0]).save(tmp_path / "one.png")
    files = [str(tmp_path / "each.npy"), tmp_path / "one.png"]
    given = [spec, array, torch.from_numpy(array), array[0], files, {"mine": array, "theirs": spec}]
    rows = [row for masks_ in given for row in inkfill.evaluate(model, images, masks_, steps=1, samples=2)]
    assert [row["mask"] for row in rows] == [spec, "mask", "mask", "mask", *map(str, files), "mine", "theirs"]
    assert len({row["crps"] for row in rows}) == 1


@pytest.mark.parametrize("form", ["nan", "masked"])
def test_missing_values_are_filled_and_not_scored(digits, form):
    """Half of the pixels have no truth: the scores are over the others under the mask, and garbage changes nothing."""
    images, hole = incomplete(digits[:4])
    model = model_of(1, value_range=(0.0, 1.0), number_type="float32")
    if form == "masked":
        images = np.ma.masked_array(np.where(hole, 7.0, images).astype(np.float32), hole)
    (row,) = inkfill.evaluate(model, images, "half:left", steps=1, samples=3)
    mask = masks.fit("half:left", digits[:4])
    assert sum(row["ranks"]) == (mask & ~hole).sum() < 0.6 * mask.sum()
    assert 0 < row["crps"] < 1


def test_bad_input_is_refused_in_one_line(model, digits):
    def refused(*words, images=digits[:2], **how):
        must_refuse(lambda: inkfill.evaluate(model, images, **{"masks": "half:left", "steps": 1, **how}), *words)

    refused("--data-mask nan", masks="nan")
    refused("mask is for 3 images", masks=np.ones((3, 28, 28), bool))
    refused("unknown mask", masks="half:up")
    refused("unknown method", methods="magic")
    refused("nearest: training images are required", methods="nearest")
    refused("--regression", methods="regression")
    refused("at least one", masks=[])
    refused("at least one", methods=[])
    refused("shape", images=np.zeros(5))
    assert inkfill.evaluate(model, digits[:2], "half:left", "biharmonic", samples=2)


def test_time_is_read_when_the_gpu_has_finished(model, digits, monkeypatch):
    """Seconds of a GPU are no core-seconds: they do not grow with the number of threads."""
    from inkfill.evaluation import cells

    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    for name in ("cuda", "mps", "cpu"):
        assert cells._clock(torch.device(name)) > 0
    assert waited == [torch.device("cuda"), "mps"]
    at = []
    monkeypatch.setattr(cells, "_clock", lambda device: at.append(device) or len(at))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    done = cells.complete(model, digits[:2], cells.Cell("box:9", steps=1, samples=2))
    assert done.seconds == 5 / 4
    elsewhere = tiny_model()
    elsewhere.device = torch.device("cuda")
    monkeypatch.setattr(cells, "inpaint", lambda *args, **how: np.zeros((2, 2, 28, 28), np.uint8))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    done = cells.complete(elsewhere, digits[:2], replace(cells.Cell("box:9"), steps=1, samples=2))
    assert at[2:] == [torch.device("cuda")] * 2
    assert done.seconds == 1 / 4
