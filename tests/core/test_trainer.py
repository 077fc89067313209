"""The trainer alone, on a small regression: what a step minimises, its order, and that it learns."""

import copy

import pytest
import torch

from helpers import TINY
from inkfill.core.objectives import Batch, v_errors
from inkfill.core.rng import stream
from inkfill.core.schedule import Schedule
from inkfill.core.trainer import Trainer, optimisers
from inkfill.core.unet import UNet

SCHEDULE = Schedule.named("cosine")


def drawn(step, rows=slice(None)):
    """Eight images of one grey value each, the left half missing."""
    rng = stream(0, step)
    x0 = torch.from_numpy(rng.uniform(-1, 1, (8, 1, 1, 1))).float().expand(8, 1, 8, 8)
    mask = torch.zeros(8, 1, 8, 8, dtype=torch.bool)
    mask[..., :4] = True
    return Batch.draw(SCHEDULE, x0, mask, rng, rows=rows)


def descending(net, **settings):
    return Trainer(net, [torch.optim.SGD(net.parameters(), 1.0)], drawn, v_errors, **settings)


def test_a_step_returns_the_mean_error_and_descends_its_gradient():
    net = UNet(TINY)
    before = copy.deepcopy(net)
    trainer = descending(net, clip=1e9)
    loss = trainer.step(0.1)
    expected = v_errors(before, drawn(0)).sum() / drawn(0).count
    torch.testing.assert_close(loss, expected.detach())
    expected.backward()
    for moved, start in zip(net.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(moved, start - 0.1 * start.grad)
    assert trainer.done == 1


def test_gradients_of_parts_of_a_batch_add_up_to_that_of_the_whole():
    """``count`` is that of the global batch, so a sum over processes is the whole gradient; ``reduce`` sees it."""
    net, gradients = UNet(TINY), {}
    for name, rows in (("whole", slice(None)), ("first", slice(0, 3)), ("second", slice(3, 8))):
        trainer = descending(
            net, reduce=lambda net, name=name: gradients.update({name: [p.grad.clone() for p in net.parameters()]})
        )
        trainer.differentiate(drawn(0, rows))
    for whole, first, second in zip(*gradients.values(), strict=True):
        torch.testing.assert_close(first + second, whole, rtol=1e-4, atol=1e-6)


def test_it_learns():
    """Missing pixels equal the observed ones: 60 steps bring the loss under half of its start."""
    trainer = Trainer(net := UNet(TINY), optimisers(net), drawn, v_errors)
    losses = [float(trainer.step(1.0)) for _ in range(60)]
    assert sum(losses[-10:]) / 10 < 0.5 * sum(losses[:5]) / 5
    assert trainer.finite()


@pytest.mark.parametrize("which", ["net", "ema"])
def test_weights_that_are_not_finite_are_found(which):
    trainer = descending(UNet(TINY))
    assert trainer.finite()
    with torch.no_grad():
        next(getattr(trainer, which).parameters()).view(-1)[0] = float("nan")
    assert not trainer.finite()


def test_a_state_of_another_network_is_refused():
    other = descending(UNet(TINY)).state()
    trainer = descending(torch.nn.Linear(2, 2))
    with pytest.raises(RuntimeError):
        trainer.restore(other)


def test_bfloat16_runs_the_network_alone_in_low_precision():
    """Weights, errors and their mean stay float32."""
    found = {}

    def errors(net, batch):
        found["v"] = net.head(torch.zeros(1, 16, 4, 4)).dtype
        return v_errors(net, batch)

    net = UNet(TINY)
    trainer = Trainer(net, optimisers(net, bfloat16=True), drawn, errors, dtype=torch.bfloat16)
    assert trainer.step(1.0).dtype == torch.float32
    assert found["v"] == torch.bfloat16
    assert all(p.dtype == torch.float32 for p in net.parameters())
