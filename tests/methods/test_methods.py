"""Every method: its contracts on a network, and its samples against posteriors known in closed form."""

import dataclasses
import functools

import numpy as np
import pytest
import torch

from helpers import mixture
from inkfill.core.denoiser import Observation
from inkfill.core.masks import parse
from inkfill.core.rng import SampleNoise, stream
from inkfill.core.samplers import spaced_timesteps
from inkfill.core.schedule import Schedule
from inkfill.errors import InputError
from inkfill.evaluation.analytic import AnalyticPrior, GaussianMixture
from inkfill.filling.inpaint import inpaint
from inkfill.methods import Task, mcgdiff, repaint, repaint_path, run_filter, tds
from inkfill.methods.guided import conjugate_gradients, mmps
from inkfill.methods.particles import Mcgdiff, Tds

ALL = tuple(METHODS)
BIASED = ("replacement", "repaint", "ddnm", "daps", "dps", "copaint", "mgps", "pigdm", "tmpd")
OFF = ("ddrm", "diffpir")  # off even where what is known says nothing: see below
SCHEDULE = Schedule.named("cosine")

# ---- contracts, on a network with random weights ---------------------------------------------------------------------


@pytest.mark.parametrize("method", ALL)
def test_known_pixels_come_back_and_missing_ones_are_never_read(method, digits, model):
    mask = parse("half:random").draw(2, 28, 28, stream(0))
    garbage = np.where(mask, np.random.default_rng(0).integers(0, 256, mask.shape), digits[:2]).astype(np.uint8)
    filled = inpaint(model, digits[:2], mask, 2, method, steps=3, sampler="ancestral")
    known = np.broadcast_to(~mask[:, None], filled.shape)
    np.testing.assert_array_equal(filled[known], np.repeat(digits[:2, None], 2, 1)[known])
    np.testing.assert_array_equal(filled, inpaint(model, garbage, mask, 2, method, steps=3, sampler="ancestral"))


@pytest.mark.parametrize("method", ALL)
def test_a_completion_does_not_depend_on_its_batch(method, digits, model):
    mask = parse("half:left").draw(3, 28, 28, stream(0))
    runs = [inpaint(model, digits[:3], mask, 3, method, steps=4, rows=rows).astype(int) for rows in (1, 4, 9)]
    for other in runs[1:]:
        assert np.abs(other - runs[0]).max() <= 1


@pytest.mark.parametrize("method", ALL)
def test_evaluations_are_as_documented(method, digits, model):
    spent = []
    inpaint(model, digits[:2], "half:left", 3, method, steps=7, count=spent.append)
    assert sum(spent) == 6 * METHODS[method].evaluations(7)


def test_steps_within_a_budget():
    assert METHODS["ddnm"].steps_for(48) == 48
    assert METHODS["tds"].steps_for(48) == 6
    repaint = METHODS["repaint"]
    assert repaint.evaluations(repaint.steps_for(48)) <= 48 < repaint.evaluations(repaint.steps_for(48) + 1)


@pytest.mark.parametrize("method", ALL)
def test_every_method_can_be_watched(method, digits, model):
    seen = []
    inpaint(
        model, digits[:2], "half:left", 1, method, steps=3, watch=lambda t, x, x0: seen.append((t, x.shape, x0.shape))
    )
    assert seen[0][0] == 1000
    assert all(x == x0 == (2, 1, 28, 28) for _, x, x0 in seen)


def test_repaint_visits_the_levels_of_the_paper():
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


# ---- against closed-form posteriors ----------------------------------------------------------------------------------


def task(prior, known, y, n, steps, seed=0, sampler="ancestral", noise=0.0):
    known = torch.tensor(known).view(1, 1, 1, -1).expand(n, -1, -1, -1)
    pixels = torch.where(known, torch.tensor(y, dtype=torch.float32).view(1, 1, 1, -1), 0.0).expand(known.shape)
    streams = SampleNoise(seed, np.arange(n), np.zeros(n, int), known.shape[1:])
    model = AnalyticPrior(prior, SCHEDULE)
    return Task(model, Observation(pixels, known, noise), streams, spaced_timesteps(SCHEDULE.T, steps), sampler)


def draws(run, job) -> torch.Tensor:
    with torch.no_grad():
        x0 = run(job)
    return torch.where(job.observation.known, job.observation.pixels, x0).flatten(1).double()


EXACT = {
    "conditional": METHODS["conditional"].run,
    "mcgdiff": functools.partial(mcgdiff, particles=32),
    "tds": functools.partial(tds, particles=32),
}
CORRELATED = GaussianMixture(
    torch.ones(1), torch.tensor([[0.2, -0.1, 0.3]]), torch.tensor([[[1.0, 0.6, 0.2], [0.6, 0.8, 0.1], [0.2, 0.1, 0.5]]])
)


@pytest.mark.parametrize("name", EXACT)
def test_exact_methods_draw_from_a_gaussians_posterior(name):
    """1,500 draws at 100 steps: mean and standard deviation within 4 standard errors, plus 4 % of one for the steps."""
    job = task(CORRELATED, [True, False, False], [0.7, 0, 0], 1500, 100)
    x, posterior = draws(EXACT[name], job)[:, 1:], CORRELATED.posterior(job.observation)
    std = posterior.covariance().diagonal().sqrt()[1:]
    assert ((x.mean(0) - posterior.mean()[1:]).abs() < std * (4 / 1500**0.5 + 0.04)).all()
    assert ((x.std(0) / std - 1).abs() < 4 / 3000**0.5 + 0.04).all()


@pytest.mark.parametrize("name", EXACT)
def test_exact_methods_draw_from_a_mixtures_posterior(name):
    """1,500 draws: the weight of every mode, within 4 standard errors plus 0.02 for the steps and particles."""
    gm = mixture()
    job = task(gm, [True, False], [-0.3, 0], 1500, 100)
    x, posterior = draws(EXACT[name], job)[:, 1], gm.posterior(job.observation)
    edge = 0.0  # between the mode at about -1 and those at 0.4 and 1.2
    normal = torch.distributions.Normal(posterior.means[:, 1], posterior.covariances[:, 1, 1].sqrt())
    share = float((posterior.weights * normal.cdf(torch.tensor(edge))).sum())
    assert abs(float((x < edge).double().mean()) - share) < 4 * (share * (1 - share) / 1500) ** 0.5 + 0.02
    assert abs(float(x.mean() - posterior.mean()[1])) < 0.06
    assert abs(float(x.std()) / float(posterior.covariance()[1, 1]) ** 0.5 - 1) < 0.1


def test_the_error_falls_as_steps_grow():
    """DDIM on the exact conditional denoiser: the standard deviation is too small at few steps, right at many."""
    job = functools.partial(task, CORRELATED, [True, False, False], [0.7, 0, 0], 2000, sampler="ddim")
    true = CORRELATED.posterior(job(2).observation).covariance().diagonal().sqrt()[1:]
    errors = [float((draws(EXACT["conditional"], job(n))[:, 1:].std(0) / true - 1).abs().mean()) for n in (3, 10, 200)]
    assert errors[0] > 2 * errors[1] > 2 * errors[2]


@pytest.mark.parametrize("tool", ["mcgdiff", "tds"])
def test_the_evidence_is_right_and_better_with_more_steps_and_particles(tool):
    """Mean over 300 filters of the evidence estimate, which is unbiased but for the steps: within 15 % of the truth."""

    def estimate(particles, steps):
        job = task(CORRELATED, [True, False, False], [0.7, 0, 0], 300, steps)
        made = Mcgdiff(job, particles) if tool == "mcgdiff" else Tds(job, particles, 1.0)
        with torch.no_grad():
            return run_filter(job, particles, 1.0 if tool == "mcgdiff" else 0.5, made).log_evidence

    truth = CORRELATED.observe(torch.eye(3)[:1], torch.tensor([0.7]))[1]
    few, many = estimate(4, 20), estimate(32, 100)
    assert abs(float(many.exp().mean() / truth.exp()) - 1) < 0.15
    assert many.std() < few.std()


@pytest.mark.parametrize("method", BIASED)
def test_biased_methods_are_right_where_what_is_known_says_nothing(method):
    """Independent pixels: the missing one keeps its prior. 2,000 draws, 4 standard errors plus 4 %."""
    prior = GaussianMixture(torch.ones(1), torch.tensor([[0.3, -0.4]]), torch.diag(torch.tensor([0.5, 0.3]))[None])
    x = draws(METHODS[method].run, task(prior, [True, False], [0.9, 0], 2000, 100))[:, 1]
    assert abs(float(x.mean()) + 0.4) < 0.3**0.5 * (4 / 2000**0.5 + 0.04)
    assert abs(float(x.std()) / 0.3**0.5 - 1) < 4 / 4000**0.5 + 0.04


def test_ddrm_and_diffpir_spread_too_little():
    """What their steps do to pixels of which nothing is known, on record: the ratio of deviations, within .03.

    Too little of their noise is what x_t had, so that a prediction, a mean, counts for a draw.
    """
    prior = GaussianMixture(torch.ones(1), torch.tensor([[0.3, -0.4]]), torch.diag(torch.tensor([0.5, 0.3]))[None])
    for method, expected in (("ddrm", 0.85), ("diffpir", 0.88)):
        x = draws(METHODS[method].run, task(prior, [True, False], [0.9, 0], 4000, 100))[:, 1]
        assert abs(float(x.std() / 0.3**0.5) - expected) < 0.03


@pytest.mark.parametrize("method", [*BIASED, *OFF])
def test_biased_methods_lean_on_what_is_known(method):
    """Correlation 0.9, y = 1.5: the missing pixel goes most of the way from its prior mean to its posterior mean, 1.35.

    1,000 draws; bounds are far from every method's value (0.9 to 1.5; copaint goes too far, to 1.63) in standard errors
    of at most 0.03.
    """
    prior = GaussianMixture(torch.ones(1), torch.zeros(1, 2), torch.tensor([[[1.0, 0.9], [0.9, 1.0]]]))
    x = draws(METHODS[method].run, task(prior, [True, False], [1.5, 0], 1000, 50))[:, 1]
    assert 0.75 < float(x.mean()) < (1.75 if method == "copaint" else 1.6)


@pytest.mark.parametrize("method", ALL)
def test_everything_missing_draws_from_the_prior(method):
    """1,500 draws at 100 steps from the mixture: mean and covariance within 5 standard errors plus 3 %."""
    gm = mixture()
    x = draws(METHODS[method].run, task(gm, [False, False], [0, 0], 1500, 100))
    std = gm.covariance().diagonal().sqrt()
    assert ((x.mean(0) - gm.mean()).abs() < std * (5 / 1500**0.5 + 0.03)).all()
    assert ((x.std(0) / std - 1).abs() < 5 / 3000**0.5 + 0.03).all()


def test_mmps_is_exact_for_any_gaussian():
    """With as many iterations as known values it is the conditional denoiser itself: the same draws, from one noise."""
    job = task(CORRELATED, [True, True, False], [0.7, -1.0, 0], 200, 20)
    expected = draws(METHODS["conditional"].run, job)
    job = task(CORRELATED, [True, True, False], [0.7, -1.0, 0], 200, 20)
    found = draws(functools.partial(mmps, iterations=2), job)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    job = task(CORRELATED, [True, True, False], [0.7, -1.0, 0], 200, 20)
    assert (draws(METHODS["pigdm"].run, job) - expected).abs().mean() > 0.015  # which takes the covariance for round


def test_tmpd_is_exact_for_independent_gaussians_and_for_one_known_pixel():
    """The same draws as the conditional denoiser, from one noise; of correlated known pixels it is not."""
    independent = GaussianMixture(torch.ones(1), torch.zeros(1, 3), torch.diag(torch.tensor([1.0, 0.5, 0.2]))[None])
    for prior, known in ((independent, [True, True, False]), (CORRELATED, [True, False, False])):
        expected = draws(METHODS["conditional"].run, task(prior, known, [0.7, -1.0, 0], 100, 20))
        found = draws(METHODS["tmpd"].run, task(prior, known, [0.7, -1.0, 0], 100, 20))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    known = [True, True, False]
    expected = draws(METHODS["conditional"].run, task(CORRELATED, known, [0.7, -1.0, 0], 100, 20))
    found = draws(METHODS["tmpd"].run, task(CORRELATED, known, [0.7, -1.0, 0], 100, 20))
    assert (found - expected).abs().mean() > 0.01


NOISY = [name for name, method in METHODS.items() if method.noisy]
EXACT_IN_NOISE = {
    "mmps": functools.partial(mmps, iterations=2),
    "tmpd": METHODS["tmpd"].run,
    "mcgdiff": functools.partial(mcgdiff, particles=32),
    "tds": functools.partial(tds, particles=32),
}


@pytest.mark.parametrize("name", EXACT_IN_NOISE)
def test_exact_methods_are_exact_with_noise_in_what_is_known(name):
    """N(m, S), one pixel known with noise of deviation .5: all three. 1,500 draws, 4 standard errors plus 5 %."""
    job = task(CORRELATED, [True, False, False], [1.2, 0, 0], 1500, 100, noise=0.5)
    with torch.no_grad():
        x = EXACT_IN_NOISE[name](job).flatten(1).double()
    posterior, _ = CORRELATED.observe(torch.eye(3)[:1], torch.tensor([1.2]), 0.5)
    std = posterior.covariance().diagonal().sqrt()
    assert ((x.mean(0) - posterior.mean()).abs() < std * (4 / 1500**0.5 + 0.05)).all()
    assert ((x.std(0) / std - 1).abs() < 4 / 3000**0.5 + 0.05).all()


@pytest.mark.parametrize("name", NOISY)
def test_noise_in_what_is_known_leaves_it_between_prior_and_observation(name):
    """Prior N(0, .25), y = 1, noise .5: half is the posterior mean; 500 draws, and bounds that no method comes near."""
    prior = GaussianMixture(torch.ones(1), torch.zeros(1, 2), torch.eye(2)[None] / 4)
    with torch.no_grad():
        x = METHODS[name].run(task(prior, [True, False], [1.0, 0], 500, 50, noise=0.5)).flatten(1)
        exact = METHODS[name].run(task(prior, [True, False], [1.0, 0], 500, 50)).flatten(1)
    assert abs(float(x[:, 1].mean())) < 0.15
    assert 0.2 < float(x[:, 0].mean()) < 0.95
    assert float(exact[:, 0].mean()) > float(x[:, 0].mean()) - 0.1


def test_noisy_images_are_estimated_whole(digits, model):
    filled = inpaint(model, digits[:2], "half:left", 1, "mmps", steps=2, observation_noise=30.0)
    assert filled.shape == (2, 1, 28, 28)
    assert (filled[:, 0, :, 14:] != digits[:2, :, 14:]).any()
    assert inpaint(model, digits[:1], "none", 1, "ddrm", steps=2, observation_noise=30.0).shape == (1, 1, 28, 28)
    with pytest.raises(InputError, match="takes what is known as exact: choose one of ddrm"):
        inpaint(model, digits[:2], "half:left", 1, "ddnm", observation_noise=1.0)
    with pytest.raises(InputError, match="from 0 on"):
        inpaint(model, digits[:2], "half:left", 1, "mmps", observation_noise=-1.0)
    with pytest.raises(InputError, match="windows"):
        inpaint(model, np.zeros((1, 200, 200), np.uint8), "half:left", 1, "mmps", observation_noise=1.0)


def test_mmps_solves_each_row_by_itself():
    matrices = torch.stack([torch.eye(4) * 2, torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0])) + 0.5])
    b = torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(0))

    def product(w):
        return torch.einsum("bij,bj->bi", matrices, w.flatten(1)).view_as(w)

    solved = conjugate_gradients(product, b, 4)
    torch.testing.assert_close(product(solved), b, rtol=1e-4, atol=1e-4)
    alone = conjugate_gradients(lambda w: product(torch.cat([w, w]))[1:], b[1:], 4)
    torch.testing.assert_close(alone, solved[1:])
    assert conjugate_gradients(lambda w: -w, b, 3).abs().max() == 0  # no covariance: nothing is done
    assert conjugate_gradients(product, torch.zeros_like(b), 3).abs().max() == 0


def test_pigdm_is_exact_for_an_isotropic_gaussian():
    """N(m, I), one pixel known. 2,000 draws, 4 standard errors plus 4 %."""
    prior = GaussianMixture(torch.ones(1), torch.tensor([[0.5, -0.5]]), torch.eye(2)[None])
    x = draws(METHODS["pigdm"].run, task(prior, [True, False], [1.5, 0], 2000, 100))[:, 1]
    assert abs(float(x.mean()) + 0.5) < 4 / 2000**0.5 + 0.04
    assert abs(float(x.std()) - 1) < 4 / 4000**0.5 + 0.04


def test_biased_methods_are_biased_where_pixels_depend_on_each_other():
    """On the mixture, plain replacement misses the weights of the modes by far: a bias of the method, on record."""
    gm = mixture()
    job = task(gm, [True, False], [-0.3, 0], 1000, 50)
    truth = gm.posterior(job.observation).mean()[1]
    assert abs(float(draws(METHODS["replacement"].run, job)[:, 1].mean() - truth)) > 0.3


def test_repaint_with_more_repeats_comes_nearer():
    """2,000 draws: the standard error of a mean is 0.024, and the gain asked for is twice that."""
    gm = mixture()
    truth = gm.posterior(task(gm, [True, False], [-0.3, 0], 1, 2).observation).mean()[1]

    def error(repeats):
        run = functools.partial(repaint, jump=10, repeats=repeats)
        return abs(float(draws(run, task(gm, [True, False], [-0.3, 0], 2000, 60))[:, 1].mean() - truth))

    assert error(12) < error(1) - 0.05


@pytest.mark.parametrize("method", ["replacement", "repaint"])
def test_the_network_sees_known_pixels_at_the_noise_of_their_level(method):
    """Known pixels at level t are draws of q(x_t given y): mean and variance within 5 standard errors of 4,000 rows."""
    n, y, seen = 4000, 0.7, {}
    job = task(mixture(), [True, False], [y, 0.0], n, steps=6)
    watched = dataclasses.replace(job, watch=lambda t, x, _: seen.setdefault(t, []).append(x[:, 0, 0, 0].double()))
    with torch.no_grad():
        METHODS[method].run(watched)
    assert len(seen) == 6
    for t, visits in seen.items():
        a = float(SCHEDULE.alpha_bar[t])
        for x in visits:
            assert abs(x.mean() - a**0.5 * y) < 5 * ((1 - a) / n) ** 0.5
            assert abs(x.var() / (1 - a) - 1) < 5 * (2 / n) ** 0.5
