"""The forward and reverse process against closed-form moments and against diffusers, number by number."""

import pytest
import torch

from inkfill.core.schedule import PREDICTIONS, Schedule
from inkfill.errors import InputError

NAMES = ("linear", "cosine")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("T", [50, 200, 1000])
def test_alpha_bar_starts_at_1_decreases_and_ends_near_0(name, T):
    schedule = Schedule.named(name, T)
    assert schedule.T == T
    assert schedule.alpha_bar.dtype == torch.float64
    assert schedule.alpha_bar[0] == 1
    assert (schedule.alpha_bar.diff() < 0).all()
    assert 0 < schedule.alpha_bar[-1] < 2e-4


def test_invalid_schedules_are_refused():
    for bad in (torch.tensor([0.9, 0.5]), torch.tensor([1.0, 0.5, 0.6]), torch.tensor([1.0, 0.0]), torch.ones(3, 2)):
        with pytest.raises(InputError):
            Schedule(bad)
    with pytest.raises(InputError, match="linear, cosine"):
        Schedule.named("quadratic")
    with pytest.raises(InputError):
        Schedule.named("cosine", 1)


@pytest.mark.parametrize("name", NAMES)
def test_single_steps_compose_to_the_jump(name):
    """Mean factor and variance after t single steps equal those of q(x_t given x0), at every t."""
    schedule = Schedule.named(name, 200)
    mean, variance = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    for t in range(1, 201):
        factor = schedule.renoise(one, t - 1, t, zero)
        added = schedule.renoise(zero, t - 1, t, one)
        mean, variance = factor * mean, factor**2 * variance + added**2
        torch.testing.assert_close(mean, schedule.q_sample(one, t, zero), rtol=1e-10, atol=0)
        torch.testing.assert_close(variance, schedule.q_sample(zero, t, one) ** 2, rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_q_sample_has_the_closed_form_moments(name):
    """200,000 draws: the mean is within 5 standard errors, the variance within 5 of its own."""
    schedule, n = Schedule.named(name), 200_000
    rng = torch.Generator().manual_seed(0)
    x0 = torch.full((n,), 0.7, dtype=torch.float64)
    for t in (1, 250, 500, 999):
        x_t = schedule.q_sample(x0, t, torch.randn(n, generator=rng, dtype=torch.float64))
        a = schedule.alpha_bar[t]
        assert abs(x_t.mean() - a.sqrt() * 0.7) < 5 * ((1 - a) / n).sqrt()
        assert abs(x_t.var() / (1 - a) - 1) < 5 * (2 / n) ** 0.5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("s", "t"), [(0, 1), (99, 100), (300, 700), (0, 1000), (998, 1000)])
def test_q_posterior_is_bayes_rule(name, s, t):
    """q(x_s given x_t, x0) from the product of two Gaussians, done independently in precisions."""
    schedule = Schedule.named(name)
    a_s, a_t = schedule.alpha_bar[s], schedule.alpha_bar[t]
    x0, x_t = torch.tensor([0.3], dtype=torch.float64), torch.tensor([-1.1], dtype=torch.float64)
    mean, variance = schedule.q_posterior(x0, x_t, t, s)
    if s == 0:
        assert variance == 0
        torch.testing.assert_close(mean, x0)
        return
    step = a_t / a_s
    precision = 1 / (1 - a_s) + step / (1 - step)
    torch.testing.assert_close(variance, 1 / precision, rtol=1e-9, atol=0)
    expected = (a_s.sqrt() * x0 / (1 - a_s) + step.sqrt() * x_t / (1 - step)) / precision
    torch.testing.assert_close(mean, expected, rtol=1e-9, atol=0)


def test_the_ancestral_step_is_the_posterior():
    schedule = Schedule.named("cosine")
    x0, x_t, z = (torch.randn(5, 1, 4, 4, dtype=torch.float64) for _ in range(3))
    for t, s in ((1000, 999), (500, 200), (1, 0)):
        mean, variance = schedule.q_posterior(x0, x_t, t, s)
        step = schedule.reverse_step(x_t, x0, t, s, 1.0, z)
        torch.testing.assert_close(step, mean + variance.sqrt() * z, rtol=1e-6, atol=1e-9)


def test_any_eta_keeps_the_marginal():
    """From x_t ~ q(x_t given x0), a step with the true x0 gives x_s ~ q(x_s given x0) for every eta (DDIM, lemma 1)."""
    schedule = Schedule.named("linear")
    t, s, x0 = 600, 350, torch.tensor([0.4], dtype=torch.float64)
    a_t, a_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
    for eta in (0.0, 0.3, 1.0):
        zero = torch.zeros(1, dtype=torch.float64)
        centre = schedule.reverse_step(a_t.sqrt() * x0, x0, t, s, eta, zero)
        from_eps = schedule.reverse_step(a_t.sqrt() * x0 + (1 - a_t).sqrt(), x0, t, s, eta, zero) - centre
        from_noise = schedule.reverse_step(a_t.sqrt() * x0, x0, t, s, eta, zero + 1) - centre
        torch.testing.assert_close(centre, a_s.sqrt() * x0)
        torch.testing.assert_close(from_eps**2 + from_noise**2, (1 - a_s).reshape(1))


def test_conversions_agree_with_each_other():
    schedule = Schedule.named("cosine")
    x0, eps = (torch.randn(6, 1, 3, 3, dtype=torch.float64) for _ in range(2))
    t = torch.tensor([1, 10, 300, 700, 950, 990])
    x_t = schedule.q_sample(x0, t, eps)
    v = schedule.v_from_eps(x0, t, eps)
    for value, expected in (
        (schedule.x0_from_eps(x_t, t, eps), x0),
        (schedule.eps_from_x0(x_t, t, x0), eps),
        (schedule.x0_from_v(x_t, t, v), x0),
        (schedule.eps_from_v(x_t, t, v), eps),
    ):
        torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_x0_from_every_prediction(prediction):
    """x0 comes back from eps, v, x0 and the score -eps / sqrt(1 - alpha_bar), for one timestep and for one a row."""
    schedule = Schedule.named("cosine")
    x0, eps = torch.randn(2, 4, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for t in (1, 500, 990, torch.tensor([1, 300, 700, 990])):
        x_t = schedule.q_sample(x0, t, eps)
        a = schedule.alpha_bar[t].reshape(-1, 1, 1, 1)
        v = a.sqrt() * eps - (1 - a).sqrt() * x0
        output = {"x0": x0, "eps": eps, "v": v, "score": -eps / (1 - a).sqrt()}[prediction]
        torch.testing.assert_close(schedule.x0_from(prediction, x_t, t, output), x0, rtol=1e-8, atol=1e-8)


def test_posterior_variance_is_bayes_rule():
    """A Gaussian pixel of variance v seen with noise (1 - a) / a: its precisions add."""
    schedule = Schedule.named("cosine")
    for t, v in ((1, 0.3), (500, 1.0), (1000, 0.01)):
        a = float(schedule.alpha_bar[t])
        assert schedule.posterior_variance(t, v) == pytest.approx(1 / (1 / v + a / (1 - a)), rel=1e-9)


def test_timesteps_may_differ_by_row():
    schedule = Schedule.named("cosine")
    x0, eps = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    together = schedule.q_sample(x0, torch.tensor([10, 900]), eps)
    for row, t in enumerate((10, 900)):
        torch.testing.assert_close(together[row], schedule.q_sample(x0, t, eps)[row], rtol=0, atol=0)


# ---- diffusers: its timestep i is i + 1 here -------------------------------------------------------------------------

BETAS = {"linear": "linear", "cosine": "squaredcos_cap_v2"}


@pytest.mark.parametrize("name", NAMES)
def test_alpha_bar_equals_diffusers(name):
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDPMScheduler(1000, beta_schedule=BETAS[name]).alphas_cumprod.double()
    # They compute in float32; a product of 1000 factors is good to about 1e-4 relative.
    torch.testing.assert_close(Schedule.named(name).alpha_bar[1:], theirs, rtol=5e-4, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_forward_and_ancestral_step_equal_diffusers(name):
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDPMScheduler(1000, beta_schedule=BETAS[name], clip_sample=False, variance_type="fixed_small")
    schedule = Schedule(torch.cat([torch.ones(1), theirs.alphas_cumprod]))
    x0, eps, x_t = (torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(3))
    for t in (1, 2, 400, 900):
        noisy = theirs.add_noise(x0, eps, torch.full((3,), t - 1))
        torch.testing.assert_close(schedule.q_sample(x0, t, eps), noisy, rtol=1e-5, atol=1e-5)
        step = theirs.step(eps, t - 1, x_t, generator=torch.Generator().manual_seed(7))
        z = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(7))
        x0_hat = schedule.x0_from_eps(x_t, t, eps)
        torch.testing.assert_close(x0_hat, step.pred_original_sample, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(
            schedule.reverse_step(x_t, x0_hat, t, t - 1, 1.0, z), step.prev_sample, rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_step_equals_diffusers(eta):
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDIMScheduler(1000, clip_sample=False, set_alpha_to_one=True)
    theirs.set_timesteps(50)
    schedule = Schedule(torch.cat([torch.ones(1), theirs.alphas_cumprod]))
    x_t, eps, z = (torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(3))
    for i in (0, 20, 48):
        t = int(theirs.timesteps[i])
        step = theirs.step(eps, t, x_t, eta=eta, variance_noise=z)
        x0_hat = schedule.x0_from_eps(x_t, t + 1, eps)
        ours = schedule.reverse_step(x_t, x0_hat, t + 1, t + 1 - 20, eta, z)
        torch.testing.assert_close(ours, step.prev_sample, rtol=1e-3, atol=1e-4)


def test_a_step_with_noise_needs_noise():
    schedule, x = Schedule.named("cosine"), torch.randn(2, 1, 4, 4)
    with pytest.raises(InputError, match="needs noise"):
        schedule.reverse_step(x, x, torch.tensor([500, 400]), torch.tensor([300, 0]), 0.5, None)


def test_coefficients_are_copied_to_a_device_once():
    schedule, x = Schedule.named("cosine"), torch.zeros(2, 1, 2, 2)
    t = torch.tensor([3, 700])
    first = schedule.at(t, x)
    assert first.shape == (2, 1, 1, 1)
    assert first.dtype == torch.float64
    table = schedule._tables[x.device]
    schedule.at(t, x)
    assert schedule._tables[x.device] is table
    meta = torch.zeros(2, 1, 2, 2, device="meta")
    schedule.at(t, meta)
    moved = schedule._tables[meta.device]
    schedule.at(t, meta)
    assert schedule._tables[meta.device] is moved
    assert schedule.at(3, meta).device.type == "cpu"  # an int t copies nothing
