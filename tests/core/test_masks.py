"""Mask families: which pixels each hides, and that the mask of an image does not depend on its batch."""

import tracemalloc

import numpy as np
import pytest

from inkfill.core import masks
from inkfill.core.rng import stream
from inkfill.errors import InputError

SPECS = [
    "half:left", "half:right", "half:top", "half:bottom", "half:random", "box:10", "box:14:random",
    "box:0.2-0.8:random", "quadrants:1", "quadrants:2", "quadrants:3", "quadrants:random", "pixels:0.5", "pixels:0.9",
    "pixels:0.3-0.98", "strokes", "stripes:3", "all", "none", "not:box:12", "half:left+pixels:0.2",
    "half:left@2,strokes@1,all", "training",
]  # fmt: skip


def draw(spec, n=4, h=28, w=28, seed=0, images=None):
    return masks.parse(spec).draw(n, h, w, stream(seed), images)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(("h", "w"), [(28, 28), (32, 64), (17, 40)])
def test_shape_type_and_batch_independence(spec, h, w):
    together = draw(spec, 7, h, w)
    assert together.shape == (7, h, w)
    assert together.dtype == np.bool_
    rng = stream(0)
    one_by_one = np.concatenate([masks.parse(spec).draw(1, h, w, rng) for _ in range(7)])
    np.testing.assert_array_equal(together, one_by_one)


def test_fixed_masks_hide_the_named_pixels():
    def hidden(spec):
        return draw(spec, 1)[0]

    left = hidden("half:left")
    assert left[:, :14].all()
    assert not left[:, 14:].any()
    np.testing.assert_array_equal(hidden("half:right"), ~left)
    assert hidden("half:top")[:14].all()
    assert hidden("half:bottom")[14:].all()
    box = hidden("box:10")
    assert box.sum() == 100
    assert box[9:19, 9:19].all()
    one, two, three = hidden("quadrants:1"), hidden("quadrants:2"), hidden("quadrants:3")
    assert one.sum() == 196  # the lower right
    assert one[14:, 14:].all()
    np.testing.assert_array_equal(two, hidden("half:right"))  # the right half
    assert not three[14:, :14].any()  # all but the lower left
    assert three.sum() == 3 * 196
    assert hidden("all").all()
    assert not hidden("none").any()


def test_random_families():
    boxes = draw("box:14:random", 200)
    assert (boxes.sum((1, 2)) == 196).all()
    assert len(np.unique(boxes.argmax(2).max(1))) > 5  # many places
    # 400 x 784 Bernoulli draws: the fraction is within 5 standard errors.
    assert abs(draw("pixels:0.9", 400).mean() - 0.9) < 5 * (0.09 / (400 * 784)) ** 0.5
    halves = draw("half:random", 400).mean((1, 2))
    assert 0.1 < halves.min() < 0.4
    assert 0.6 < halves.max() < 0.9
    strokes = draw("strokes", 400).mean((1, 2))
    assert strokes.min() > 0.005
    assert 0.1 < strokes.mean() < 0.5
    stripes = draw("stripes:4", 50)
    assert ((stripes.all(1) | ~stripes.any(1)).all(1) | (stripes.all(2) | ~stripes.any(2)).all(1)).all()
    np.testing.assert_array_equal(draw("not:strokes"), ~draw("strokes"))
    np.testing.assert_array_equal(draw("half:left+half:right"), draw("all"))


def test_box_on_the_digit():
    images = np.zeros((3, 28, 28), np.uint8)
    images[0, 4:10, 6:12] = 200
    images[1, 24:28, 24:28] = 1  # the box is kept inside the image
    hidden = draw("bbox:8", 3, images=images)
    assert (hidden.sum((1, 2)) == 64).all()
    assert hidden[0, 3:11, 5:13].all()
    assert hidden[1, 20:, 20:].all()
    assert hidden[2, 10:18, 10:18].all()  # no digit: the centre
    with pytest.raises(InputError, match="from the images"):
        draw("bbox:8")


def test_mixture_weights():
    drawn = draw("all@3,none@1", 4000).all((1, 2))
    assert abs(drawn.mean() - 0.75) < 5 * (0.1875 / 4000) ** 0.5


@pytest.mark.parametrize(
    "spec",
    ["", "half", "half:up", "box", "box:x", "box:0", "box:-3", "box:10:left", "pixels:0", "pixels:1.5", "pixels:nan",
     "quadrants:4", "stripes:0", "strokes:2", "circle:4", "half:left@x", "half:left@0", "half:left@inf", "not:",
     "half:left+", "all,,none", "quadrants:", "pixels:0.9-0.1", "training@2"],
)  # fmt: skip
def test_an_invalid_spec_is_refused_with_the_valid_ones(spec):
    with pytest.raises(InputError) as caught:
        masks.parse(spec)
    message = str(caught.value)
    assert "\n" not in message
    assert "half:left|right" in message or "weight" in message or "from 1 to" in message


def test_a_mask_larger_than_the_image_is_refused():
    with pytest.raises(InputError, match="does not fit"):
        draw("box:40")
    with pytest.raises(InputError, match="does not fit"):
        draw("bbox:29", images=np.zeros((4, 28, 28), np.uint8))


def test_many_masks_are_drawn_in_parts():
    """The same as in two calls, in three times the memory of the random numbers drawn at once."""
    spec = masks.parse("half:random@1,bbox:4+pixels:0.3@1")
    together = masks.AT_ONCE // spec.numbers(8, 8)
    n = 5 * together + 1
    images = np.random.default_rng(0).integers(0, 256, (n, 8, 8), dtype=np.uint8)
    tracemalloc.start()
    whole = spec.draw(n, 8, 8, np.random.default_rng(1), images)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    rng, cut = np.random.default_rng(1), together // 3
    parts = [spec.draw(len(part), 8, 8, rng, part) for part in (images[:cut], images[cut:])]
    assert (whole == np.concatenate(parts)).all()
    assert most < 3 * 8 * masks.AT_ONCE + 2 * whole.nbytes


def test_weights_are_relative():
    """Their sum may overflow. 400 draws with probability 1/2: bounds of 6 standard errors."""
    drawn = masks.parse("all@1e308,none@1e308").draw(400, 4, 4, stream(0))
    assert 140 < drawn.all((1, 2)).sum() < 260


def test_the_random_box_reaches_every_edge():
    """2,000 boxes of 26 pixels in 28: each of nine places within 5 standard errors of its count."""
    drawn = masks.parse("box:26:random").draw(2000, 28, 28, stream(0))
    tops, lefts = drawn.any(2).argmax(1), drawn.any(1).argmax(1)
    counts = np.bincount(3 * tops + lefts, minlength=9)
    assert counts.sum() == 2000
    assert (np.abs(counts - 2000 / 9) < 5 * (2000 / 9) ** 0.5).all()


def test_masks_by_channel_are_alike_apart_or_of_some_channels():
    spec, rng = masks.parse("half:left@1,half:top@1"), np.random.default_rng(0)
    drawn = spec.draw_planes(400, 3, 8, 8, rng)
    assert drawn.shape == (400, 3, 8, 8)
    alike = (drawn == drawn[:, :1]).all((1, 2, 3)).mean()
    some = (~drawn.any((2, 3))).any(1).mean()  # a channel is observed
    assert alike == pytest.approx(0.5 + 0.25 / 4, abs=0.09)  # 3.5 standard errors
    assert some == pytest.approx(0.25, abs=0.08)
    assert (drawn.any((2, 3))).any(1).all()
    one = spec.draw_planes(5, 1, 8, 8, np.random.default_rng(1))
    assert (one[:, 0] == spec.draw(5, 8, 8, np.random.default_rng(1))).all()


def test_planes_and_channels_last():
    for shape in ((4, 5, 6), (4, 5, 6, 3)):
        mask = np.random.default_rng(0).random(shape) < 0.5
        assert (masks.of_planes(masks.as_planes(mask)) == mask).all()
