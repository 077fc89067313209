"""``inkfill evaluate``: table, page, stored samples."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from helpers import process, refused, run, two_processes
from inkfill.data import datasets

HALF = ["--samples", 2, "--steps", 1, "--mask", "half:left"]


@pytest.fixture
def many(tmp_path, digits):
    """A file of images with 6 for testing."""
    np.save(tmp_path / "many.npy", digits)
    return tmp_path / "many.npy"


def test_a_table_and_a_file_of_results(checkpoint, tmp_path, few_rendered, capsys):
    settings = ["--data", "rendered", "--count", 4, "--samples", 3, "--mask", "half:left", "--mask", "box:10"]
    assert run("evaluate", *settings, "--out", tmp_path / "out", "--steps", 2, "--checkpoint", checkpoint) == 0
    assert "rendered, test split, 4 images, K = 3" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [row["mask"] for row in found["rows"]] == ["half:left", "box:10"]
    assert all(row["evaluations"] == 2 and 0 < row["crps"] < 1 for row in found["rows"])
    assert found["data"] == "rendered"
    assert len(found["checkpoint_hash"]) == 16


def test_rendered_digits_are_never_called_mnist(checkpoint, tmp_path, few_rendered, monkeypatch, capsys):
    monkeypatch.setenv("INKFILL_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(datasets.find_mnist, "__defaults__", (("http://127.0.0.1:9/",),))
    monkeypatch.setattr(datasets, "rendered", few_rendered)
    tail = ["--count", 2, "--samples", 2, "--steps", 1, "--mask", "all", "--checkpoint", checkpoint]
    assert run("evaluate", *tail) == 0
    captured = capsys.readouterr()
    assert "BUILT-IN 'rendered'" in captured.err
    assert captured.out.startswith("rendered,")


def test_a_stopped_evaluation_continues(checkpoint, tmp_path, many, capsys):
    out = tmp_path / "results"
    settings = ["--data", many, "--count", 3, "--samples", 2, "--steps", 2, "--checkpoint", checkpoint]
    assert run("evaluate", *settings, "--mask", "half:left", "--out", out) == 0
    (cell,) = (out / "cells").iterdir()
    made, rows = cell.stat().st_mtime_ns, json.loads((out / "results.json").read_text())["rows"]
    tail = ["--mask", "half:left", "--mask", "box:10", "--method", "conditional", "--method", "nearest", "--out", out]
    assert run("evaluate", *settings, *tail) == 0
    assert cell.stat().st_mtime_ns == made
    again = json.loads((out / "results.json").read_text())["rows"]
    assert [(row["mask"], row["method"]) for row in again] == [
        (mask, method) for mask in ("half:left", "box:10") for method in ("conditional", "nearest")
    ]
    assert again[0] == rows[0]
    page = (out / "report.html").read_text()
    assert "cell-3.png" in page
    for figure in out.glob("*.png"):
        Image.open(figure).verify()
    assert run("evaluate", *settings, "--mask", "half:left", "--out", out, "--overwrite") == 0
    assert len(list((out / "cells").iterdir())) == 1
    capsys.readouterr()
    refused(capsys, "evaluate", "--method", "magic", "--out", out, says=["conditional", "nearest"])
    refused(capsys, "evaluate", "--data", many, "--method", "regression", says=["--regression"])


def test_an_evaluation_that_could_not_begin_is_not_in_the_way(tmp_path, many, checkpoint, capsys):
    words = ["evaluate", "--data", many, "--count", 2, "--samples", 2, "--mask", "half:left"]
    words += ["--checkpoint", checkpoint]
    refused(capsys, *words, "--steps", 2000, "--out", tmp_path / "out", says=["steps"])
    assert run(*words, "--steps", 1, "--out", tmp_path / "out") == 0
    capsys.readouterr()
    refused(capsys, *words, "--mask", "nowhere", says=["mixture SPEC@2,SPEC@1"])


def test_results_are_written_before_they_are_printed(checkpoint, tmp_path, many):
    """Standard output whose reader has gone: the files are there all the same."""
    reader, writer = os.pipe()
    os.close(reader)
    words = ["evaluate", "--data", many, "--count", 2, *HALF, "--checkpoint", checkpoint, "--out", tmp_path / "out"]
    gone = process(*words, stdout=writer)
    os.close(writer)
    assert "Traceback" not in gone.stderr
    assert json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.check
def test_results_are_written_with_standard_output_closed(checkpoint, tmp_path, many):
    words = ["evaluate", "--data", many, "--count", 2, *HALF, "--checkpoint", checkpoint, "--out", tmp_path / "out"]
    closed = process(*words, before=["sh", "-c", 'exec "$@" >&-', "sh"])
    assert "Traceback" not in closed.stderr
    assert json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.check
def test_two_processes_evaluate_like_one(checkpoint, tmp_path, many):
    settings = ["--data", many, "--count", 5, "--samples", 2, "--steps", 2, "--checkpoint", checkpoint]
    settings += ["--mask", "half:left", "--mask", "strokes"]
    assert run("evaluate", *settings, "--out", tmp_path / "one") == 0
    two_processes("evaluate", *settings, "--out", tmp_path / "two")
    cells = (sorted((tmp_path / name / "cells").iterdir()) for name in ("one", "two"))
    for one, two in zip(*cells, strict=True):
        assert one.name == two.name
        with np.load(one) as a, np.load(two) as b:
            assert np.abs(a["filled"].astype(int) - b["filled"]).max() <= 1  # one grey level: rounding
            assert a["cost"][0] == b["cost"][0]


def test_incomplete_images_are_scored_where_they_are_observed(tmp_path, digits, checkpoint, capsys):
    """Garbage in missing pixels changes no score, and all pixels of a missing image are left out."""
    rng, found = np.random.default_rng(0), []
    hole = rng.random((20, 28, 28)) < 0.3
    np.save(tmp_path / "hole.npy", hole)
    for garbage in (0, 255):
        np.save(tmp_path / "digits.npy", np.where(hole, garbage, digits[:20]).astype(np.uint8))
        words = ["--data", tmp_path / "digits.npy", "--data-mask", tmp_path / "hole.npy", "--mask", "half:left"]
        out = tmp_path / f"out-{garbage}"
        words += ["--samples", 2, "--steps", 1, "--checkpoint", checkpoint, "--out", out]
        assert run("evaluate", *words) == 0
        found.append(json.loads((out / "results.json").read_text())["rows"][0]["crps"])
    assert found[0] == found[1]


def test_a_data_range_is_taken(tmp_path, digits, checkpoint, capsys):
    """Integers without a range of their own need one, and evaluate has the option."""
    np.save(tmp_path / "digits.npy", digits[:20].astype(np.int16) * 4)
    words = ["evaluate", "--data", tmp_path / "digits.npy", "--mask", "half:left", "--samples", 2, "--steps", 1]
    refused(capsys, *words, "--checkpoint", checkpoint, says=["--range"])
    assert run(*words, "--checkpoint", checkpoint, "--range", 0, 1020) == 0


def scores_of(out):
    """The rows of results.json."""
    return json.loads((out / "results.json").read_text())["rows"]


def test_mask_files_beside_specs(tmp_path, digits, checkpoint, capsys):
    """One mask for all, one for each image of the data, one for each test image: scores as by the equal spec."""
    np.save(tmp_path / "digits.npy", digits[:20])
    half = np.zeros((20, 28, 28), bool)
    half[:, :, :14] = True
    Image.fromarray(half[0]).save(tmp_path / "one.png")
    np.save(tmp_path / "each.npy", half)
    np.save(tmp_path / "test.npy", half[:2])
    names = [tmp_path / name for name in ("one.png", "each.npy", "test.npy")]
    words = ["--data", tmp_path / "digits.npy", "--samples", 2, "--steps", 1, "--checkpoint", checkpoint]
    masks = [word for mask in ("half:left", *names) for word in ("--mask", mask)]
    assert run("evaluate", *words, *masks, "--out", tmp_path / "out") == 0
    rows = scores_of(tmp_path / "out")
    assert [row["mask"] for row in rows] == ["half:left", *map(str, names)]
    assert len({row["crps"] for row in rows}) == 1
    # a mask file of the same name and other pixels: its samples are drawn anew
    Image.fromarray(half[0].T).save(tmp_path / "one.png")
    assert run("evaluate", *words, *masks, "--out", tmp_path / "out") == 0
    rows = scores_of(tmp_path / "out")
    assert rows[1]["crps"] != rows[0]["crps"] == rows[2]["crps"]
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 5


def test_a_folder_of_masks_is_paired_by_name(tmp_path, digits, checkpoint, capsys):
    """Each image has a mask of its own, whatever the order in which the data set is split."""
    rng = np.random.default_rng(0)
    masks = rng.random((20, 28, 28)) < 0.5
    for folder, arrays in (("images", digits[:20]), ("masks", masks)):
        (tmp_path / folder).mkdir()
        for i, array in enumerate(arrays):
            Image.fromarray(array).save(tmp_path / folder / f"p{i}.png")  # p10 comes before p2
    words = ["evaluate", "--data", tmp_path / "images", "--mask", tmp_path / "masks", "--samples", 2, "--steps", 1]
    words += ["--checkpoint", checkpoint]
    assert run(*words, "--out", tmp_path / "out") == 0
    (path,) = (tmp_path / "out" / "cells").iterdir()
    with np.load(path) as file:
        filled, mask = file["filled"], file["mask"]
    for one, hole in zip(filled[:, 0], mask, strict=True):
        (i,) = [i for i in range(20) if (masks[i] == hole).all()]
        assert (one == digits[i])[~hole].all()
    (tmp_path / "masks" / "p3.png").rename(tmp_path / "masks" / "q3.png")
    capsys.readouterr()
    refused(capsys, *words, says=["no mask is called p3"])


def test_masks_that_cannot_be_scored_are_refused(tmp_path, digits, checkpoint, capsys):
    floats = (digits[:20] / 255).astype(np.float32)
    floats[:, :5] = np.nan
    np.save(tmp_path / "gaps.npy", floats)
    np.save(tmp_path / "seven.npy", np.ones((7, 28, 28), bool))
    words = ["evaluate", "--data", tmp_path / "gaps.npy", "--samples", 2, "--steps", 1, "--checkpoint", checkpoint]
    for mask in ("nan", "alpha"):
        refused(capsys, *words, "--mask", mask, says=[f"--data-mask {mask}"])
    refused(capsys, *words, "--mask", "box:9", says=["--data-mask nan"])
    refused(capsys, *words, "--mask", tmp_path / "none.png", says=["no such mask file"])
    np.save(tmp_path / "digits.npy", digits[:20])
    words[2] = tmp_path / "digits.npy"
    refused(capsys, *words, "--mask", tmp_path / "seven.npy", says=["7 images", "20"])


def test_more_is_hidden_of_half_observed_images(tmp_path, digits, checkpoint, capsys):
    """Scores are over what --mask hides of the observed half, and the holes are never read."""
    hole = np.random.default_rng(0).random((20, 28, 28)) < 0.5
    floats = np.where(hole, np.nan, digits[:20] / 255).astype(np.float32)
    np.save(tmp_path / "gaps.npy", floats)
    words = ["--data", tmp_path / "gaps.npy", "--data-mask", "nan", "--mask", "half:left", "--samples", 3, "--steps", 1]
    words += ["--method", "conditional", "--method", "biharmonic", "--checkpoint", checkpoint]
    assert run("evaluate", *words, "--out", tmp_path / "out") == 0
    order = np.random.Generator(np.random.Philox(0)).permutation(20)[-2:]
    scored = ~hole[order]
    scored[:, :, 14:] = False
    for row in scores_of(tmp_path / "out"):
        assert sum(row["ranks"]) == scored.sum()
        assert 0 < row["crps_units"] == row["crps"] < 1
    for path in (tmp_path / "out" / "cells").iterdir():
        with np.load(path) as file:
            assert (file["mask"] == scored).all()
            known = ~hole[order]
            known[:, :, :14] = False
            assert (file["filled"][:, 1][known] == floats[order][known]).all()


def test_a_folder_of_diffusers_is_evaluated(tmp_path, digits, capsys):
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    net = UNet2DModel(
        28, 1, 1, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, attention_head_dim=4, **blocks
    )
    DDPMPipeline(net, DDPMScheduler(50)).save_pretrained(tmp_path / "ddpm")
    np.save(tmp_path / "digits.npy", digits[:20])
    words = ["--data", tmp_path / "digits.npy", *HALF, "--checkpoint", tmp_path / "ddpm", "--out", tmp_path / "out"]
    assert run("evaluate", *words) == 0
    (row,) = scores_of(tmp_path / "out")
    assert (row["method"], row["evaluations"]) == ("ddnm", 1)
    about = json.loads((tmp_path / "out" / "results.json").read_text())
    assert about["checkpoint"] == "ddpm"
    assert len(about["checkpoint_hash"]) == 16
    DDPMPipeline(net, DDPMScheduler(60)).save_pretrained(tmp_path / "ddpm")  # another prior: nothing is reused
    assert run("evaluate", *words) == 0
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 2
