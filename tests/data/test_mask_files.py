"""Masks in files and specs, each read as what it plainly is."""

import numpy as np
import pytest
from PIL import Image

import inkfill
from helpers import model_of, refused, run
from inkfill import data
from inkfill.core.masks import parse
from inkfill.core.rng import skip, stream
from inkfill.data import masks
from inkfill.errors import InputError

BLANK = np.zeros((1, 32, 32), np.uint8)


def saved(folder, name, pixels):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def layer(columns):
    """A layer of 32 columns, ``columns`` of them painted red."""
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[:, :columns] = (255, 0, 0, 255)
    return pixels


@pytest.mark.parametrize("columns", [6, 16, 24, 31])
def test_the_painted_part_of_a_layer_is_filled(columns, tmp_path, caplog):
    mask = masks.fit(str(saved(tmp_path, "mask.png", layer(columns))), BLANK)[0]
    np.testing.assert_array_equal(mask, np.arange(32)[None].repeat(32, 0) < columns)
    assert "painted" in caplog.text


def test_the_erased_part_of_an_image_is_filled(tmp_path, caplog):
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 4)).astype(np.uint8)
    pixels[..., 3] = 255
    pixels[8:16, 8:16, 3] = 0
    mask = masks.fit(str(saved(tmp_path, "mask.png", pixels)), BLANK)[0]
    np.testing.assert_array_equal(mask, pixels[..., 3] == 0)
    assert "erased" in caplog.text


def test_a_folder_is_read_in_one_way(tmp_path):
    for i, columns in enumerate((6, 24)):
        saved(tmp_path, f"layers/{i}.png", layer(columns))
    mask = masks.fit(str(tmp_path / "layers"), BLANK.repeat(2, 0))
    assert mask.sum((1, 2)).tolist() == [6 * 32, 24 * 32]
    for i, columns in enumerate((6, 24)):
        erased = np.random.default_rng(0).integers(0, 255, (32, 32, 4)).astype(np.uint8)
        erased[..., 3] = np.where(np.arange(32) < columns, 0, 255)
        saved(tmp_path, f"erased/{i}.png", erased)
    mask = masks.fit(str(tmp_path / "erased"), BLANK.repeat(2, 0))
    assert mask.sum((1, 2)).tolist() == [6 * 32, 24 * 32]


@pytest.mark.parametrize(("values", "word"), [((0, 1), "0, 1"), ((0, 1, 255), "0, 1, 255")])
def test_small_integers_are_a_mask(values, word, tmp_path, caplog):
    """As label images have them: 1 in the object, 255 on its border."""
    pixels = np.zeros((32, 32), np.uint8)
    pixels[8:24, 8:24] = values[-1]
    pixels[9:23, 9:23] = 1
    mask = masks.fit(str(saved(tmp_path, "mask.png", pixels)), BLANK)[0]
    np.testing.assert_array_equal(mask, pixels > 0)
    assert word in caplog.text


def test_deep_and_dark_masks(tmp_path, caplog):
    """0 and 1 with a border of 255 in 16 bits; class numbers are no mask, and the largest is named."""
    pixels = np.zeros((32, 32), np.uint16)
    pixels[8:24, 8:24] = 255
    pixels[9:23, 9:23] = 1
    mask = masks.fit(str(saved(tmp_path, "deep.png", pixels)), BLANK)[0]
    np.testing.assert_array_equal(mask, pixels > 0)
    with pytest.raises(InputError, match="nothing to fill"):
        masks.read_mask(str(saved(tmp_path, "classes.png", (pixels % 4).astype(np.uint8))))
    assert "values up to 3 of 255" in caplog.text


def test_a_mask_depends_on_its_image_alone():
    """On the seed, the number and the size; one image of another size changes no other mask."""
    whole = masks.fit("strokes", BLANK.repeat(3, 0), seed=5)
    for i in range(3):
        np.testing.assert_array_equal(masks.fit("strokes", BLANK, seed=5, first=i)[0], whole[i])
    images = [np.zeros((32, 32), np.uint8), np.zeros((24, 40), np.uint8), np.zeros((32, 32), np.uint8)]
    filled = inkfill.inpaint(model_of(1), images, "pixels:0.5", 1, steps=1, seed=5)
    mask = masks.fit("pixels:0.5", BLANK.repeat(3, 0), seed=5)
    for i in (0, 2):
        assert (filled[i][0][~mask[i]] == 0).all()
        assert (filled[i][0][mask[i]] != 0).mean() > 0.3
    assert not np.array_equal(masks.fit("strokes", BLANK, seed=6)[0], whole[1])


def test_numbers_are_skipped_exactly():
    numbers = stream(3, "mask").random(5000)
    for count in (0, 1, 3, 4, 833, 4096):
        np.testing.assert_array_equal(skip(stream(3, "mask"), count).random(7), numbers[count : count + 7])


def test_a_folder_with_one_mask_is_paired_by_name_too(tmp_path):
    for name in ("a", "b"):
        saved(tmp_path, f"images/{name}.png", BLANK[0])
    saved(tmp_path, "masks/b.png", np.full((32, 32), 255, np.uint8))
    with pytest.raises(InputError, match="paired"):
        inkfill.inpaint(model_of(1), str(tmp_path / "images"), str(tmp_path / "masks"), 1, steps=1)


def test_masks_of_names_with_an_end_follow_their_images(tmp_path):
    """Where masks are paired by order, as in training: ``a.png`` comes before ``a1.png``, ``a_mask.png`` after."""
    for i, name in enumerate(("a", "a1", "b")):
        mask = BLANK[0].copy()
        mask[8 * i : 8 * i + 8] = 255
        saved(tmp_path, f"masks/{name}_mask.png", mask)
    mask = masks.fit(str(tmp_path / "masks"), BLANK.repeat(3, 0))
    assert [int(each.any(1).argmax()) for each in mask] == [0, 8, 16]


def test_opaque_images_have_nothing_missing(tmp_path, checkpoint, capsys):
    """One complete scan among torn ones is returned as it is; of complete ones alone there is nothing to fill."""
    rng = np.random.default_rng(0)
    for i in range(2):
        torn = np.stack([rng.integers(0, 255, (28, 28)), np.full((28, 28), 255)], -1).astype(np.uint8)
        torn[5:9, 5:9, 1] = 0
        saved(tmp_path, f"torn/{i}.png", torn)
    complete = saved(tmp_path, "torn/2.png", rng.integers(0, 255, (28, 28)).astype(np.uint8))
    words = ["--mask", "alpha", "--checkpoint", checkpoint, "--steps", 1, "--samples", 1]
    assert run("inpaint", tmp_path / "torn", *words, "--out", tmp_path / "filled") == 0
    back = np.asarray(Image.open(tmp_path / "filled" / "2.png"))
    np.testing.assert_array_equal(back if back.ndim == 2 else back[..., 0], np.asarray(Image.open(complete)))
    capsys.readouterr()
    refused(capsys, "inpaint", complete, *words, "--out", tmp_path / "one.png", says=["nothing to fill"])


def test_specs_for_large_images_are_specs():
    mask = parse("box:2000").draw(1, 2500, 2100, stream(0))
    assert mask.sum() == 2000 * 2000
    with pytest.raises(InputError, match="does not fit"):
        parse("box:2000").draw(1, 100, 100, stream(0))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_pillow_images_are_read_as_files_are(mode, tmp_path):
    """Grey content, or opaque alpha, for weights of colour."""
    image = Image.new(mode, (32, 32), 120 if mode == "L" else (120,) * len(mode))
    if mode == "RGBA":
        image.putalpha(255)
    image.save(tmp_path / "image.png")
    model = model_of(3, (32, 32))
    from_file = inkfill.inpaint(model, str(tmp_path / "image.png"), "box:10", 1, steps=1)
    for given in (image, [image], [image, np.full((32, 32, 3), 120, np.uint8)]):
        np.testing.assert_array_equal(inkfill.inpaint(model, given, "box:10", 1, steps=1)[0], from_file[0])


def test_masks_beside_images_are_no_images_of_a_data_set(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (12, 12), np.uint8)).save(tmp_path / f"{i:02d}.png")
        hole = np.zeros((12, 12), np.uint8)
        hole[3:6, i % 8 : i % 8 + 4] = 255
        Image.fromarray(hole).save(tmp_path / f"{i:02d}_mask.png")
    assert data.read_images(tmp_path).shape == (20, 12, 12)
    dataset = data.load(str(tmp_path), str(tmp_path))
    assert [len(dataset.split(split)) for split in ("train", "validation", "test")] == [16, 2, 2]
    assert {int(hole.sum()) for hole in dataset.holes["train"]} == {12}


def test_small_values_beside_white_are_remarked_on(tmp_path, caplog):
    classes = np.zeros((12, 12), np.uint8)
    classes[3:6, 3:6], classes[0] = 3, 255
    Image.fromarray(classes).save(tmp_path / "voc.png")
    assert masks.read_mask(tmp_path / "voc.png").array.sum() == 12
    assert "only white is filled, not 3" in caplog.text
