"""Any small image: channels, number types, sizes, holes that are already there, masks as people have them."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import TINY, refused, run, tiny_model
from inkfill import data
from inkfill.core import masks as specs
from inkfill.core.denoiser import Observation
from inkfill.core.rng import stream
from inkfill.core.schedule import Schedule
from inkfill.core.unet import UNet
from inkfill.data import masks, readers
from inkfill.data.datasets import by_size, uniform
from inkfill.data.images import ValueRange, as_images
from inkfill.errors import InputError
from inkfill.evaluation.analytic import AnalyticPrior, GaussianMixture
from inkfill.evaluation.scores import Cell, evaluate
from inkfill.filling import windows
from inkfill.filling.inpaint import inpaint, sample
from inkfill.models.checkpoint import save_network
from inkfill.models.model import Model, Recipe, load
from inkfill.training.config import TrainConfig
from inkfill.training.run import train

RNG = np.random.default_rng(0)
TYPES = ["uint8", "uint16", "float16", "float32", "float64", "bool"]


def model_of(channels: int, size=(28, 28), **recipe) -> Model:
    """A network with random weights everywhere for images of so many channels."""
    net, generator = UNet(replace(TINY, channels=channels)), torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.7 / parameter[0].numel() ** 0.5, generator=generator)
    return Model(net, Recipe(channels=channels, image_size=size, **recipe), dtype=torch.float32)


def images_of(dtype: str, shape) -> np.ndarray:
    """Every value that a type can have (fractions from 0 to 1)."""
    kind = np.dtype(dtype).kind
    if kind == "f":
        return RNG.random(shape).astype(dtype)
    top = 2 if kind == "b" else np.iinfo(dtype).max + 1
    return RNG.integers(0, top, shape).astype(dtype)


def known_alike(filled, images, mask) -> bool:
    """Whether known pixels of every completion are those of the image, bit for bit."""
    both = np.broadcast_to(images[:, None], filled.shape)
    known = np.broadcast_to((~mask)[:, None] if images.ndim == 3 else (~mask)[:, None, ..., None], filled.shape)
    return filled.dtype == images.dtype and filled[known].tobytes() == both[known].tobytes()


# ---- channels, types, sizes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", TYPES)
def test_what_comes_in_goes_out(channels, dtype):
    images = images_of(dtype, (2, 11, 14) if channels == 1 else (2, 11, 14, channels))
    mask = masks.fit("box:5", images)
    filled = inpaint(model_of(channels), images, mask, 2, steps=2)
    assert filled.shape == (2, 2, *images.shape[1:])
    assert known_alike(filled, images, mask)
    hole = filled[np.broadcast_to(mask[:, None], (2, 2, 11, 14))]
    assert len(np.unique(hole)) > 1
    if np.dtype(dtype).kind == "f":
        assert (hole >= 0).all()
        assert (hole <= 1).all()


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("channels", [1, 3])
def test_every_method_on_odd_sizes_and_in_colour(method, channels):
    images = images_of("uint8", (2, 9, 13) if channels == 1 else (2, 9, 13, channels))
    mask = masks.fit("pixels:0.5", images)
    garbage = images.copy()
    garbage[mask] = 255 - garbage[mask]
    filled = inpaint(model_of(channels), images, mask, 1, method, steps=2)
    assert known_alike(filled, images, mask)
    np.testing.assert_array_equal(filled, inpaint(model_of(channels), garbage, mask, 1, method, steps=2))


@pytest.mark.parametrize("size", [(8, 8), (9, 30), (30, 45), (31, 29), (28, 28)])
def test_any_size_from_eight_pixels_up(size):
    model = tiny_model()
    filled = inpaint(model, images_of("uint8", (2, *size)), "half:left", 2, steps=2)
    assert filled.shape == (2, 2, *size)
    with pytest.raises(InputError, match="at least 8"):
        inpaint(model, images_of("uint8", (2, 7, 20)), "all", 1, steps=1)


def test_the_padding_of_an_odd_size_is_cut_back_and_changes_no_other():
    """28 x 28 needs no padding; a picture that is padded on its lower right is filled from mirrored pixels there."""
    net = tiny_model().net
    x, known = torch.randn(1, 1, 26, 27), torch.zeros(1, 1, 26, 27)
    padded = torch.nn.functional.pad(x, (0, 1, 0, 2), mode="reflect")
    whole = net(padded, padded * 0, torch.zeros(1, 1, 28, 28), torch.tensor([0.5]))
    torch.testing.assert_close(net(x, x * 0, known, torch.tensor([0.5])), whole[..., :26, :27])


def test_a_closed_form_in_three_channels_is_drawn_from():
    """One pixel of three values, correlated with another that is known: 1,500 draws, 5 standard errors plus 4 %."""
    d = 6  # two pixels of three channels
    a = torch.from_numpy(stream(0, "colour").standard_normal((d, d)))
    prior = GaussianMixture(
        torch.ones(1), torch.zeros(1, d), (a @ a.T / d + 0.3 * torch.eye(d, dtype=torch.float64))[None]
    )
    oracle = AnalyticPrior(prior, Schedule.named("cosine"), channels=3)
    x0 = torch.tensor([0.5, 0.0, -0.3, 0.0, 0.8, 0.0], dtype=torch.float32).view(1, 3, 1, 2).expand(1500, -1, -1, -1)
    seen = Observation.of(x0, torch.tensor([[[[False, True]]]]))
    posterior = prior.posterior(Observation(seen.pixels[:1], seen.known[:1]))
    from inkfill.core.rng import SampleNoise
    from inkfill.core.samplers import spaced_timesteps
    from inkfill.methods import Task

    noise = SampleNoise(0, np.arange(1500), np.zeros(1500, int), (3, 1, 2))
    task = Task(oracle, seen, noise, spaced_timesteps(1000, 100), "ancestral")
    hidden = (~seen.known[0]).flatten()
    x = METHODS["conditional"].run(task).flatten(1).double()[:, hidden]
    mean, std = posterior.mean()[hidden], posterior.covariance().diagonal().sqrt()[hidden]
    assert ((x.mean(0) - mean).abs() < std * (5 / 1500**0.5 + 0.04)).all()
    assert ((x.std(0) / std - 1).abs() < 5 / 3000**0.5 + 0.04).all()


def test_channels_that_the_weights_do_not_know():
    colour, grey = images_of("uint8", (1, 12, 12, 3)), images_of("uint8", (1, 12, 12))
    with pytest.raises(InputError, match="--grey"):
        inpaint(model_of(1), colour, "box:4", 1, steps=1)
    with pytest.raises(InputError, match="grey, and the weights know images that are colour"):
        inpaint(model_of(3), grey, "box:4", 1, steps=1)
    for shape, word in (((2, 3, 28, 28), "moveaxis"), ((2, 28, 28, 5), "at most 4"), ((2, 2, 2, 28, 28), "at most 4")):
        with pytest.raises(InputError, match=word):
            as_images(np.zeros(shape, np.uint8))


def test_an_rgba_sprite_is_filled_in_colour_with_its_alpha_kept():
    sprite = images_of("uint8", (1, 16, 16, 4))
    sprite[..., 3] = 200
    sprite[:, 4:9, 4:9, 3] = 0
    filled = inpaint(model_of(3), sprite, "alpha", 2, steps=2)
    hole = np.zeros((16, 16), bool)
    hole[4:9, 4:9] = True
    assert (filled[:, :, hole, 3] == 255).all()  # what was filled can be seen
    assert (filled[:, :, ~hole] == sprite[:, None, ~hole]).all()
    assert (filled[:, :, hole, :3] != sprite[:, None, hole, :3]).any()
    fourth = inpaint(model_of(4), sprite, "alpha", 1, steps=2)  # alpha as a channel like the others
    assert fourth.shape == (1, 1, 16, 16, 4)
    with pytest.raises(InputError, match="alpha channel"):
        inpaint(model_of(3), sprite[..., :3], "alpha", 1, steps=1)


def test_tensors_come_back_as_tensors():
    planes = torch.from_numpy(images_of("float32", (2, 3, 12, 16)))
    filled = inpaint(model_of(3), planes, "box:5", 2, steps=2)
    assert isinstance(filled, torch.Tensor)
    assert filled.shape == (2, 2, 3, 12, 16)
    assert filled.dtype == torch.float32
    torch.testing.assert_close(filled[..., 0, :], planes[:, None, ..., 0, :].expand(-1, 2, -1, -1), rtol=0, atol=0)


def test_pictures_of_several_sizes_come_back_as_a_list():
    pictures = [images_of("uint8", (12, 16)), images_of("uint8", (9, 10)), images_of("uint8", (12, 16))]
    model = tiny_model()
    filled = inpaint(model, pictures, "box:4", 2, steps=2)
    assert [each.shape for each in filled] == [(2, 12, 16), (2, 9, 10), (2, 12, 16)]
    alone = inpaint(model, pictures[1][None], masks.fit("box:4", pictures[1][None]), 2, steps=2, first=1)
    np.testing.assert_array_equal(filled[1], alone[0])  # a result belongs to its image


# ---- what the numbers mean -------------------------------------------------------------------------------------------


def test_the_same_picture_in_other_numbers_is_filled_alike():
    model, images = tiny_model(), images_of("uint8", (1, 12, 12))
    mask = masks.fit("box:6", images)
    eight = inpaint(model, images, mask, 2, steps=3).astype(float)
    fractions = inpaint(model, (images / 255).astype(np.float32), mask, 2, steps=3)
    sixteen = inpaint(model, images.astype(np.uint16) * 257, mask, 2, steps=3)
    given = inpaint(model, images.astype(np.float64) * 10 - 500, mask, 2, steps=3, value_range=(-500, 2050))
    for other in (fractions * 255, sixteen / 257, (given + 500) / 10):
        assert np.abs(other - eight).max() <= 0.51


def test_a_range_that_nothing_tells():
    model = tiny_model()
    with pytest.raises(InputError, match="--range"):
        inpaint(model, images_of("float32", (1, 12, 12)) * 1000 - 500, "box:4", 1, steps=1)
    with pytest.raises(InputError, match="LOW must be under HIGH"):
        inpaint(model, images_of("float32", (1, 12, 12)), "box:4", 1, steps=1, value_range=(1, 0))


def test_numbers_that_a_type_cannot_hold():
    """Whole numbers end where their type does, and large ones are told apart."""
    model, hole = model_of(1), specs.parse("half:left").draw(1, 28, 28, stream(0))
    small = RNG.integers(0, 64, (1, 28, 28)).astype(np.int8)
    with pytest.raises(InputError, match="int8 cannot hold values from 0 to 255"):
        inpaint(model, small, hole, 1, steps=1)
    assert inpaint(model, small, hole, 1, steps=1, value_range=(0, 127)).min() >= 0
    top = 2**31 - 1
    for dtype in (np.int32, np.uint32):
        filled = inpaint(model, np.full((1, 28, 28), top, dtype), hole, 8, steps=1, value_range=(0, top))
        assert (filled >= 0).all()
        assert (filled <= top).all()
        assert (filled[:, :, hole[0]] == top).any()  # white
    assert ValueRange(0, 300).to_images(torch.ones(1, 1, 2, 2)).max() == 255  # and does not begin again at 0
    assert ValueRange(-2, 255, 4).to_images(-torch.ones(1, 1, 2, 2)).max() == 0
    long = ValueRange(0, 2.0**63).to_images(torch.ones(1, 1, 2, 2), np.zeros((1, 2, 2), np.int64))
    assert long.min() > 2**62
    assert inpaint(model, np.zeros((1, 28, 28), np.uint8), hole, 1, steps=1, value_range=np.array([0.0, 300.0])).any()
    far = 1e8 + 10 * RNG.random((1, 28, 28))
    filled = inpaint(model, far, hole, 1, steps=1, value_range=(1e8, 1e8 + 10))
    assert len(np.unique(filled[:, 0][hole])) > 100
    x0 = ValueRange(1e8, 1e8 + 10).to_x0(far)
    np.testing.assert_allclose(ValueRange(1e8, 1e8 + 10).to_images(x0, far), far, atol=1e-5, rtol=0)


def test_known_values_out_of_range_stay_and_are_said(caplog):
    images = images_of("float32", (1, 12, 12))
    images[0, 0, 0] = 7.5
    with caplog.at_level(logging.WARNING):
        filled = inpaint(tiny_model(), images, "box:4", 1, steps=2, value_range=(0, 1))
    assert filled[0, 0, 0, 0] == 7.5
    assert "they stay as they are" in caplog.text
    assert filled[0, 0][masks.fit("box:4", images)[0]].max() <= 1


def test_nan_and_masked_values_are_holes():
    images = images_of("float32", (2, 12, 12))
    hole = np.zeros((2, 12, 12), bool)
    hole[:, 3:7, 2:8] = True
    broken = np.where(hole, np.nan, images).astype(np.float32)
    model = tiny_model()
    filled = inpaint(model, broken, "nan", 2, steps=2)
    assert np.isfinite(filled).all()
    assert known_alike(filled, images, hole)
    masked = np.ma.MaskedArray(images, hole)
    for other in (inpaint(model, masked, None, 2, steps=2), inpaint(model, broken, None, 2, steps=2)):
        assert not isinstance(other, np.ma.MaskedArray)
        np.testing.assert_array_equal(other, filled)
    with pytest.raises(InputError, match="outside the mask"):
        inpaint(model, broken, "half:left", 1, steps=1)
    with pytest.raises(InputError, match="no holes of their own"):
        inpaint(model, images, None, 1, steps=1)


def test_values_to_x0_and_back():
    for dtype in TYPES:
        images = images_of(dtype, (1, 8, 8))
        values = ValueRange(*data.images.range_of(images)) if np.dtype(dtype).kind != "f" else ValueRange(0, 1)
        back = values.to_images(values.to_x0(images), images)
        assert back.dtype == images.dtype
        np.testing.assert_allclose(
            back.astype(float),
            images.astype(float),
            atol=1 / 250 if dtype == "float16" else 1e-6 if "f" in dtype else 0,
        )


# ---- windows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["box:10", "strokes", "pixels:0.02", "all", "box:100:random", "half:left"])
def test_windows_cover_every_hole_and_agree(spec):
    mask = specs.parse(spec).draw(1, 150, 131, stream(0))[0]
    waves = windows.plan(mask, (28, 32))
    left = mask.copy()
    numbers = []
    for wave in waves:
        covered = np.zeros_like(mask, int)
        for window in wave:
            covered[window.place] += 1
            numbers.append(window.number)
            assert left[window.place].any()  # it has something to fill
        assert covered.max() <= 1  # windows of a wave do not overlap
        for window in wave:
            left[window.place] = False
    assert not left.any()
    assert numbers == list(range(len(numbers)))


def test_a_small_hole_is_in_the_middle_of_its_window():
    mask = np.zeros((200, 200), bool)
    mask[100:104, 60:64] = True
    ((window,),) = windows.plan(mask, (28, 28))
    assert abs(window.top + 14 - 102) <= 2
    assert abs(window.left + 14 - 62) <= 2


def test_a_large_picture_is_filled_through_windows():
    picture = images_of("uint8", (1, 300, 260))
    mask = np.zeros((300, 260), bool)
    mask[np.arange(20, 250), np.arange(20, 250)] = True
    mask[200:210, 40:50] = True
    model, sizes = tiny_model(), []
    filled = inpaint(model, picture, mask, 2, steps=2, watch=lambda t, x, x0: sizes.append(x.shape[-2:]))
    assert set(sizes) == {(28, 28)}
    assert known_alike(filled, picture, mask[None])
    assert (filled[0, 0] != filled[0, 1]).any()
    other = inpaint(model, picture, mask, 2, steps=2, rows=1)
    assert np.abs(filled.astype(int) - other).max() <= 1  # the batch is a matter of speed alone
    garbage = np.where(mask, 255 - picture, picture)
    np.testing.assert_array_equal(filled, inpaint(model, garbage, mask, 2, steps=2))


# ---- masks as people have them ---------------------------------------------------------------------------------------


def picture(array, path, mode=None):
    Image.fromarray(array, mode).save(path)
    return path


def test_masks_as_people_have_them(tmp_path, caplog):
    hole = np.zeros((20, 20), bool)
    hole[5:12, 6:14] = True
    white = np.where(hole, 255, 0).astype(np.uint8)
    images = images_of("uint8", (1, 20, 20))

    def found(path, **options):
        return masks.fit(str(path), images, 0, masks.MaskOptions(**options))[0]

    soft = white.copy()
    soft[5, 6:14], soft[11, 6:14] = 140, 100
    with caplog.at_level(logging.WARNING):
        cut = found(picture(soft, tmp_path / "soft.png"))
    assert (cut == (soft > 127)).all()
    assert "soft edges" in caplog.text
    layer = np.dstack([np.full((20, 20, 3), 200, np.uint8), white])  # painted on an empty layer
    assert (found(picture(layer, tmp_path / "layer.png")) == hole).all()
    erased = np.dstack([images_of("uint8", (20, 20, 3)), 255 - white])  # erased from the picture
    assert (found(picture(erased, tmp_path / "erased.png")) == hole).all()
    painted = images_of("uint8", (20, 20, 3)) // 2
    painted[hole] = (250, 10, 5)
    assert (found(picture(painted, tmp_path / "red.png"), colour=masks.parse_colour("red")) == hole).all()
    assert (found(picture(painted, tmp_path / "red.png"), colour=masks.parse_colour("#ff0000")) == hole).all()
    Image.fromarray(white).save(tmp_path / "hole.jpg", quality=95)
    assert (found(tmp_path / "hole.jpg") == hole).mean() > 0.98
    assert (found(picture(255 - white, tmp_path / "inverse.png"), invert=True) == hole).all()
    grown = found(picture(white, tmp_path / "hole.png"), grow=2)
    assert grown.sum() == 11 * 12
    assert grown[hole].all()
    colour = np.dstack([white] * 3)
    assert (found(picture(colour, tmp_path / "rgb.png")) == hole).all()
    with pytest.raises(InputError, match="looks like a picture"):
        found(picture(images[0], tmp_path / "photo.png"))
    with pytest.raises(InputError, match="unknown colour"):
        masks.parse_colour("reddish")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        masks.notice(~hole[None])
    assert "--invert-mask" in caplog.text


def test_a_spec_wins_over_a_folder_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strokes").mkdir()
    images = images_of("uint8", (2, 20, 20))
    np.testing.assert_array_equal(
        masks.fit("strokes", images), specs.parse("strokes").draw(2, 20, 20, stream(0, "mask"))
    )


# ---- files -----------------------------------------------------------------------------------------------------------


def test_pictures_of_many_kinds(tmp_path):
    grey, colour = images_of("uint8", (12, 14)), images_of("uint8", (12, 14, 3))
    sixteen = images_of("uint16", (12, 14))
    alpha = np.dstack([colour, np.where(colour[..., :1] > 99, 255, 0).astype(np.uint8)])
    for name, array in (("grey", grey), ("colour", colour), ("deep", sixteen), ("alpha", alpha)):
        Image.fromarray(array).save(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(readers.read_picture(tmp_path / f"{name}.png"), array)
        assert readers.read_picture(tmp_path / f"{name}.png").dtype == array.dtype
    Image.fromarray(sixteen).save(tmp_path / "deep.tif")
    np.testing.assert_array_equal(readers.read_picture(tmp_path / "deep.tif"), sixteen)
    for name in ("grey.bmp", "grey.gif", "grey.tiff", "grey.webp"):
        Image.fromarray(grey).save(tmp_path / name, **({"lossless": True} if "webp" in name else {}))
        np.testing.assert_array_equal(readers.read_picture(tmp_path / name), grey)
    smooth = np.linspace(0, 255, 14 * 16).reshape(14, 16).astype(np.uint8)
    Image.fromarray(np.dstack([smooth] * 3)).save(tmp_path / "grey.jpg", quality=80)
    assert readers.read_picture(tmp_path / "grey.jpg").ndim == 2  # grey but for what lossy compression does to chroma
    frames = [Image.fromarray(frame) for frame in images_of("uint8", (3, 12, 14))]
    for name in ("pages.tif", "moving.gif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert len(readers.read_frames(tmp_path / name)) == 3
        assert data.read_images(tmp_path / name).shape == (3, 12, 14)


def deep_colour_png(path):
    """A PNG with 16 bits a channel, which Pillow would read as 8 without a word."""
    import struct
    import zlib

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + bytes(6 * 10) for _ in range(10))
    head = struct.pack(">IIBBBBB", 10, 10, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return path


def test_nothing_is_lost_without_a_word(tmp_path):
    with pytest.raises(InputError, match="16 bits"):
        readers.read_picture(deep_colour_png(tmp_path / "deep.png"))


def test_a_set_of_mixed_pictures_becomes_tiles_of_one_kind(caplog):
    pictures = [images_of("uint8", (20, 24)), images_of("uint8", (16, 40, 3)), images_of("uint8", (33, 16, 4))]
    with caplog.at_level(logging.WARNING):
        tiles = uniform(pictures)
    assert tiles.shape[1:] == (16, 16, 4)
    assert len(tiles) == 2 * 2 + 1 * 3 + 3 * 1
    assert (tiles[:7, ..., 3] == 255).all()
    assert (tiles[:4, ..., 0] == tiles[:4, ..., 1]).all()
    assert "tiles of 16x16" in caplog.text


def test_pictures_of_several_sizes_are_learnt_in_batches_of_one(tmp_path, caplog):
    """Sizes that many have stay whole; the others are cut into tiles; nothing of a picture is in two splits."""
    folder, rng = tmp_path / "mixed", np.random.default_rng(0)
    folder.mkdir()
    for i in range(60):
        side = 16 if i < 30 else 24 if i < 55 else 40
        Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(folder / f"{i:02d}.png")
    with caplog.at_level(logging.WARNING):
        dataset = data.load(str(folder))
    assert {images.shape[1:3] for images in dataset.groups} == {(16, 16), (24, 24), (40, 40)}
    assert sum(map(len, dataset.groups)) == 48
    assert dataset.validation.shape[1:] == dataset.test.shape[1:] == dataset.train.shape[1:] == (16, 16, 3)
    assert "several sizes" in caplog.text
    train(TrainConfig(data=str(folder), steps=6, batch_size=4, warmup=1, unet=TINY), tmp_path / "run", quiet=True)
    recipe = load(tmp_path / "run" / "model.safetensors").recipe
    assert (recipe.image_size, recipe.least_size) == ((40, 40), (16, 16))
    rows = by_size([np.zeros((9, 9), np.uint8)] * 3 + [np.ones((12, 9), np.uint8)] * 20 + [np.ones((150, 9), np.uint8)])
    assert [group.shape for group in rows] == [(20, 12, 9), (20, 9, 9)]


@pytest.fixture
def colour_checkpoint(tmp_path):
    path, model = tmp_path / "colour.safetensors", model_of(3, (16, 16), black=None)
    save_network(path, model.net, model.net.state_dict(), model.recipe.to_json())
    return path


def test_a_folder_of_mixed_sizes_with_its_folder_of_masks(tmp_path, colour_checkpoint, capsys):
    for folder in ("in", "holes"):
        (tmp_path / folder).mkdir()
    sizes = {"a": (16, 16), "b": (20, 13), "c": (16, 16)}
    for name, size in sizes.items():
        picture(images_of("uint8", (*size, 3)), tmp_path / "in" / f"{name}.png")
        hole = np.zeros(size, np.uint8)
        hole[3:9, 4:8] = 255
        picture(hole, tmp_path / "holes" / f"{name}.png")
    words = ["inpaint", tmp_path / "in", "--mask", tmp_path / "holes", "--steps", 1, "--checkpoint", colour_checkpoint]
    assert run(*words, "--samples", 2, "--out", tmp_path / "out") == 0
    for name, size in sizes.items():
        for k in range(2):
            filled = np.asarray(Image.open(tmp_path / "out" / f"{name}_{k:02d}.png"))
            before = np.asarray(Image.open(tmp_path / "in" / f"{name}.png"))
            assert filled.shape == (*size, 3)
            hole = np.zeros(size, bool)
            hole[3:9, 4:8] = True
            np.testing.assert_array_equal(filled[~hole], before[~hole])
    capsys.readouterr()
    refused(capsys, *words, "--out", tmp_path / "x.npy", says=["several sizes", "folder"])
    assert run(*words, "--report", tmp_path / "page", "--samples", 2) == 0
    with np.load(tmp_path / "page" / "filled.npz") as filled, np.load(tmp_path / "page" / "spread.npz") as spread:
        assert len(filled.files) == len(spread.files) > 1
        assert all(filled[name].shape[1:3] == spread[name].shape for name in filled.files)
    capsys.readouterr()
    (tmp_path / "holes" / "c.png").rename(tmp_path / "holes" / "d.png")
    refused(capsys, *words, "--out", tmp_path / "y", says=["no mask is called c"])
    (tmp_path / "in" / "c.png").unlink()
    refused(capsys, *words, "--out", tmp_path / "y", says=["d.png", "no picture is called d"])


def test_kept_completions(tmp_path, colour_checkpoint):
    picture(images_of("uint8", (16, 16, 3)), tmp_path / "a.png")
    words = ["inpaint", tmp_path / "a.png", "--mask", "box:6", "--steps", 2, "--checkpoint", colour_checkpoint]
    assert run(*words, "--samples", 5, "--out", tmp_path / "all.npy") == 0
    everything = np.load(tmp_path / "all.npy")
    assert everything.shape == (1, 5, 16, 16, 3)
    for keep in ("mean", "central"):
        assert run(*words, "--samples", 5, "--keep", keep, "--out", tmp_path / f"{keep}.png") == 0
        kept = np.asarray(Image.open(tmp_path / f"{keep}.png"))
        assert kept.shape == (16, 16, 3)
        if keep == "mean":
            np.testing.assert_array_equal(kept, everything[0].mean(0).round().astype(np.uint8))
        else:
            assert any((kept == each).all() for each in everything[0])


@pytest.mark.parametrize("dtype", ["float32", "float64", "bool"])
def test_a_mean_leaves_what_is_known(dtype, tmp_path, checkpoint):
    """Rounding in a mean of equal numbers would change them."""
    images = images_of(dtype, (2, 28, 28))
    np.save(tmp_path / "a.npy", images)
    words = ["inpaint", tmp_path / "a.npy", "--mask", "half:left", "--samples", 7, "--steps", 1, "--range", 0, 1]
    words += ["--checkpoint", checkpoint, "--out"]
    assert run(*words, tmp_path / "all.npy") == 0
    assert run(*words, tmp_path / "mean.npy", "--keep", "mean") == 0
    every, kept = np.load(tmp_path / "all.npy"), np.load(tmp_path / "mean.npy")
    assert known_alike(kept, images, masks.fit("half:left", images))
    np.testing.assert_allclose(
        kept.astype(float), every.mean(1, keepdims=True).astype(float), atol=0.5 if dtype == "bool" else 1e-6
    )


def test_a_name_in_capitals(tmp_path, checkpoint, digits):
    np.save(tmp_path / "a.npy", digits[:2])
    words = ["--mask", "half:left", "--samples", 1, "--steps", 1, "--checkpoint", checkpoint]
    assert run("inpaint", tmp_path / "a.npy", *words, "--out", tmp_path / "B.NPY") == 0
    assert np.load(tmp_path / "B.NPY").shape == (2, 1, 28, 28)
    assert sorted(path.name for path in tmp_path.glob("*") if path.suffix != ".safetensors") == ["B.NPY", "a.npy"]


def test_values_under_a_mask_are_not_read(tmp_path, checkpoint):
    images = images_of("float32", (2, 28, 28))
    images[:, 3:9, 3:9] = -9999
    np.save(tmp_path / "a.npy", images)
    np.save(tmp_path / "m.npy", images < 0)
    words = ["inpaint", tmp_path / "a.npy", "--mask", tmp_path / "m.npy", "--steps", 1, "--checkpoint", checkpoint]
    assert run(*words, "--out", tmp_path / "b.npy", "--sheet", tmp_path / "b.png", "--report", tmp_path / "r") == 0
    filled = np.load(tmp_path / "b.npy")
    assert 0 <= filled.min() < filled.max() <= 1


def test_numbers_that_pictures_cannot_hold(tmp_path, colour_checkpoint, capsys):
    np.save(tmp_path / "a.npy", images_of("float32", (2, 16, 16, 3)))
    words = ["inpaint", tmp_path / "a.npy", "--mask", "box:6", "--steps", 1, "--checkpoint", colour_checkpoint]
    refused(capsys, *words, "--out", tmp_path / "x", says=["float32", ".npy"])
    assert run(*words, "--samples", 2, "--out", tmp_path / "b.npy", "--report", tmp_path / "page") == 0
    filled = np.load(tmp_path / "b.npy")
    assert filled.dtype == np.float32
    spread = np.load(tmp_path / "page" / "spread.npy")
    assert spread.shape == (2, 16, 16)
    expected = np.sqrt(((filled * 255).round().std(1) ** 2).mean(-1)) / 255
    np.testing.assert_allclose(spread, expected, atol=1e-5)
    assert not (tmp_path / "page" / "labels.npy").exists()


def test_a_long_array_is_filled_part_by_part(tmp_path, monkeypatch, colour_checkpoint):
    """The same as at once, whatever the mask: a spec, an array of masks, NaN."""
    from inkfill.app import fill

    path, model = tmp_path / "grey.safetensors", model_of(1, (12, 12))
    save_network(path, model.net, model.net.state_dict(), model.recipe.to_json())
    images = images_of("float32", (25, 12, 12))
    hole = specs.parse("pixels:0.3").draw(25, 12, 12, stream(3))
    np.save(tmp_path / "whole.npy", images)
    np.save(tmp_path / "broken.npy", np.where(hole, np.nan, images).astype(np.float32))
    np.save(tmp_path / "holes.npy", hole)
    for name, mask in (("whole", "strokes"), ("whole", tmp_path / "holes.npy"), ("broken", "nan")):
        found = []
        for part in (1000, 10):
            monkeypatch.setattr(fill, "PART", part)
            words = ["--mask", mask, "--out", tmp_path / "o.npy", "--samples", 2, "--steps", 1, "--overwrite"]
            assert run("inpaint", tmp_path / f"{name}.npy", *words, "--checkpoint", path) == 0
            found.append(np.load(tmp_path / "o.npy"))
        assert found[0].shape == (25, 2, 12, 12)
        np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_parts_agree_on_black_and_white_and_may_be_whole(tmp_path, monkeypatch, checkpoint, capsys):
    """The last image is dark enough for fractions, and the first alone has holes: neither is a matter of parts."""
    from inkfill.app import fill

    images = images_of("float32", (5, 28, 28)) * 255
    images[4] /= 255
    images[0, 3:9, 3:9] = np.nan
    np.save(tmp_path / "a.npy", images)
    np.save(tmp_path / "whole.npy", np.nan_to_num(images))
    for mask in ([], ["--mask", "half:left"]):
        found = []
        for part in (1000, 2):
            monkeypatch.setattr(fill, "PART", part)
            words = [
                "--out",
                tmp_path / "o.npy",
                "--samples",
                2,
                "--steps",
                1,
                "--overwrite",
                "--checkpoint",
                checkpoint,
            ]
            assert run("inpaint", tmp_path / ("whole.npy" if mask else "a.npy"), *mask, *words) == 0
            found.append(np.load(tmp_path / "o.npy"))
        np.testing.assert_allclose(found[0], found[1], atol=1e-2)
    capsys.readouterr()
    refused(capsys, "inpaint", tmp_path / "whole.npy", *words, says=["no holes of their own"])


# ---- training and evaluation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "channels"), [("float32", 1), ("uint16", 1), ("uint8", 3), ("uint8", 4)])
def test_training_on_any_image(tmp_path, dtype, channels):
    shape = (40, 10, 15) if channels == 1 else (40, 10, 15, channels)
    images = images_of(dtype, shape)
    images = images * 40 - 20 if dtype == "float32" else images
    np.save(tmp_path / "a.npy", images)
    config = TrainConfig(data=str(tmp_path / "a.npy"), steps=2, batch_size=4, warmup=1, unet=TINY)
    train(config, tmp_path / "run", quiet=True)
    model = load(tmp_path / "run" / "model.safetensors")
    assert model.channels == channels
    assert model.image_size == (10, 15)
    assert model.number_type == dtype
    low, high = model.recipe.value_range
    dataset = data.load(str(tmp_path / "a.npy"))
    if dtype == "float32":
        assert (low, high) == (dataset.train.min(), dataset.train.max())
    new = sample(model, 2, steps=1)
    assert new.shape == (2, *shape[1:])
    assert new.dtype == images.dtype
    row = evaluate(model, dataset.test, Cell("half:left", steps=1, samples=3))
    assert 0 < row["crps"] < 1
    assert row["psnr_sample"] > 0
    with pytest.raises(InputError, match="leave the range"):
        train(replace(config, low=0.0, high=0.5), tmp_path / "other", quiet=True)
    given = replace(config, low=-1e5, high=1e5)
    train(given, tmp_path / "given", quiet=True)
    assert load(tmp_path / "given" / "model.safetensors").recipe.value_range == (-1e5, 1e5)


def test_colour_counts_by_values(digits):
    """Scores of three equal channels are those of one."""
    model = tiny_model()
    grey = inpaint(model, digits[:4], "half:left", 4, steps=2)
    from inkfill.evaluation.cells import Completed
    from inkfill.evaluation.scores import score

    mask = masks.fit("half:left", digits[:4])
    one = score(digits[:4], Completed(grey, mask, 2.0, 0.1), Cell("half:left"))
    three = score(
        np.stack([digits[:4]] * 3, -1), Completed(np.stack([grey] * 3, -1), mask, 2.0, 0.1), Cell("half:left")
    )
    for name in ("crps", "energy", "psnr_mean", "psnr_sample", "diversity"):
        assert three[name] == pytest.approx(one[name], rel=1e-5)
    assert three["ssim"] == pytest.approx(one["ssim"], abs=0.02)  # planes touch at their edges
    assert sum(three["ranks"]) == 3 * sum(one["ranks"])


def test_metadata_tells_the_type_and_the_range(tmp_path):
    np.save(tmp_path / "a.npy", images_of("float32", (40, 12, 12)))
    config = TrainConfig(data=str(tmp_path / "a.npy"), steps=1, batch_size=4, unet=TINY, low=0.0, high=1.0)
    train(config, tmp_path / "run", quiet=True)
    from safetensors import safe_open

    with safe_open(tmp_path / "run" / "model.safetensors", "pt") as file:
        recipe = json.loads(file.metadata()["inkfill"])["recipe"]
    assert recipe["number_type"] == "float32"
    assert recipe["value_range"] == [0.0, 1.0]


def test_what_one_window_filled_is_known_to_the_next():
    """Every missing pixel is missing in one window alone, however many it lies in."""
    mask = specs.parse("box:60").draw(1, 120, 110, stream(0))[0]
    missing = []

    def counting(task):
        missing.append(int(task.observation.mask.sum()))
        return task.observation.pixels

    inpaint(tiny_model(), images_of("uint8", (1, 120, 110)), mask, 2, counting)
    assert sum(missing) == 2 * mask.sum()


def test_masks_of_masked_arrays_in_a_list():
    model, images = model_of(1), images_of("uint8", (2, 12, 12))
    hole = specs.parse("box:5").draw(2, 12, 12, stream(1))
    both = np.ma.masked_array(images, hole)
    wanted = inpaint(model, both, samples=1, steps=1)
    np.testing.assert_array_equal(inpaint(model, [both[0], both[1]], samples=1, steps=1), wanted)
    np.testing.assert_array_equal(as_images([both[:1], both[1:]]).mask, hole)


def test_new_images_that_are_large_are_of_one_piece():
    """Windows go on from those before them: as with everything missing, of which this is the case."""
    model = model_of(1, (12, 12))
    new = sample(model, 1, (40, 40), steps=2, seed=5)
    np.testing.assert_array_equal(new, inpaint(model, np.zeros((1, 40, 40), np.uint8), "all", 1, steps=2, seed=5)[:, 0])


def test_what_python_hands_over():
    model, images = model_of(1), images_of("uint8", (2, 12, 12))
    for bad, says in (({"rows": -1}, "rows"), ({"rows": 0}, "rows"), ({"steps": 2.0}, "whole number")):
        with pytest.raises(InputError, match=says):
            inpaint(model, images, "half:left", 1, **({"steps": 1} | bad))
    with pytest.raises(InputError, match="1 masks for 2 images"):
        inpaint(model, [images[0], images_of("uint8", (14, 12))], ["half:left"], 1, steps=1)
    tensor = torch.from_numpy(images / 255).to(torch.bfloat16)
    filled = inpaint(model, tensor, "half:left", 1, steps=1)
    assert filled.dtype == torch.bfloat16
    assert torch.equal(filled[:, 0, :, 6:], tensor[:, :, 6:])


def test_tiles_are_no_larger_than_what_is_learnt_whole():
    tiles = uniform([np.zeros((150, 150), np.uint8), np.zeros((140, 160), np.uint8)])
    assert tiles.shape[1:] == (128, 128)


def test_frames_of_one_picture_with_the_name_of_another(tmp_path):
    frames = [Image.fromarray(frame) for frame in images_of("uint8", (2, 12, 12))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "a-0.png")
    with pytest.raises(InputError, match="two pictures are called a-0"):
        readers.read_pictures([tmp_path / "a-0.png", tmp_path / "a.gif"])


def test_pictures_whose_channels_are_a_matter_of_how_they_were_saved(tmp_path, capsys):
    """A grey sprite and an opaque one among those of weights that know colour with alpha: alone, too."""
    path, model = tmp_path / "rgba.safetensors", model_of(4, (12, 12))
    save_network(path, model.net, model.net.state_dict(), model.recipe.to_json())
    rgba = images_of("uint8", (3, 12, 12, 4))
    rgba[1, ..., :3] = rgba[1, ..., :1]  # grey
    rgba[2, ..., 3] = 255  # opaque
    (tmp_path / "in").mkdir()
    for name, image in zip("abc", rgba, strict=True):
        Image.fromarray(image).save(tmp_path / "in" / f"{name}.png")
    words = ["--mask", "half:left", "--samples", 1, "--steps", 1, "--dtype", "float32", "--checkpoint", path]
    assert run("inpaint", tmp_path / "in", *words, "--out", tmp_path / "o.npy") == 0
    filled = np.load(tmp_path / "o.npy")
    assert known_alike(filled, rgba, masks.fit("half:left", rgba))
    found = inpaint(model, tmp_path / "in", "half:left", 1, steps=1)
    np.testing.assert_array_equal(found, filled)
    assert run("inpaint", tmp_path / "in" / "c.png", *words, "--out", tmp_path / "c.png") == 0
    capsys.readouterr()
    grey = tmp_path / "grey.safetensors"
    save_network(grey, model_of(1).net, model_of(1).net.state_dict(), model_of(1).recipe.to_json())
    Image.fromarray(rgba[0, ..., 0]).save(tmp_path / "in" / "a.png")
    refused(capsys, "inpaint", tmp_path / "in", *words[:-1], grey, "--out", tmp_path / "x", says=["c.png", "--grey"])


@pytest.mark.parametrize("dtype", ["uint16", "bool", "float32"])
def test_a_sheet_of_other_numbers(dtype, tmp_path, checkpoint):
    images = images_of(dtype, (1, 28, 28))
    np.save(tmp_path / "a.npy", images)
    words = ["inpaint", tmp_path / "a.npy", "--mask", "half:left", "--samples", 2, "--steps", 1, "--checkpoint"]
    assert (
        run(
            *words,
            checkpoint,
            "--out",
            tmp_path / "a.png" if dtype != "float32" else tmp_path / "b.npy",
            "--sheet",
            tmp_path / "s.png",
        )
        == 0
    )
    if dtype != "float32":
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "s.png").read_bytes()


@pytest.mark.parametrize(("dtype", "top"), [("int64", 255), ("float32", 1), ("uint16", 65535)])
def test_alpha_in_other_numbers(dtype, top):
    images = images_of("uint8", (2, 12, 12, 2)).astype(dtype) * (1 if dtype != "float32" else 1 / 255)
    images = images.astype(dtype)
    images[..., 1] = top
    images[:, 3:7, 3:7, 1] = 0
    filled = inpaint(model_of(1, (12, 12)), images, "alpha", 1, steps=1)
    hole = np.zeros((2, 12, 12), bool)
    hole[:, 3:7, 3:7] = True
    assert known_alike(filled, images, hole)
    assert (filled[..., 1] == top).all()
    images[:, 3:7, 3:7] = 0 if dtype != "float32" else np.nan  # what is missing is not read, alpha too
    again = inpaint(model_of(1, (12, 12)), images, hole, 1, steps=1)
    np.testing.assert_array_equal(filled, again)
    images[..., 1] *= 0 if dtype != "float32" else 3
    if dtype == "float32":
        with pytest.raises(InputError, match="from 0 to 1"):
            inpaint(model_of(1, (12, 12)), images, hole, 1, steps=1)
    else:  # white does not depend on the other images
        assert (inpaint(model_of(1, (12, 12)), images, hole, 1, steps=1)[:, 0, ..., 1][hole] == top).all()


def test_alpha_says_nothing_of_black_and_white(tmp_path, checkpoint):
    """The command and Python agree on fractions beside an alpha of whole numbers."""
    images = images_of("float32", (3, 28, 28, 2))
    images[..., 1] = 1.5
    np.save(tmp_path / "a.npy", images)
    words = ["inpaint", tmp_path / "a.npy", "--mask", "half:left", "--samples", 1, "--steps", 1, "--checkpoint"]
    assert run(*words, checkpoint, "--out", tmp_path / "o.npy") == 0
    assert np.load(tmp_path / "o.npy")[..., 0].max() <= 1


def test_folders_are_paired_by_name_in_python_too(tmp_path):
    for folder, names in (("in", "ab"), ("masks", "bc"), ("good", "ab")):
        (tmp_path / folder).mkdir()
        for name in names:
            Image.fromarray(np.uint8(255) * (RNG.random((12, 12)) < 0.5)).save(tmp_path / folder / f"{name}.png")
    model = model_of(1, (12, 12))
    with pytest.raises(InputError, match="beside a stands b"):
        inpaint(model, tmp_path / "in", str(tmp_path / "masks"), 1, steps=1)
    assert inpaint(model, tmp_path / "in", tmp_path / "good", 1, steps=1).shape == (2, 1, 12, 12)
    (tmp_path / "good" / "b.png").unlink()  # one for all
    assert inpaint(model, tmp_path / "in", tmp_path / "good", 1, steps=1).shape == (2, 1, 12, 12)


def test_pictures_are_upright(tmp_path):
    """As one looks at them: a camera writes pixels as they come, and beside them which side is up."""
    pixels = np.arange(8 * 12, dtype=np.uint8).reshape(8, 12)
    exif = Image.Exif()
    exif[readers.ORIENTATION] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(readers.read_picture(tmp_path / "a.png"), np.rot90(pixels, -1))
    exif[readers.ORIENTATION] = 77  # which is no side
    Image.fromarray(pixels).save(tmp_path / "b.png", exif=exif)
    np.testing.assert_array_equal(readers.read_picture(tmp_path / "b.png"), pixels)


def test_a_list_of_pictures_of_which_one_is_whole():
    model = model_of(1, (12, 12))
    whole, holed = images_of("float32", (14, 12)), images_of("float32", (12, 12))
    holed[3:6, 3:6] = np.nan
    filled = inpaint(model, [holed, whole], samples=1, steps=1, value_range=(0, 1))
    np.testing.assert_array_equal(filled[1][0], whole)
    with pytest.raises(InputError, match="no holes of their own"):
        inpaint(model, [whole, images_of("float32", (12, 12))], samples=1, steps=1)


def test_what_python_hands_over_of_other_kinds():
    model, images = model_of(1, (12, 12)), images_of("uint8", (2, 12, 12))
    for more in ({"value_range": (0,)}, {"value_range": 5}, {"observation_noise": "a"}):
        with pytest.raises(InputError):
            inpaint(model, images, "half:left", 1, **more)
    for bad in ({"count": 2.5}, {"count": 1, "size": 28}):
        with pytest.raises(InputError):
            sample(model, **bad)
    with pytest.raises(InputError, match="object values"):
        inpaint(model, None, "half:left", 1, steps=1)
    with pytest.raises(InputError, match="not 5"):
        load(5)
    mask = torch.from_numpy(masks.fit("half:left", images))[:, None]
    assert inpaint(model, torch.from_numpy(images)[:, None], mask, 1, steps=1).shape == (2, 1, 12, 12)
