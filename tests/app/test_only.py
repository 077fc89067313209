"""One image of a set, and more samples of it, as the whole run draws them."""

import numpy as np
import pytest
from PIL import Image

from helpers import images_of, model_of, refused, run, saved

HOW = ["--steps", 2, "--samples", 2, "--dtype", "float32"]


@pytest.fixture
def weights(tmp_path):
    return saved(model_of(1, (12, 12)), tmp_path / "w.safetensors")


def pictures(folder, sizes=((12, 12),) * 4):
    """A folder of pictures p0.png, p1.png, ..."""
    folder.mkdir()
    for i, size in enumerate(sizes):
        Image.fromarray(images_of("uint8", size, i)).save(folder / f"p{i}.png")
    return folder


@pytest.mark.parametrize("only", ["3", "p3", "p3.png"])
@pytest.mark.parametrize("sizes", [((12, 12),) * 4, ((12, 12), (16, 12), (12, 12), (12, 14))])
def test_one_file_of_a_folder(only, sizes, tmp_path, weights):
    folder = pictures(tmp_path / "in", sizes)
    words = ["inpaint", folder, "--mask", "pixels:0.5", "--checkpoint", weights, *HOW]
    assert run(*words, "--out", tmp_path / "all") == 0
    assert run(*words, "--out", tmp_path / "one", "--only", only) == 0
    assert sorted(path.name for path in (tmp_path / "one").glob("*.png")) == ["p3_00.png", "p3_01.png"]
    for name in ("p3_00.png", "p3_01.png"):
        one, whole = (np.asarray(Image.open(tmp_path / each / name), int) for each in ("one", "all"))
        assert np.abs(one - whole).max() <= 1  # rounding: batches differ in size
    assert run(*words[:-4], "--dtype", "float32", "--out", tmp_path / "o.png", "--only", only) == 0  # one sample
    assert np.asarray(Image.open(tmp_path / "o.png")).shape == sizes[3]


def test_one_image_of_an_array_has_the_data_range_of_all(tmp_path, weights):
    images = images_of("float32", (5, 12, 12)) * 255
    images[3] /= 255  # alone, it would be taken for floats from 0 to 1
    np.save(tmp_path / "x.npy", images)
    words = ["inpaint", tmp_path / "x.npy", "--mask", "strokes", "--checkpoint", weights, *HOW]
    assert run(*words, "--out", tmp_path / "all.npy") == 0
    assert run(*words, "--out", tmp_path / "one.npy", "--only", 3) == 0
    whole, one = np.load(tmp_path / "all.npy"), np.load(tmp_path / "one.npy")
    assert one.shape == (1, 2, 12, 12)
    np.testing.assert_allclose(one[0], whole[3], atol=1e-3)


def test_masks_stay_with_their_images(tmp_path, weights):
    images, masks = images_of("uint8", (3, 12, 12)), np.random.default_rng(0).random((3, 12, 12)) < 0.5
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "m.npy", masks)
    out = tmp_path / "o.npy"
    words = ["--mask", tmp_path / "m.npy", "--only", 2, "--out", out]
    assert run("inpaint", tmp_path / "x.npy", *words, "--checkpoint", weights, *HOW) == 0
    found = np.load(out)[0, 0]
    np.testing.assert_array_equal(found[~masks[2]], images[2][~masks[2]])
    assert (found[masks[2]] != images[2][masks[2]]).any()


def test_images_that_are_not_there_are_refused(tmp_path, weights, capsys):
    folder = pictures(tmp_path / "in")
    words = ["inpaint", folder, "--mask", "box:4", "--checkpoint", weights, "--out", tmp_path / "o", *HOW, "--only"]
    for only in ("4", "-1", "p9", "", "9" * 30):
        refused(capsys, *words, only, says=["--only", "0 to 3"])
    assert not (tmp_path / "o").exists()


def test_sample_numbers_go_on(tmp_path, weights):
    folder = pictures(tmp_path / "in")
    words = ["inpaint", folder, "--mask", "box:6", "--checkpoint", weights, "--steps", 2, "--dtype", "float32"]
    assert run(*words, "--samples", 4, "--out", tmp_path / "four") == 0
    assert run(*words, "--samples", 2, "--first-sample", 2, "--only", 1, "--out", tmp_path / "two") == 0
    assert sorted(path.name for path in (tmp_path / "two").glob("*.png")) == ["p1_02.png", "p1_03.png"]
    for name in ("p1_02.png", "p1_03.png"):
        two, four = (np.asarray(Image.open(tmp_path / each / name), int) for each in ("two", "four"))
        assert np.abs(two - four).max() <= 1
    assert (np.asarray(Image.open(tmp_path / "four" / "p1_00.png")) != two).any()


def test_the_results_of_other_images_are_not_removed(tmp_path, checkpoint, capsys):
    np.save(tmp_path / "x.npy", np.zeros((3, 28, 28), np.uint8))
    words = [
        "inpaint",
        tmp_path / "x.npy",
        "--mask",
        "half:left",
        "--steps",
        1,
        "--samples",
        1,
        "--checkpoint",
        checkpoint,
    ]
    assert run(*words, "--out", tmp_path / "all") == 0
    before = sorted(path.name for path in (tmp_path / "all").iterdir())
    capsys.readouterr()
    refused(capsys, *words, "--only", 1, "--out", tmp_path / "all", "--overwrite", says=["--only", "another --out"])
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == before
