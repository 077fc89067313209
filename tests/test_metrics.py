"""Metrics on cases with a known answer."""

import numpy as np
import pytest

from inkfill import metrics


def case(n=3, k=4, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 256, (n, 6, 6), dtype=np.uint8)
    filled = rng.integers(0, 256, (n, k, 6, 6), dtype=np.uint8)
    return truth, filled, rng.random((n, 6, 6)) < 0.5


def test_crps_is_its_definition():
    truth, filled, mask = case()
    x, y = filled / 255, truth / 255
    for i in range(3):
        pixels = []
        for r, c in zip(*np.nonzero(mask[i]), strict=True):
            v = x[i, :, r, c]
            pairs = sum(abs(a - b) for j, a in enumerate(v) for m, b in enumerate(v) if j != m) / (4 * 3)
            pixels.append(np.abs(v - y[i, r, c]).mean() - pairs / 2)
        assert metrics.crps(truth, filled, mask)[i] == pytest.approx(np.mean(pixels), abs=1e-6)


def test_crps_is_unbiased_in_the_number_of_completions():
    """Truth and K completions all uniform on [0, 1]: E|X-y| - E|X-X'|/2 = 1/3 - 1/6 = 1/6 for every K."""
    rng = np.random.default_rng(0)
    n, ones = 2000, np.ones((2000, 6, 6), bool)
    truth = rng.integers(0, 256, (n, 6, 6), dtype=np.uint8)
    for k in (2, 3, 8):
        score = metrics.crps(truth, rng.integers(0, 256, (n, k, 6, 6), dtype=np.uint8), ones)
        # 5 standard errors, plus what 256 levels may add to each of the two terms.
        assert abs(score.mean() - 1 / 6) < 5 * metrics.standard_error(score) + 1 / 255


def test_perfect_and_hopeless():
    truth, _, mask = case()
    same = np.repeat(truth[:, None], 3, 1)
    assert (metrics.crps(truth, same, mask) == 0).all()
    assert metrics.psnr(metrics.mse_of_mean(truth, same, mask)) == np.inf
    black, white = np.zeros((1, 4, 4), np.uint8), np.full((1, 2, 4, 4), 255, np.uint8)
    everything = np.ones((1, 4, 4), bool)
    assert metrics.crps(black, white, everything)[0] == pytest.approx(1)
    assert metrics.psnr(metrics.mse_of_sample(black, white, everything)) == pytest.approx(0)


def test_known_pixels_and_the_order_of_completions_do_not_count():
    truth, filled, mask = case()
    other = np.where(mask[:, None], filled, 255 - filled)[:, ::-1]
    for metric in (metrics.crps, metrics.mse_of_mean, metrics.mse_of_sample):
        np.testing.assert_allclose(metric(truth, filled, mask), metric(truth, other, mask), rtol=1e-5)


def test_mean_beats_sample_by_the_spread():
    truth, filled, mask = case(k=5)
    gap = metrics.mse_of_sample(truth, filled, mask) - metrics.mse_of_mean(truth, filled, mask)
    variance = (filled / 255).var(1)
    np.testing.assert_allclose(gap, [variance[i][mask[i]].mean() for i in range(3)], rtol=1e-4)


def test_an_image_with_nothing_missing_has_no_score():
    truth, filled, mask = case()
    mask[1] = False
    for metric in (metrics.crps, metrics.mse_of_mean, metrics.mse_of_sample):
        assert np.isnan(metric(truth, filled, mask)).tolist() == [False, True, False]
    assert np.isnan(metrics.crps(truth, filled[:, :1], mask)).all()  # one completion has no spread


def gaussians(n=400, k=16, spread=1.0, seed=0):
    """Truth and completions around 127: the same distribution for spread 1, else completions that much wider."""
    rng = np.random.default_rng(seed)
    truth = np.clip(rng.normal(127, 25, (n, 6, 6)).round(), 0, 255).astype(np.uint8)
    filled = np.clip(rng.normal(127, 25 * spread, (n, k, 6, 6)).round(), 0, 255).astype(np.uint8)
    return truth, filled, np.ones((n, 6, 6), bool)


def test_energy_score_is_its_definition():
    truth, filled, mask = case()
    for i in range(3):
        x, y = filled[i][:, mask[i]] / 255, truth[i][mask[i]] / 255
        pairs = [np.linalg.norm(a - b) for j, a in enumerate(x) for m, b in enumerate(x) if j != m]
        expected = np.mean([np.linalg.norm(a - y) for a in x]) - np.mean(pairs) / 2
        found = metrics.energy_score(truth, filled, mask)[i]
        assert found == pytest.approx(expected / mask[i].sum() ** 0.5, abs=1e-7)  # root of 1e-16
        assert metrics.diversity(filled, mask)[i] == pytest.approx(np.mean(pairs) / mask[i].sum() ** 0.5, abs=1e-7)


def test_energy_score_prefers_the_right_spread():
    scores = [metrics.energy_score(*gaussians(spread=s)).mean() for s in (0.3, 1.0, 2.0)]
    assert scores[1] < scores[0]
    assert scores[1] < scores[2]
    truth, _, mask = case()
    assert metrics.energy_score(truth, np.repeat(truth[:, None], 3, 1), mask) == pytest.approx(0, abs=1e-6)


def test_rank_histogram_is_flat_for_the_right_distribution_alone():
    """14,400 ranks over 17 places: each count within 5 standard errors; too narrow is a cup, too wide a dome."""
    histogram = metrics.ranks(*gaussians(), np.random.default_rng(1))
    assert histogram.sum() == 400 * 36
    expected = 400 * 36 / 17
    assert (np.abs(histogram - expected) < 5 * expected**0.5).all()
    narrow = metrics.ranks(*gaussians(spread=0.5), np.random.default_rng(1))
    wide = metrics.ranks(*gaussians(spread=2.0), np.random.default_rng(1))
    assert narrow[0] > 2 * narrow[8]
    assert wide[0] < wide[8] / 2


def test_ties_are_broken_evenly():
    """All pixels black, truth and completions: every rank is as likely."""
    black = np.zeros((500, 4, 6, 6), np.uint8)
    histogram = metrics.ranks(black[:, 0], black, np.ones((500, 6, 6), bool), np.random.default_rng(0))
    expected = 500 * 36 / 5
    assert (np.abs(histogram - expected) < 5 * expected**0.5).all()


def test_coverage():
    assert metrics.coverage(np.full(17, 10), 0.9) == pytest.approx(0.9)
    assert metrics.coverage(np.full(9, 10), 0.5) == pytest.approx(0.5)
    assert metrics.coverage(np.array([5, 0, 0, 0, 5]), 0.5) == pytest.approx(0)  # the truth is always outside
    assert metrics.coverage(np.array([0, 0, 9, 0, 0]), 0.5) == pytest.approx(1)
    histogram = metrics.ranks(*gaussians(), np.random.default_rng(1))
    assert metrics.coverage(histogram, 0.9) == pytest.approx(0.9, abs=0.01)
    assert metrics.coverage(metrics.ranks(*gaussians(spread=0.5), np.random.default_rng(1)), 0.9) < 0.75
