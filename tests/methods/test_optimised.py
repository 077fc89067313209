"""Optimised methods: no iteration is the prior's own sampler, and more iterations fit the observation better."""

import functools

import pytest
import torch

from helpers import analytic_task, draws, independent, mixture
from inkfill.core.samplers import ddim
from inkfill.methods.optimised import _bridge, copaint, mgps


def test_copaint_without_iterations_is_ddim_of_the_prior():
    run = functools.partial(copaint, iterations=0)
    task = functools.partial(analytic_task, mixture(), [True, False], [0.7, 0], 20, 8)
    expected = draws(lambda job: ddim(job.unconditional, job.noise(), job.schedule, job.timesteps), task())
    torch.testing.assert_close(draws(run, task()), expected)


@pytest.mark.parametrize("method", [copaint, mgps])
def test_iterations_bring_the_prediction_to_the_observation(method):
    """The mean misfit of the observed pixel in the method's own result, before the observation is put in."""
    misfits = []
    for iterations in (0, 4):
        task = analytic_task(independent(0.3, 0.3), [True, False], [0.9, 0], 200, 8)
        with torch.no_grad():
            x0 = method(task, iterations=iterations)
        misfits.append(float(task.observation.misfit(x0)[..., 0].abs().mean()))
    assert misfits[1] < 0.5 * misfits[0]


def test_the_bridge_is_bayes_rule():
    """x_s given x_m and x_t: 20,000 draws, mean and deviation within 4 standard errors of the exact Gaussian."""
    n, m, s, t = 20_000, 200, 400, 700
    task = analytic_task(independent(1.0), [False], [0.0], n, 2)
    a_m, a_s, a_t = (float(task.schedule.alpha_bar[each]) for each in (m, s, t))
    up, down = a_s / a_m, a_t / a_s
    precision = 1 / (1 - up) + down / (1 - down)
    mean = (up**0.5 * 0.5 / (1 - up) + down**0.5 * -0.8 / (1 - down)) / precision
    x = torch.ones(n, 1, 1, 1)
    found = _bridge(task, 0.5 * x, -0.8 * x, m, s, t).double()
    assert abs(float(found.mean()) - mean) < 4 * (1 / precision / n) ** 0.5
    assert abs(float(found.std()) * precision**0.5 - 1) < 4 / (2 * n) ** 0.5
    assert torch.equal(_bridge(task, 0.5 * x, x, m, m, t), 0.5 * x)
