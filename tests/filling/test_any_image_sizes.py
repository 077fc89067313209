"""Filling images of any size, and lists of images of several sizes."""

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import images_of, model_of, observed_alike, tiny_model
from inkfill.core import masks as specs
from inkfill.core.rng import stream
from inkfill.data import masks
from inkfill.data.images import as_images
from inkfill.errors import InputError
from inkfill.filling.inpaint import inpaint, sample


@pytest.mark.parametrize("size", [(8, 8), (9, 30), (30, 45), (31, 29)])
def test_any_size_from_eight_pixels_up(size):
    filled = inpaint(tiny_model(), images_of("uint8", (2, *size)), "half:left", 2, steps=2)
    assert filled.shape == (2, 2, *size)


def test_smaller_images_are_refused():
    with pytest.raises(InputError, match="at least 8"):
        inpaint(tiny_model(), images_of("uint8", (2, 7, 20)), "all", 1, steps=1)


def test_odd_sizes_are_padded_by_reflection_and_cut_back():
    net = tiny_model().net
    x, known = torch.randn(1, 1, 26, 27), torch.zeros(1, 1, 26, 27)
    padded = torch.nn.functional.pad(x, (0, 1, 0, 2), mode="reflect")
    whole = net(padded, padded * 0, torch.zeros(1, 1, 28, 28), torch.tensor([0.5]))
    torch.testing.assert_close(net(x, x * 0, known, torch.tensor([0.5])), whole[..., :26, :27])


# ---- lists -----------------------------------------------------------------------------------------------------------


def test_images_of_several_sizes_come_back_as_a_list():
    images = [images_of("uint8", (12, 16)), images_of("uint8", (9, 10)), images_of("uint8", (12, 16), 1)]
    model = tiny_model()
    filled = inpaint(model, images, "box:4", 2, steps=2)
    assert [each.shape for each in filled] == [(2, 12, 16), (2, 9, 10), (2, 12, 16)]
    alone = inpaint(model, images[1][None], masks.fit("box:4", images[1][None]), 2, steps=2, first=1)
    np.testing.assert_array_equal(filled[1], alone[0])  # a sample belongs to its image


def test_a_list_needs_a_mask_per_image():
    images = [images_of("uint8", (12, 12)), images_of("uint8", (14, 12))]
    with pytest.raises(InputError, match="1 masks for 2 images"):
        inpaint(model_of(1), images, ["half:left"], 1, steps=1)


def test_complete_images_in_a_list_come_back_unchanged():
    model = model_of(1, (12, 12))
    whole, incomplete = images_of("float32", (14, 12)), images_of("float32", (12, 12))
    incomplete[3:6, 3:6] = np.nan
    filled = inpaint(model, [incomplete, whole], samples=1, steps=1, value_range=(0, 1))
    np.testing.assert_array_equal(filled[1][0], whole)
    with pytest.raises(InputError, match="no missing values"):
        inpaint(model, [whole, images_of("float32", (12, 12))], samples=1, steps=1)


def test_masked_arrays_in_a_list_keep_their_masks():
    model, images = model_of(1), images_of("uint8", (2, 12, 12))
    mask = specs.parse("box:5").draw(2, 12, 12, stream(1))
    both = np.ma.masked_array(images, mask)
    expected = inpaint(model, both, samples=1, steps=1)
    np.testing.assert_array_equal(inpaint(model, [both[0], both[1]], samples=1, steps=1), expected)
    np.testing.assert_array_equal(as_images([both[:1], both[1:]]).mask, mask)


def test_folders_of_images_and_masks_are_paired_by_name(tmp_path):
    rng = np.random.default_rng(0)
    for folder, names in (("in", "ab"), ("masks", "bc"), ("good", "ab")):
        (tmp_path / folder).mkdir()
        for name in names:
            Image.fromarray(np.uint8(255) * (rng.random((12, 12)) < 0.5)).save(tmp_path / folder / f"{name}.png")
    model = model_of(1, (12, 12))
    with pytest.raises(InputError, match="paired with images by name, but no mask is called a"):
        inpaint(model, tmp_path / "in", str(tmp_path / "masks"), 1, steps=1)
    assert inpaint(model, tmp_path / "in", tmp_path / "good", 1, steps=1).shape == (2, 1, 12, 12)
    (tmp_path / "good" / "b.png").unlink()
    with pytest.raises(InputError, match="paired"):  # one mask for one of two images
        inpaint(model, tmp_path / "in", tmp_path / "good", 1, steps=1)


def test_image_files_get_the_channels_that_the_model_expects(tmp_path):
    """A grey image and an opaque one, saved as RGBA, for a model of colour with alpha."""
    images = images_of("uint8", (3, 12, 12, 4))
    images[1, ..., :3] = images[1, ..., :1]
    images[2, ..., 3] = 255
    for name, image in zip("abc", images, strict=True):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    filled = inpaint(model_of(4, (12, 12)), tmp_path, "half:left", 1, steps=1)
    assert observed_alike(filled, images, masks.fit("half:left", images))


@pytest.mark.parametrize("bad", [{"count": 2.5}, {"count": 1, "size": 28}])
def test_sample_refuses_arguments_of_other_types(bad):
    with pytest.raises(InputError):
        sample(model_of(1, (12, 12)), **bad)
