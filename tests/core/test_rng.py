"""Random streams: each depends on its key alone."""

import numpy as np
import pytest
import torch

from inkfill.core.rng import SampleNoise, _words, seeded, stream
from inkfill.errors import InputError


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


def test_no_two_keys_are_the_same_stream():
    """Keys that could collide: "a" and 97, a large number and its halves, texts that run together."""
    keys = [
        ("a",), (97,), ("97",), (2**32 + 5,), (5, 1), (5,), ("mask",), (0x6B73616D,), ("mask", 5), ("mas", "k", 5),
        ("maskrank",), ("mask", "rank"), ("train", 5), ("trai", 110, 5), ("trai", "n", 5), ("",), (), ("", ""), ("\0",),
        ("a\0",), ("a\0\0\0",), ("\x80",), (-1,), (2**64 - 1,), (2**24,), (2**24 - 1,), ("16777216",), (0,), (0, 0),
        ("abcd",), ("abcde",), ("abcdefgh",), ("abcd", "efgh"), ("é",), ("\udce9",),
    ]  # fmt: skip
    assert len({tuple(_words(key)) for key in keys}) == len(keys)
    assert len({stream(0, *key).integers(2**62) for key in keys}) == len(keys)


def test_streams_of_measured_figures_stay():
    """The first numbers of the noise of image 3, sample 5, and of masks: reports depend on them."""
    noise = np.random.Generator(np.random.Philox(np.random.SeedSequence(7, spawn_key=(3, 5))))
    np.testing.assert_array_equal(stream(7, 3, 5).random(4), noise.random(4))
    word = int.from_bytes(b"mask", "little")
    masks = np.random.Generator(np.random.Philox(np.random.SeedSequence(7, spawn_key=(word,))))
    np.testing.assert_array_equal(stream(7, "mask").random(4), masks.random(4))


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "1", None, True])
def test_an_invalid_seed_is_refused(seed):
    with pytest.raises(InputError, match="seed"):
        stream(seed)
    with pytest.raises(InputError, match="seed"), seeded(seed):
        pass
    stream(2**64 - 1)


def test_seeded_restores_the_global_state():
    before = torch.get_rng_state()
    with seeded(3):
        first = torch.rand(2)
    with seeded(3):
        assert torch.equal(torch.rand(2), first)
    assert torch.equal(torch.get_rng_state(), before)
