"""Guided methods: the priors for which they are exact, and their linear solver."""

import functools

import torch

from helpers import CORRELATED, analytic_task, draws, independent
from inkfill.methods import METHODS
from inkfill.methods.guided import conjugate_gradients, mmps


def test_mmps_is_exact_for_any_gaussian():
    """With as many iterations as observed values it is the conditional denoiser: the same draws from the same noise."""
    job = functools.partial(analytic_task, CORRELATED, [True, True, False], [0.7, -1.0, 0], 200, 20)
    expected = draws(METHODS["conditional"].run, job())
    found = draws(functools.partial(mmps, iterations=2), job())
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert (draws(METHODS["pigdm"].run, job()) - expected).abs().mean() > 0.015  # pigdm takes the covariance as round


def test_tmpd_is_exact_for_independent_pixels_and_for_one_observed_pixel():
    """The same draws as the conditional denoiser, from the same noise; with correlated observed pixels it is not."""
    exact = [(independent(1.0, 0.5, 0.2), [True, True, False]), (CORRELATED, [True, False, False])]
    for prior, known in exact:
        expected = draws(METHODS["conditional"].run, analytic_task(prior, known, [0.7, -1.0, 0], 100, 20))
        found = draws(METHODS["tmpd"].run, analytic_task(prior, known, [0.7, -1.0, 0], 100, 20))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    job = functools.partial(analytic_task, CORRELATED, [True, True, False], [0.7, -1.0, 0], 100, 20)
    found, expected = (draws(METHODS[name].run, job()) for name in ("tmpd", "conditional"))
    assert (found - expected).abs().mean() > 0.01


def test_pigdm_is_exact_for_an_isotropic_gaussian():
    """N(m, I), one pixel observed: 2,000 draws, 4 standard errors plus 4 %."""
    prior = independent(1.0, 1.0, means=(0.5, -0.5))
    x = draws(METHODS["pigdm"].run, analytic_task(prior, [True, False], [1.5, 0], 2000, 100))[:, 1]
    assert abs(float(x.mean()) + 0.5) < 4 / 2000**0.5 + 0.04
    assert abs(float(x.std()) - 1) < 4 / 4000**0.5 + 0.04


def test_conjugate_gradients_solve_each_row_alone():
    matrices = torch.stack([torch.eye(4) * 2, torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0])) + 0.5])
    b = torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(0))

    def product(w):
        return torch.einsum("bij,bj->bi", matrices, w.flatten(1)).view_as(w)

    solved = conjugate_gradients(product, b, 4)
    torch.testing.assert_close(product(solved), b, rtol=1e-4, atol=1e-4)
    alone = conjugate_gradients(lambda w: product(torch.cat([w, w]))[1:], b[1:], 4)
    torch.testing.assert_close(alone, solved[1:])
    assert conjugate_gradients(lambda w: -w, b, 3).abs().max() == 0  # not positive: no step
    assert conjugate_gradients(product, torch.zeros_like(b), 3).abs().max() == 0
