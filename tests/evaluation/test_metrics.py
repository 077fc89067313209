"""Metrics on cases with a known value."""

import numpy as np
import pytest

from inkfill.evaluation import metrics


def case(n=3, k=4, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 256, (n, 6, 6), dtype=np.uint8)
    filled = rng.integers(0, 256, (n, k, 6, 6), dtype=np.uint8)
    return truth, filled, rng.random((n, 6, 6)) < 0.5


def test_crps_equals_its_definition():
    truth, filled, mask = case()
    x, y = filled / 255, truth / 255
    for i in range(3):
        pixels = []
        for r, c in zip(*np.nonzero(mask[i]), strict=True):
            v = x[i, :, r, c]
            pairs = sum(abs(a - b) for j, a in enumerate(v) for m, b in enumerate(v) if j != m) / (4 * 3)
            pixels.append(np.abs(v - y[i, r, c]).mean() - pairs / 2)
        assert metrics.crps(truth, filled, mask)[i] == pytest.approx(np.mean(pixels), abs=1e-6)


def test_the_error_of_the_limiting_mean_is_unbiased():
    """Samples uniform over all values, truth 0: the limiting mean is 1/2, its squared error 1/4.

    2,000 images, K = 2 and 16: within .005, more than 5 standard errors. The mean of K adds a variance of 1/12/K.
    """
    rng, mask = np.random.default_rng(0), np.ones((2000, 6, 6), bool)
    truth = np.zeros((2000, 6, 6), np.uint8)
    for k in (2, 16):
        filled = rng.integers(0, 256, (2000, k, 6, 6), dtype=np.uint8)
        assert metrics.mse_of_limit(truth, filled, mask).mean() == pytest.approx(0.25, abs=0.005)
        plain = metrics.mse_of_mean(truth, filled, mask).mean()
        assert plain == pytest.approx(0.25 + 1 / 12 / k, abs=0.005)


def test_crps_is_unbiased_in_the_number_of_samples():
    """Truth and K samples all uniform on [0, 1]: E|X-y| - E|X-X'|/2 = 1/3 - 1/6 = 1/6 for every K."""
    rng = np.random.default_rng(0)
    n, ones = 2000, np.ones((2000, 6, 6), bool)
    truth = rng.integers(0, 256, (n, 6, 6), dtype=np.uint8)
    for k in (2, 3, 8):
        score = metrics.crps(truth, rng.integers(0, 256, (n, k, 6, 6), dtype=np.uint8), ones)
        # 5 standard errors, plus the effect of 256 grey values on the two terms.
        assert abs(score.mean() - 1 / 6) < 5 * metrics.standard_error(score) + 1 / 255


def test_the_best_and_the_worst_samples():
    truth, _, mask = case()
    same = np.repeat(truth[:, None], 3, 1)
    assert (metrics.crps(truth, same, mask) == 0).all()
    assert metrics.psnr(metrics.mse_of_mean(truth, same, mask)) == np.inf
    black, white = np.zeros((1, 4, 4), np.uint8), np.full((1, 2, 4, 4), 255, np.uint8)
    everything = np.ones((1, 4, 4), bool)
    assert metrics.crps(black, white, everything)[0] == pytest.approx(1)
    assert metrics.psnr(metrics.mse_of_sample(black, white, everything)) == pytest.approx(0)


def test_observed_pixels_and_the_order_of_samples_have_no_effect():
    truth, filled, mask = case()
    other = np.where(mask[:, None], filled, 255 - filled)[:, ::-1]
    for metric in (metrics.crps, metrics.mse_of_mean, metrics.mse_of_sample):
        np.testing.assert_allclose(metric(truth, filled, mask), metric(truth, other, mask), rtol=1e-5)


def test_the_error_of_a_sample_is_that_of_the_mean_plus_the_variance():
    truth, filled, mask = case(k=5)
    gap = metrics.mse_of_sample(truth, filled, mask) - metrics.mse_of_mean(truth, filled, mask)
    variance = (filled / 255).var(1)
    np.testing.assert_allclose(gap, [variance[i][mask[i]].mean() for i in range(3)], rtol=1e-4)


def test_a_complete_image_has_no_score():
    truth, filled, mask = case()
    mask[1] = False
    for metric in (metrics.crps, metrics.mse_of_mean, metrics.mse_of_sample):
        assert np.isnan(metric(truth, filled, mask)).tolist() == [False, True, False]
    assert np.isnan(metrics.crps(truth, filled[:, :1], mask)).all()  # K = 1


def gaussians(n=400, k=16, width=1.0, seed=0):
    """Truth N(127, 25^2), samples of ``width`` times its standard deviation."""
    rng = np.random.default_rng(seed)
    truth = np.clip(rng.normal(127, 25, (n, 6, 6)).round(), 0, 255).astype(np.uint8)
    filled = np.clip(rng.normal(127, 25 * width, (n, k, 6, 6)).round(), 0, 255).astype(np.uint8)
    return truth, filled, np.ones((n, 6, 6), bool)


def test_crps_of_a_discrete_distribution_counts_every_pair():
    """Values 0 and 100, truth 0: 50 - 100 / 4; as samples 50 - 100 / 2. A single value: the absolute error."""
    truth, mask = np.zeros((1, 2, 2), np.uint8), np.ones((1, 2, 2), bool)
    filled = np.stack([truth, truth + 100], 1)
    assert metrics.crps(truth, filled, mask, draws=False)[0] * 255 == pytest.approx(25)
    assert metrics.crps(truth, filled, mask)[0] * 255 == pytest.approx(0)
    assert metrics.crps(truth, filled[:, 1:], mask, draws=False)[0] * 255 == pytest.approx(100)


def test_energy_score_and_diversity_equal_their_definitions():
    truth, filled, mask = case()
    for i in range(3):
        x, y = filled[i][:, mask[i]] / 255, truth[i][mask[i]] / 255
        pairs = [np.linalg.norm(a - b) for j, a in enumerate(x) for m, b in enumerate(x) if j != m]
        expected = np.mean([np.linalg.norm(a - y) for a in x]) - np.mean(pairs) / 2
        found = metrics.energy_score(truth, filled, mask)[i]
        assert found == pytest.approx(expected / mask[i].sum() ** 0.5, abs=1e-7)  # root of 1e-16
        assert metrics.diversity(filled, mask)[i] == pytest.approx(np.mean(pairs) / mask[i].sum() ** 0.5, abs=1e-7)


def test_energy_score_is_lowest_for_the_true_standard_deviation():
    scores = [metrics.energy_score(*gaussians(width=s)).mean() for s in (0.3, 1.0, 2.0)]
    assert scores[1] < scores[0]
    assert scores[1] < scores[2]
    truth, _, mask = case()
    assert metrics.energy_score(truth, np.repeat(truth[:, None], 3, 1), mask) == pytest.approx(0, abs=1e-6)


def test_the_rank_histogram_is_flat_for_the_true_distribution_only():
    """14,400 ranks in 17 bins: counts within 5 standard errors. Overconfident: a U shape; underconfident: a dome."""
    histogram = metrics.ranks(*gaussians(), np.random.default_rng(1)).sum(0)
    assert histogram.sum() == 400 * 36
    expected = 400 * 36 / 17
    assert (np.abs(histogram - expected) < 5 * expected**0.5).all()
    narrow = metrics.ranks(*gaussians(width=0.5), np.random.default_rng(1)).sum(0)
    wide = metrics.ranks(*gaussians(width=2.0), np.random.default_rng(1)).sum(0)
    assert narrow[0] > 2 * narrow[8]
    assert wide[0] < wide[8] / 2


def test_ties_are_broken_uniformly():
    """All pixels black, truth and samples: every rank is equally likely, within 5 standard errors."""
    black = np.zeros((500, 4, 6, 6), np.uint8)
    histogram = metrics.ranks(black[:, 0], black, np.ones((500, 6, 6), bool), np.random.default_rng(0)).sum(0)
    expected = 500 * 36 / 5
    assert (np.abs(histogram - expected) < 5 * expected**0.5).all()


def test_coverage():
    assert metrics.coverage(np.full(17, 10), 0.9) == pytest.approx(0.9)
    assert metrics.coverage(np.full(9, 10), 0.5) == pytest.approx(0.5)
    assert metrics.coverage(np.array([5, 0, 0, 0, 5]), 0.5) == pytest.approx(0)  # always outside
    assert metrics.coverage(np.array([0, 0, 9, 0, 0]), 0.5) == pytest.approx(1)
    histogram = metrics.ranks(*gaussians(), np.random.default_rng(1)).sum(0)
    assert metrics.coverage(histogram, 0.9) == pytest.approx(0.9, abs=0.01)
    by_image = metrics.ranks(*gaussians(), np.random.default_rng(1))
    np.testing.assert_array_equal(by_image.sum(1), gaussians()[2].sum((1, 2)))
    assert metrics.coverage(metrics.ranks(*gaussians(width=0.5), np.random.default_rng(1)).sum(0), 0.9) < 0.75


def test_ssim_is_that_of_scikit_image():
    skimage = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 256, (2, 20, 17), dtype=np.uint8)
    filled = np.clip(truth[:, None] + rng.integers(-60, 60, (2, 3, 20, 17)), 0, 255).astype(np.uint8)
    mask = rng.random(truth.shape) < 0.4
    for i in range(2):
        expected = []
        for k in range(3):
            settings = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
            _, every = skimage.structural_similarity(truth[i] / 255, filled[i, k] / 255, full=True, **settings)
            expected.append(every[mask[i]].mean())
        assert metrics.ssim(truth, filled, mask)[i] == pytest.approx(np.mean(expected), abs=1e-6)
    assert metrics.ssim(truth, truth[:, None], mask) == pytest.approx(1)


def test_the_label_posterior_of_samples_with_certain_labels():
    """Three of four samples show a 3, one an 8."""
    draws = np.eye(10)[[[3, 3, 8, 3]]]
    posterior = metrics.vote(draws, smoothing=0.02)
    assert posterior.sum() == pytest.approx(1)
    assert posterior[0, 3] == pytest.approx(3.02 / 4.2)
    assert posterior[0, 5] == pytest.approx(0.02 / 4.2)
    assert metrics.negative_log_likelihood(posterior, np.array([8]))[0] == pytest.approx(-np.log(1.02 / 4.2))


def test_the_brier_score_is_unbiased_in_the_number_of_samples():
    """Labels drawn from p: the expectation is |p - e|^2 for every K; within 5 standard errors of 20,000 images."""
    rng = np.random.default_rng(0)
    p, n = np.array([0.6, 0.3, 0.1]), 20_000
    labels = rng.choice(3, size=n, p=p)
    expected = ((p - np.eye(3)[labels]) ** 2).sum(1).mean()
    for k in (2, 5):
        found = metrics.brier(np.eye(3)[rng.choice(3, size=(n, k), p=p)], labels)
        assert abs(found.mean() - expected) < 5 * metrics.standard_error(found)


def test_frechet_distance_of_gaussians():
    """For shared axes it is |m|^2 + sum (sigma_a - sigma_b)^2; 100,000 draws, within 3 %."""
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    a = rng.standard_normal((100_000, 4)) * [1, 2, 3, 1] @ turn
    b = rng.standard_normal((100_000, 4)) * [2, 2, 1, 1] @ turn + 1
    assert metrics.frechet_distance(a, b) == pytest.approx(4 + 1 + 4, rel=0.03)
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_equals_the_formula_with_a_matrix_square_root():
    scipy = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((50, 6)) @ rng.standard_normal((6, 6)), rng.standard_normal((70, 6)) + 0.3
    root = scipy.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert metrics.frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_kernel_distance_is_unbiased_and_detects_a_shift():
    """Equal distributions: 0 on average, within 5 standard errors over 200 pairs of sets."""
    rng = np.random.default_rng(0)
    same = np.array([metrics.kernel_distance(*rng.standard_normal((2, 40, 3))) for _ in range(200)])
    assert abs(same.mean()) < 5 * metrics.standard_error(same)
    apart = metrics.kernel_distance(rng.standard_normal((200, 3)), rng.standard_normal((200, 3)) + 1)
    assert apart > 10 * same.std()


def test_the_bootstrap_error_of_a_mean():
    values = np.random.default_rng(0).standard_normal(400)
    found = metrics.bootstrap_error(lambda i: float(values[i].mean()), 400, np.random.default_rng(1), 500)
    assert found == pytest.approx(metrics.standard_error(values), rel=0.15)
    assert np.isnan(metrics.bootstrap_error(lambda i: 0.0, 1, np.random.default_rng(1)))


def test_the_standard_error_is_unbiased_for_few_values():
    """For two values it is half their distance: the variance is that with one degree of freedom less."""
    assert metrics.standard_error(np.array([1.0, 3.0, np.nan])) == pytest.approx(1.0)
    assert np.isnan(metrics.standard_error(np.array([1.0])))


def test_confidence_imbalance_and_nearest_distance():
    odds = np.array([[0.95, 0.05], [0.5, 0.5], [0.09, 0.91], [0.9, 0.1]])
    assert metrics.confident(odds, 0.9) == 0.5
    assert metrics.imbalance(np.arange(10).repeat(3), 10) == pytest.approx(0)
    assert metrics.imbalance(np.zeros(5, int), 10) == pytest.approx(0.9)
    train = np.zeros((7, 4, 4), np.uint8)
    train[3], train[6] = 100, 200
    images = np.stack([train[3], train[6], np.full((4, 4), 140, np.uint8)])
    near = metrics.nearest_distance(images, train, part=2)
    np.testing.assert_allclose(near, [0, 0, 40 / 255], atol=1e-3)
    mask = np.zeros((3, 4, 4), bool)
    mask[0, 0], mask[2, :, 0] = True, True
    images[0, 1:] = 255  # observed pixels have no effect
    near = metrics.nearest_distance(images, train, mask, part=2)
    np.testing.assert_allclose(near, [0, np.nan, 40 / 255], atol=1e-3)
