"""Streams belong to their key."""

import numpy as np
import torch

from inkfill.rng import SampleNoise, stream


def test_streams_repeat_and_differ():
    np.testing.assert_array_equal(stream(1, "a", 2).random(5), stream(1, "a", 2).random(5))
    keys = [(0,), (1,), (0, "a"), (0, "b"), (0, "a", 0), (0, "a", 1), (0, 1, 2), (0, 2, 1)]
    assert len({stream(*key).integers(2**62) for key in keys}) == len(keys)


def test_noise_of_a_row_does_not_depend_on_the_batch():
    together = SampleNoise(3, [0, 0, 5], [0, 1, 2], (1, 6, 6))
    first, second = together(), together()
    for row, (image, sample) in enumerate([(0, 0), (0, 1), (5, 2)]):
        alone = SampleNoise(3, [image], [sample], (1, 6, 6))
        torch.testing.assert_close(alone()[0], first[row], rtol=0, atol=0)
        torch.testing.assert_close(alone()[0], second[row], rtol=0, atol=0)
    assert SampleNoise(0, [1], [1], (2,))(4).shape == (1, 4, 2)
    assert SampleNoise(0, [1, 2], [1, 1], (2,)).uniform().shape == (2,)


def test_noise_is_standard_normal():
    """1,000 x 784 numbers: mean and variance within 5 standard errors; rows are uncorrelated."""
    noise = SampleNoise(0, np.arange(1000), np.zeros(1000, int), (784,))()
    n = noise.numel()
    assert abs(noise.mean()) < 5 / n**0.5
    assert abs(noise.var() - 1) < 5 * (2 / n) ** 0.5
    correlation = (noise[:-1] * noise[1:]).mean()
    assert abs(correlation) < 5 / n**0.5
