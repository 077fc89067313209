"""All methods: their contracts on a network with random weights, and their samples against analytic posteriors."""

import functools

import numpy as np
import pytest
import torch

from helpers import CORRELATED, analytic_task, draws, independent, mixture
from inkfill.core.masks import parse
from inkfill.core.rng import stream
from inkfill.evaluation.analytic import GaussianMixture
from inkfill.filling.inpaint import inpaint
from inkfill.methods import METHODS, mean_methods
from inkfill.methods.guided import mmps
from inkfill.methods.particles import mcgdiff, tds

ALL = tuple(mean_methods())
BIASED = ("replacement", "repaint", "ddnm", "daps", "dps", "copaint", "mgps", "pigdm", "tmpd")
NARROW = {"ddrm": 0.85, "diffpir": 0.88}  # standard deviation of missing pixels over that of their prior
NOISY = [name for name, method in METHODS.items() if method.noisy]
COSTLY = ("repaint", "daps", "copaint", "mgps", "mcgdiff", "tds")  # several network evaluations a step


def each(names, costly=COSTLY):
    """Parameters of a test, with those of ``costly`` left to ``make check``."""
    return [pytest.param(name, marks=pytest.mark.check) if name in costly else name for name in names]


@pytest.fixture(scope="module")
def small(digits):
    """The middle of nine digits, uint8 [9, 16, 16]."""
    return digits[:9, 6:22, 6:22]


# ---- contracts, on a network with random weights ---------------------------------------------------------------------


@pytest.mark.parametrize("method", ALL)
def test_observed_pixels_come_back_and_missing_ones_are_never_read(method, small, model):
    mask = parse("half:random").draw(2, 16, 16, stream(0))
    garbage = np.where(mask, np.random.default_rng(0).integers(0, 256, mask.shape), small[:2]).astype(np.uint8)
    filled = inpaint(model, small[:2], mask, 2, method, steps=3, sampler="ancestral")
    known = np.broadcast_to(~mask[:, None], filled.shape)
    np.testing.assert_array_equal(filled[known], np.repeat(small[:2, None], 2, 1)[known])
    np.testing.assert_array_equal(filled, inpaint(model, garbage, mask, 2, method, steps=3, sampler="ancestral"))


@pytest.mark.parametrize("method", ALL)
def test_a_sample_does_not_depend_on_its_batch(method, small, model):
    mask = parse("half:left").draw(3, 16, 16, stream(0))
    runs = [inpaint(model, small[:3], mask, 3, method, steps=4, rows=rows).astype(int) for rows in (1, 4, 9)]
    for other in runs[1:]:
        assert np.abs(other - runs[0]).max() <= 1


@pytest.mark.parametrize("method", ALL)
def test_the_cost_is_as_documented_and_watch_is_called(method, small, model):
    spent, watched = [], []

    def watch(t, x, x0):
        watched.append((t, x.shape, x0.shape))

    inpaint(model, small[:2], "half:left", 3, method, steps=7, count=spent.append, watch=watch)
    assert sum(spent) == 6 * METHODS[method].evaluations(7)
    assert watched[0][0] == 1000
    assert all(x == x0 == (6, 1, 16, 16) for _, x, x0 in watched)


# ---- exact methods against analytic posteriors -----------------------------------------------------------------------

EXACT = {
    "conditional": METHODS["conditional"].run,
    "mcgdiff": functools.partial(mcgdiff, particles=32),
    "tds": functools.partial(tds, particles=32),
}
EXACT_IN_NOISE = {
    "mmps": functools.partial(mmps, iterations=2),
    "tmpd": METHODS["tmpd"].run,
    "mcgdiff": EXACT["mcgdiff"],
    "tds": EXACT["tds"],
}


@pytest.mark.parametrize("name", each(EXACT, ("tds",)))
def test_exact_methods_draw_from_the_posterior_of_a_gaussian(name):
    """1,500 draws at 100 steps: mean and deviation within 4 standard errors plus 4 % for the steps."""
    task = analytic_task(CORRELATED, [True, False, False], [0.7, 0, 0], 1500, 100)
    x, posterior = draws(EXACT[name], task)[:, 1:], CORRELATED.posterior(task.observation)
    std = posterior.covariance().diagonal().sqrt()[1:]
    assert ((x.mean(0) - posterior.mean()[1:]).abs() < std * (4 / 1500**0.5 + 0.04)).all()
    assert ((x.std(0) / std - 1).abs() < 4 / 3000**0.5 + 0.04).all()


@pytest.mark.parametrize("name", each(EXACT, ("mcgdiff", "tds")))
def test_exact_methods_draw_from_the_posterior_of_a_mixture(name):
    """1,500 draws: the weight of every mode within 4 standard errors plus 0.02 for the steps and particles."""
    gm = mixture()
    task = analytic_task(gm, [True, False], [-0.3, 0], 1500, 100)
    x, posterior = draws(EXACT[name], task)[:, 1], gm.posterior(task.observation)
    edge = 0.0  # between the mode at about -1 and those at 0.4 and 1.2
    normal = torch.distributions.Normal(posterior.means[:, 1], posterior.covariances[:, 1, 1].sqrt())
    share = float((posterior.weights * normal.cdf(torch.tensor(edge))).sum())
    assert abs(float((x < edge).double().mean()) - share) < 4 * (share * (1 - share) / 1500) ** 0.5 + 0.02
    assert abs(float(x.mean() - posterior.mean()[1])) < 0.06
    assert abs(float(x.std()) / float(posterior.covariance()[1, 1]) ** 0.5 - 1) < 0.1


@pytest.mark.parametrize("name", each(EXACT_IN_NOISE, ("mcgdiff",)))
def test_exact_methods_are_exact_with_observation_noise(name):
    """One of three pixels observed with noise of deviation .5. 1,500 draws: 4 standard errors plus 5 %."""
    x = draws(EXACT_IN_NOISE[name], analytic_task(CORRELATED, [True, False, False], [1.2, 0, 0], 1500, 100, noise=0.5))
    posterior, _ = CORRELATED.observe(torch.eye(3)[:1], torch.tensor([1.2]), 0.5)
    std = posterior.covariance().diagonal().sqrt()
    assert ((x.mean(0) - posterior.mean()).abs() < std * (4 / 1500**0.5 + 0.05)).all()
    assert ((x.std(0) / std - 1).abs() < 4 / 3000**0.5 + 0.05).all()


def test_the_error_falls_as_steps_grow():
    """DDIM on the exact conditional denoiser: the deviation is too small at few steps, right at many."""
    job = functools.partial(analytic_task, CORRELATED, [True, False, False], [0.7, 0, 0], 2000, sampler="ddim")
    true = CORRELATED.posterior(job(2).observation).covariance().diagonal().sqrt()[1:]
    errors = [float((draws(EXACT["conditional"], job(n))[:, 1:].std(0) / true - 1).abs().mean()) for n in (3, 10, 200)]
    assert errors[0] > 2 * errors[1] > 2 * errors[2]


# ---- the others against analytic posteriors --------------------------------------------------------------------------


@pytest.mark.parametrize("method", each(BIASED, ("repaint", "mgps")))
def test_biased_methods_are_right_where_the_observed_pixels_are_independent(method):
    """The missing pixel keeps its prior: 2,000 draws, mean and deviation within 4 standard errors plus 4 %."""
    prior = independent(0.5, 0.3, means=(0.3, -0.4))
    x = draws(METHODS[method].run, analytic_task(prior, [True, False], [0.9, 0], 2000, 100))[:, 1]
    assert abs(float(x.mean()) + 0.4) < 0.3**0.5 * (4 / 2000**0.5 + 0.04)
    assert abs(float(x.std()) / 0.3**0.5 - 1) < 4 / 4000**0.5 + 0.04


@pytest.mark.parametrize("method", NARROW)
def test_the_standard_deviation_of_ddrm_and_diffpir_is_too_small(method):
    """A bias by nature, on record: 4,000 draws, the ratio of deviations within .03 (2.7 standard errors).

    Too little of their noise is kept from x_t, so a prediction, a mean, counts for a draw.
    """
    prior = independent(0.5, 0.3, means=(0.3, -0.4))
    x = draws(METHODS[method].run, analytic_task(prior, [True, False], [0.9, 0], 4000, 100))[:, 1]
    assert abs(float(x.std() / 0.3**0.5) - NARROW[method]) < 0.03


@pytest.mark.parametrize("method", [*BIASED, *NARROW])
def test_biased_methods_follow_the_observed_pixel(method):
    """Correlation 0.9, y = 1.5: the missing pixel goes most of the way from its prior mean to its posterior mean, 1.35.

    1,000 draws; the bounds are far from every method's value (0.9 to 1.5; copaint overshoots, to 1.63) in standard
    errors of at most 0.03.
    """
    prior = GaussianMixture(torch.ones(1), torch.zeros(1, 2), torch.tensor([[[1.0, 0.9], [0.9, 1.0]]]))
    x = draws(METHODS[method].run, analytic_task(prior, [True, False], [1.5, 0], 1000, 50))[:, 1]
    assert 0.75 < float(x.mean()) < (1.75 if method == "copaint" else 1.6)


@pytest.mark.parametrize("method", each(ALL))
def test_with_everything_missing_samples_follow_the_prior(method):
    """1,500 draws at 100 steps from the mixture: mean and deviation within 5 standard errors plus 3 %."""
    gm = mixture()
    x = draws(METHODS[method].run, analytic_task(gm, [False, False], [0, 0], 1500, 100))
    std = gm.covariance().diagonal().sqrt()
    assert ((x.mean(0) - gm.mean()).abs() < std * (5 / 1500**0.5 + 0.03)).all()
    assert ((x.std(0) / std - 1).abs() < 5 / 3000**0.5 + 0.03).all()


@pytest.mark.parametrize("method", NOISY)
def test_a_noisy_observed_pixel_lies_between_prior_and_observation(method):
    """Prior N(0, .25), y = 1, noise .5: the posterior mean is .5. 500 draws; no method comes near the bounds."""
    prior = independent(0.25, 0.25)
    with torch.no_grad():
        x, exact = (
            METHODS[method].run(analytic_task(prior, [True, False], [1.0, 0], 500, 50, noise=noise)).flatten(1)
            for noise in (0.5, 0.0)
        )
    assert abs(float(x[:, 1].mean())) < 0.15
    assert 0.2 < float(x[:, 0].mean()) < 0.95
    assert float(exact[:, 0].mean()) > float(x[:, 0].mean()) - 0.1


def test_the_bias_of_replacement():
    """On the mixture it misses the weights of the modes by far: a bias by nature, on record."""
    gm = mixture()
    task = analytic_task(gm, [True, False], [-0.3, 0], 1000, 50)
    truth = gm.posterior(task.observation).mean()[1]
    assert abs(float(draws(METHODS["replacement"].run, task)[:, 1].mean() - truth)) > 0.3
