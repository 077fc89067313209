"""Samplers: against diffusers on a whole trajectory, and on a Gaussian whose distribution they must reproduce."""

import numpy as np
import pytest
import torch

from inkfill.core import samplers
from inkfill.core.samplers import SAMPLERS, ancestral, ddim, dpmpp_2m, find_sampler, spaced_timesteps
from inkfill.core.schedule import Schedule
from inkfill.errors import InputError


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_dpmpp_2m_equals_diffusers(eta):
    """The whole trajectory on a toy denoiser, deterministic and stochastic, against diffusers at the same timesteps."""
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DPMSolverMultistepScheduler(
        1000, algorithm_type="sde-dpmsolver++" if eta else "dpmsolver++", solver_order=2, solver_type="midpoint",
        lower_order_final=False, final_sigmas_type="zero", timestep_spacing="linspace",
    )  # fmt: skip
    theirs.set_timesteps(10)
    schedule = Schedule(torch.cat([torch.ones(1), theirs.alphas_cumprod]))
    timesteps = [int(t) + 1 for t in theirs.timesteps] + [0]
    x, *noise = torch.randn(11, 4, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def denoise(x_t, t):
        return torch.tanh(x_t * schedule.alpha_bar[t].sqrt())

    expected, noises = x.clone(), iter(noise)
    for t, z in zip(theirs.timesteps, noise, strict=True):
        eps = schedule.eps_from_x0(expected, int(t) + 1, denoise(expected, int(t) + 1))
        expected = theirs.step(eps, t, expected, variance_noise=z if eta else None).prev_sample
    found = dpmpp_2m(denoise, x, schedule, timesteps, lambda: next(noises), eta)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_gaussian_comes_out_as_it_is(name):
    """Prior N(0.3, 0.5^2), 20,000 draws at 100 steps: mean and deviation within 4 standard errors plus 3 % for the
    steps."""
    schedule, n = Schedule.named("cosine"), 20_000
    mean, std, generator = 0.3, 0.5, torch.Generator().manual_seed(0)

    def denoise(x_t, t):
        a = float(schedule.alpha_bar[t])
        return mean + a**0.5 * std**2 / (a * std**2 + 1 - a) * (x_t - a**0.5 * mean)

    x = torch.randn(n, 1, 1, 1, generator=generator)
    timesteps = spaced_timesteps(schedule.T, 100)
    found = SAMPLERS[name](denoise, x, schedule, timesteps, lambda: torch.randn(x.shape, generator=generator))
    assert abs(float(found.mean()) - mean) < std * (4 / n**0.5 + 0.03)
    assert abs(float(found.std()) / std - 1) < 4 / (2 * n) ** 0.5 + 0.03


def test_ddim_with_eta_1_is_ancestral():
    schedule, x = Schedule.named("cosine"), torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    runs = []
    for run, settings in ((ancestral, {}), (ddim, {"eta": 1.0})):
        generator = torch.Generator().manual_seed(1)
        noise = lambda generator=generator: torch.randn(x.shape, generator=generator)  # noqa: E731
        runs.append(run(lambda x_t, t: x_t.tanh(), x, schedule, [1000, 400, 100, 0], noise, **settings))
    assert torch.equal(*runs)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_calls_watch_at_every_timestep(name):
    schedule, x, watched = Schedule.named("cosine"), torch.zeros(2, 1, 4, 4), []
    SAMPLERS[name](
        lambda x_t, t: x_t * 0, x, schedule, [1000, 500, 0], lambda: x, watch=lambda t, x_t, x0_hat: watched.append(t)
    )
    assert watched == [1000, 500]


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m"])
def test_a_stochastic_sampler_needs_noise(sampler):
    """Without it the chain would be nearly deterministic, which no paper describes."""
    schedule, x = Schedule.named("cosine"), torch.randn(2, 1, 4, 4)
    run = getattr(samplers, sampler)
    with pytest.raises(InputError, match="needs noise"):
        run(lambda x_t, t: x_t * 0, x, schedule, [1000, 500, 0], eta=1.0)
    assert run(lambda x_t, t: x_t * 0, x, schedule, [1000, 500, 0], eta=0.0).shape == x.shape


def test_an_unknown_sampler_is_refused():
    with pytest.raises(InputError, match=", ".join(SAMPLERS)):
        find_sampler("euler")


def test_spaced_timesteps():
    assert spaced_timesteps(1000, 1) == [1000, 0]
    assert spaced_timesteps(10, 10) == list(range(10, -1, -1))
    assert len(set(spaced_timesteps(1000, 999))) == 1000
    for steps in (0, -1, 1001, 2.5):
        with pytest.raises(InputError, match="from 1 to 1000"):
            spaced_timesteps(1000, steps)
