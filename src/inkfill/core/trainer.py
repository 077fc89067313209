"""Training a network: one step of gradient descent with an exponential moving average (EMA) of the weights.

    trainer = Trainer(net, optimisers(net), draw, v_errors)
    for step in range(1000):
        loss = trainer.step(rate=1.0)

``draw(i)`` gives the batch of step i, so a restored state continues with the same batches.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from inkfill.core.muon import Muon


class Counted(Protocol):
    """A batch: the sum of its errors, over all processes, is divided by ``count``."""

    @property
    def count(self) -> float: ...


class Trainer:
    """Steps of gradient descent, and an EMA of the weights (``ema``).

    ``draw(step)`` gives the batch of a step, ``errors(net, batch)`` its errors, of any shape. ``dtype`` bfloat16 runs
    the network under autocast; weights, errors and sums stay float32. ``reduce(net)`` sums gradients over processes.
    """

    def __init__(
        self,
        net: nn.Module,
        optimisers: Sequence[torch.optim.Optimizer],
        draw: Callable[[int], Any],
        errors: Callable[[nn.Module, Any], Tensor],
        clip: float = 1.0,
        ema: float = 0.9995,
        dtype: torch.dtype = torch.float32,
        reduce: Callable[[nn.Module], object] = lambda net: None,
    ):
        self.net, self.optimisers, self.draw, self.errors = net, optimisers, draw, errors
        self.clip, self.decay, self.dtype, self.reduce = clip, ema, dtype, reduce
        self.ema = copy.deepcopy(net).requires_grad_(False)
        self.done = 0  # steps
        for group in self._groups():
            group.setdefault("initial_lr", group["lr"])

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimiser in self.optimisers for group in optimiser.param_groups]

    def step(self, rate: float) -> Tensor:
        """One step at ``rate`` times the peak learning rates; returns its loss."""
        self.net.train()
        loss = self.differentiate(self.draw(self.done))
        self.update(rate)
        return loss

    def differentiate(self, batch: Counted) -> Tensor:
        """The loss of a batch and, in the weights' ``grad``, its gradient over all processes."""
        device = next(self.net.parameters()).device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            errors = self.errors(self.net, batch)
        loss = errors.sum() / batch.count
        self.net.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.reduce(self.net)
        return loss.detach()

    def update(self, rate: float) -> None:
        """Clip the gradient, update the weights, then their EMA."""
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
        for group in self._groups():
            group["lr"] = group["initial_lr"] * rate
        for optimiser in self.optimisers:
            optimiser.step()
        with torch.no_grad():
            decay = min(self.decay, (1 + self.done) / (10 + self.done))
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.net.parameters()), 1 - decay)
        self.done += 1

    def finite(self) -> bool:
        """Whether the weights and their EMA are finite."""
        both = (*self.net.parameters(), *self.ema.parameters())
        return all(bool(value.isfinite().all()) for value in both)

    def state(self) -> dict[str, Any]:
        """All tensors and numbers that the next step depends on."""
        return {
            "step": self.done,
            "net": self.net.state_dict(),
            "ema": self.ema.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state. Raises KeyError, ValueError or RuntimeError for the state of another network."""
        self.net.load_state_dict(state["net"])
        self.ema.load_state_dict(state["ema"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.done = int(state["step"])


def optimisers(
    net: nn.Module,
    learning_rate: float = 3e-3,
    muon_rate: float = 0.02,
    weight_decay: float = 0.01,
    bfloat16: bool = False,
) -> list[torch.optim.Optimizer]:
    """Muon for the inner matrices and convolutions, AdamW for the first and last layers, biases and norms.

    The rates are peak learning rates. ``muon_rate`` 0 leaves everything to AdamW; ``bfloat16`` is the precision of
    Muon's iteration.
    """
    outer = ("stem", "head", "time.layers")
    inner = [p for name, p in net.named_parameters() if p.ndim > 1 and not name.startswith(outer)]
    inner = inner if muon_rate > 0 else []
    chosen = {id(p) for p in inner}
    rest = [p for p in net.parameters() if id(p) not in chosen]
    made: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)
    ]
    if inner:
        made.append(Muon(inner, muon_rate, weight_decay, bfloat16=bfloat16))
    return made
