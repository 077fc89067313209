"""Large images, filled in windows."""

import numpy as np
import pytest

from helpers import images_of, model_of, observed_alike, tiny_model
from inkfill.core import masks as specs
from inkfill.core.rng import stream
from inkfill.filling import windows
from inkfill.filling.inpaint import inpaint, sample


@pytest.mark.parametrize("spec", ["box:10", "strokes", "pixels:0.02", "all", "box:100:random", "half:left"])
def test_windows_cover_every_missing_pixel_without_overlap_in_a_wave(spec):
    mask = specs.parse(spec).draw(1, 150, 131, stream(0))[0]
    left, numbers = mask.copy(), []
    for wave in windows.plan(mask, (28, 32)):
        covered = np.zeros_like(mask, int)
        for window in wave:
            covered[window.place] += 1
            numbers.append(window.number)
            assert left[window.place].any()  # it has a pixel to fill
        assert covered.max() <= 1
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


def test_a_large_image_is_filled_in_windows_of_the_training_size():
    image = images_of("uint8", (1, 150, 130))
    mask = np.zeros((150, 130), bool)
    mask[np.arange(20, 120), np.arange(20, 120)] = True
    mask[100:110, 40:50] = True
    model, sizes = tiny_model(), []
    filled = inpaint(model, image, mask, 2, steps=2, watch=lambda t, x, x0: sizes.append(x.shape[-2:]))
    assert set(sizes) == {(28, 28)}
    assert observed_alike(filled, image, mask[None])
    assert (filled[0, 0] != filled[0, 1]).any()
    other = inpaint(model, image, mask, 2, steps=2, rows=1)
    assert np.abs(filled.astype(int) - other).max() <= 1  # the batch size changes rounding alone
    garbage = np.where(mask, 255 - image, image)
    np.testing.assert_array_equal(filled, inpaint(model, garbage, mask, 2, steps=2))


def test_pixels_filled_in_one_window_are_observed_in_the_next():
    mask = specs.parse("box:60").draw(1, 120, 110, stream(0))[0]
    missing = []

    def counting(task):
        missing.append(int(task.observation.mask.sum()))
        return task.observation.pixels

    inpaint(tiny_model(), images_of("uint8", (1, 120, 110)), mask, 2, counting)
    assert sum(missing) == 2 * mask.sum()


def test_large_unconditional_samples_are_inpainting_of_everything():
    model = model_of(1, (12, 12))
    new = sample(model, 1, (40, 40), steps=2, seed=5)
    np.testing.assert_array_equal(new, inpaint(model, np.zeros((1, 40, 40), np.uint8), "all", 1, steps=2, seed=5)[:, 0])
