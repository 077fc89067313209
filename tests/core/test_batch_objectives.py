"""Batches, objectives and the training step, on tensors."""

import numpy as np
import pytest
import torch

from helpers import TINY
from inkfill.core.objectives import Batch, eps_errors, v_errors
from inkfill.core.rng import stream
from inkfill.core.schedule import Schedule
from inkfill.core.trainer import Trainer, optimisers
from inkfill.core.unet import UNet, UNetConfig

SCHEDULE = Schedule.named("cosine")


def batch(step: int, size: int = 8, rows: slice = slice(None), half: bool = False) -> Batch:
    """Random images of 8 x 8 pixels, all of them or the left half missing."""
    rng = stream(0, "train", step)
    x0 = torch.from_numpy(rng.uniform(-1, 1, (size, 1, 8, 8)).astype(np.float32))
    mask = torch.ones(size, 1, 8, 8, dtype=torch.bool)
    mask[..., 4:] = not half
    return Batch.draw(SCHEDULE, x0, mask, rng, rows=rows)


def test_rows_of_a_batch_are_those_of_the_global_batch():
    whole, second = batch(5, half=True), batch(5, rows=slice(4, 8), half=True)
    for name in ("x0", "mask", "t", "eps", "scored"):
        assert torch.equal(getattr(whole, name)[4:], getattr(second, name))
    assert whole.count == second.count == whole.mask.sum()


def test_timesteps_are_uniform_and_never_zero():
    """One draw in each stratum of T / B timesteps, so counts by tenth are exact."""
    t = torch.cat([batch(i, 500).t for i in range(4)])
    assert t.min() >= 1
    assert t.max() <= 1000
    assert torch.histc(t.double(), 10, 0.5, 1000.5).tolist() == [200] * 10
    assert len(t.unique()) > 700


def test_the_loss_is_the_noise_error_on_missing_pixels():
    """A network that outputs v = 0 predicts eps_hat = sqrt(1 - alpha_bar) x_t."""
    drawn = batch(0, half=True)
    a = SCHEDULE.alpha_bar[drawn.t].float().view(-1, 1, 1, 1)
    net = UNet(TINY)  # the weights of its head start at zero
    torch.nn.init.zeros_(net.head.bias)
    errors = eps_errors(net, drawn)
    torch.testing.assert_close(errors, (drawn.eps - (1 - a).sqrt() * drawn.x_t) ** 2 * drawn.mask)
    assert (errors[..., 4:] == 0).all()
    torch.testing.assert_close(v_errors(net, drawn) * a, errors, rtol=1e-3, atol=1e-5)


def test_every_weight_has_one_optimiser():
    net = UNet(UNetConfig())
    adam, muon = optimisers(net)
    of_adam, of_muon = ([p for g in o.param_groups for p in g["params"]] for o in (adam, muon))
    assert {id(p) for p in of_adam} | {id(p) for p in of_muon} == {id(p) for p in net.parameters()}
    assert len(of_adam) + len(of_muon) == len(list(net.parameters()))
    assert sum(p.numel() for p in of_muon) > 0.9 * sum(p.numel() for p in net.parameters())
    assert len(optimisers(net, muon_rate=0)) == 1


def test_the_gradient_is_clipped():
    """A step of gradient descent at rate 1 moves the weights by the gradient, which has norm ``clip`` at most."""
    net = UNet(TINY)
    before = torch.cat([p.detach().flatten().clone() for p in net.parameters()])

    def loud(net, batch):
        return 1e4 * v_errors(net, batch)

    Trainer(net, [torch.optim.SGD(net.parameters(), 1.0)], batch, loud, clip=0.5).step(1.0)
    after = torch.cat([p.detach().flatten() for p in net.parameters()])
    assert float((after - before).norm()) == pytest.approx(0.5, rel=1e-3)


def test_the_ema_follows_the_weights():
    """Its decay warms up: 1/10 after the first step, 2/11 after the second, never more than ``ema``."""
    net = UNet(TINY)
    trainer = Trainer(net, [torch.optim.SGD(net.parameters(), 1.0)], batch, v_errors, ema=0.15)
    expected = [p.detach().clone() for p in net.parameters()]
    for decay in (1 / 10, 0.15, 0.15):
        trainer.step(1.0)
        expected = [decay * mean + (1 - decay) * p.detach() for mean, p in zip(expected, net.parameters(), strict=True)]
        for mean, found in zip(expected, trainer.ema.parameters(), strict=True):
            torch.testing.assert_close(found, mean)


def test_a_trainer_continues_from_its_state_bit_for_bit():
    def trainer():
        net = UNet(TINY)
        return Trainer(net, optimisers(net), batch, v_errors)

    whole, first, second = trainer(), trainer(), trainer()
    for _ in range(2):
        whole.step(0.5)
    first.step(0.5)
    second.restore(first.state())
    second.step(0.5)
    assert second.done == 2
    for a, b in ((whole.net, second.net), (whole.ema, second.ema)):
        assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert any(not torch.equal(x, y) for x, y in zip(whole.net.parameters(), whole.ema.parameters(), strict=True))


@pytest.mark.parametrize("part", ["net", "ema"])
def test_weights_that_are_not_finite_are_found(part):
    net = UNet(TINY)
    trainer = Trainer(net, optimisers(net), batch, v_errors)
    assert trainer.finite()
    with torch.no_grad():
        next(getattr(trainer, part).parameters())[0] = float("nan")
    assert not trainer.finite()
