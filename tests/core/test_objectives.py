"""Objectives: the strata of a batch, and the formula of each objective."""

import numpy as np
import pytest
import torch

from inkfill.core.objectives import ESTIMATE, MEAN, OBJECTIVES, Batch, eps_errors, regression_errors, v_errors
from inkfill.core.rng import stream
from inkfill.core.schedule import Schedule

SCHEDULE = Schedule.named("cosine")


def clean(count, channels=1):
    """Images and masks: x0 in [-1, 1], the left half missing."""
    x0 = torch.rand(count, channels, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.zeros(count, 1, 8, 8, dtype=torch.bool)
    mask[..., :4] = True
    return x0, mask


class Constant(torch.nn.Module):
    """Predicts the same v everywhere, and keeps its inputs."""

    def __init__(self, v):
        super().__init__()
        self.v = v

    def forward(self, *given):
        self.given = given
        return torch.full_like(given[0], self.v)


@pytest.mark.parametrize("count", [5, 200])
def test_a_batch_has_one_timestep_in_each_stratum(count):
    """B equal strata of 1..T, one draw in each, in random order."""
    batch = Batch.draw(SCHEDULE, *clean(count), stream(0))
    strata = np.sort((batch.t.numpy() - 1) * count // SCHEDULE.T)
    np.testing.assert_array_equal(strata, np.arange(count))
    assert not torch.equal(batch.t, batch.t.sort().values)
    assert len({tuple(Batch.draw(SCHEDULE, *clean(count), stream(i)).t.tolist()) for i in range(3)}) == 3


def test_the_first_and_the_last_timestep_are_drawn():
    batch = Batch.draw(Schedule.named("cosine", 50), *clean(50), stream(0))
    assert batch.t.sort().values.tolist() == list(range(1, 51))


def test_a_batch_is_cut_by_rows_after_it_is_drawn():
    """The rows of one process are those of the global batch, and so is the count of scored values."""
    whole = Batch.draw(SCHEDULE, *clean(8, 3), stream(0))
    part = Batch.draw(SCHEDULE, *clean(8, 3), stream(0), rows=slice(4, 8))
    for name in ("x0", "mask", "t", "eps", "scored"):
        assert torch.equal(getattr(whole, name)[4:], getattr(part, name))
    assert part.count == whole.count == 8 * 3 * 32


def test_what_a_network_is_given():
    """x_t (Ho et al. 2020, eq. 4), the observed pixels with 0 where missing, 1 where observed, and t / T."""
    x0, mask = clean(6)
    batch, net = Batch.draw(SCHEDULE, x0, mask, stream(0)), Constant(0.0)
    v_errors(net, batch)
    x_t, pixels, known, time = net.given
    a = SCHEDULE.alpha_bar[batch.t].float().view(-1, 1, 1, 1)
    torch.testing.assert_close(x_t, a.sqrt() * x0 + (1 - a).sqrt() * batch.eps)
    assert torch.equal(known, (~mask).float())
    assert torch.equal(pixels, torch.where(mask, 0.0, x0))
    torch.testing.assert_close(time, batch.t.float() / 1000)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_formulas(channels):
    """With v_hat = 0.25 everywhere: v, eps and x0 errors from their definitions, 0 outside the scored pixels."""
    x0, mask = clean(6, channels)
    scored = mask & (torch.rand(mask.shape, generator=torch.Generator().manual_seed(1)) < 0.5)
    batch, net = Batch.draw(SCHEDULE, x0, mask, stream(0), scored), Constant(0.25)
    a = SCHEDULE.alpha_bar[batch.t].float().view(-1, 1, 1, 1)
    v = a.sqrt() * batch.eps - (1 - a).sqrt() * x0
    torch.testing.assert_close(v_errors(net, batch), (v - 0.25) ** 2 * scored)
    eps_hat = (1 - a).sqrt() * batch.x_t + a.sqrt() * 0.25
    torch.testing.assert_close(eps_errors(net, batch), (batch.eps - eps_hat) ** 2 * scored)
    torch.testing.assert_close(regression_errors(net, batch), (x0 + 0.25) ** 2 * scored)  # x0_hat = -v at T
    assert net.given[0].abs().max() == 0
    assert net.given[3].tolist() == [1.0]
    assert batch.count == max(1, scored.sum() * channels)
    torch.testing.assert_close(batch.weights, scored.flatten(1).sum(1).float() * channels)


def test_the_error_of_v_is_that_of_eps_over_alpha_bar():
    batch, net = Batch.draw(SCHEDULE, *clean(6), stream(0)), Constant(0.25)
    a = SCHEDULE.alpha_bar[batch.t].float().view(-1, 1, 1, 1)
    torch.testing.assert_close(v_errors(net, batch) * a, eps_errors(net, batch), rtol=1e-3, atol=1e-5)


def test_a_batch_with_nothing_scored_has_a_divisor():
    x0, mask = clean(2)
    assert Batch.draw(SCHEDULE, x0, torch.zeros_like(mask), stream(0)).count == 1


def test_what_the_objectives_give():
    assert OBJECTIVES["v"].gives == OBJECTIVES["eps"].gives == MEAN
    assert OBJECTIVES["regression"].gives == ESTIMATE
    assert OBJECTIVES["v"].reported is eps_errors
