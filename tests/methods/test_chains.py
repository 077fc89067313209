"""RePaint's path, and observed pixels at the noise of their timestep."""

import functools

import numpy as np
import pytest
import torch

from helpers import analytic_task, draws, mixture
from inkfill.core.schedule import Schedule
from inkfill.methods import METHODS
from inkfill.methods.chains import repaint, repaint_path


def test_repaint_visits_the_timesteps_of_the_paper():
    path = repaint_path(250, 10, 10)
    assert path[0] == 250
    assert path[-1] == 0
    assert set(np.abs(np.diff(path))) == {1}
    assert (np.diff(path) < 0).sum() == 2410
    # The first jump: down to 231, up ten, and again, nine times.
    first = path.index(231)
    assert path[: first + 1] == list(range(250, 230, -1))
    assert path[first : first + 21] == [*range(231, 242), *range(240, 230, -1)]
    assert path.count(231) == 10 + 9  # and nine times more on top of the jumps from 221
    assert repaint_path(5, 10, 10) == [5, 4, 3, 2, 1, 0]  # too short to jump


@pytest.mark.check
def test_more_repeats_bring_repaint_nearer_to_the_posterior():
    """2,000 draws: the standard error of a mean is 0.024, and the required gain is twice that."""
    gm = mixture()
    truth = gm.posterior(analytic_task(gm, [True, False], [-0.3, 0], 1, 2).observation).mean()[1]

    def error(repeats):
        run = functools.partial(repaint, jump=10, repeats=repeats)
        return abs(float(draws(run, analytic_task(gm, [True, False], [-0.3, 0], 2000, 60))[:, 1].mean() - truth))

    assert error(12) < error(1) - 0.05


@pytest.mark.parametrize("method", ["replacement", "repaint"])
def test_observed_pixels_have_the_noise_of_their_timestep(method):
    """They are draws of q(x_t given y): mean and variance within 5 standard errors of 4,000 rows."""
    n, y, visits, alpha_bar = 4000, 0.7, [], Schedule.named("cosine").alpha_bar

    def watch(t, x, _):
        visits.append((t, x[:, 0, 0, 0].double()))

    with torch.no_grad():
        METHODS[method].run(analytic_task(mixture(), [True, False], [y, 0.0], n, 6, watch=watch))
    assert len({t for t, _ in visits}) == 6
    for t, x in visits:
        a = float(alpha_bar[t])
        assert abs(x.mean() - a**0.5 * y) < 5 * ((1 - a) / n) ** 0.5
        assert abs(x.var() / (1 - a) - 1) < 5 * (2 / n) ** 0.5


@pytest.mark.parametrize("method", ["ddrm", "diffpir", "daps"])
def test_exact_observations_are_reproduced(method):
    """Without observation noise the chain itself ends at the observed values."""
    task = analytic_task(mixture(), [True, False], [0.7, 0.0], 50, 8)
    with torch.no_grad():
        x0 = METHODS[method].run(task)
    torch.testing.assert_close(x0[..., 0], task.observation.pixels[..., 0], rtol=0, atol=1e-5)
