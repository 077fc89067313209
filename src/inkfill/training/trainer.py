"""A network in training: one step, its state, and nothing about files or clocks.

    trainer = Trainer(net, optimisers(config, net), draw, v_errors)
    for step in range(1000):
        loss = trainer.step(rate=1.0)

Everything random at step i comes from ``draw(i)``, so a state that is put back goes on with the very same batches.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from inkfill.training.config import TrainConfig
from inkfill.training.muon import Muon
from inkfill.training.processes import ALONE, Processes


class Counted(Protocol):
    """What a trainer needs of a batch: what the sum of its errors, over all processes, is divided by."""

    @property
    def count(self) -> float: ...


class Trainer:
    """Steps of gradient descent with a running mean of the weights (``ema``).

    ``draw(step)`` gives the batch of a step (this process's share of it), ``objective(net, batch)`` its errors, of any
    shape. ``dtype`` bfloat16 runs the network under autocast; weights, errors and sums stay float32.
    """

    def __init__(
        self,
        net: nn.Module,
        optimisers: Sequence[torch.optim.Optimizer],
        draw: Callable[[int], Any],
        objective: Callable[[nn.Module, Any], Tensor],
        clip: float = 1.0,
        ema: float = 0.9995,
        dtype: torch.dtype = torch.float32,
        processes: Processes = ALONE,
    ):
        self.net, self.optimisers, self.draw, self.objective = net, optimisers, draw, objective
        self.clip, self.decay, self.dtype, self.processes = clip, ema, dtype, processes
        self.ema = copy.deepcopy(net).requires_grad_(False)
        self.done = 0  # steps
        for group in self._groups():
            group.setdefault("initial_lr", group["lr"])

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimiser in self.optimisers for group in optimiser.param_groups]

    def step(self, rate: float) -> Tensor:
        """One step at this share of the top learning rates; gives its loss."""
        self.net.train()
        loss = self.differentiate(self.draw(self.done))
        self.update(rate)
        return loss

    def differentiate(self, batch: Counted) -> Tensor:
        """The loss of a batch, and its gradient over all processes; the forward and the backward pass."""
        device = next(self.net.parameters()).device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            errors = self.objective(self.net, batch)
        loss = errors.sum() / batch.count
        self.net.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.processes.add_gradients(self.net)
        return loss.detach()

    def update(self, rate: float) -> None:
        """Clip the gradient, move the weights, and their running mean after them."""
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
        """Whether the weights and their running mean are finite."""
        both = (*self.net.parameters(), *self.ema.parameters())
        return all(bool(value.isfinite().all()) for value in both)

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on: tensors and numbers, for ``checkpoint.save_state``."""
        return {
            "step": self.done,
            "net": self.net.state_dict(),
            "ema": self.ema.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state. Raises KeyError, ValueError or RuntimeError for that of another network."""
        self.net.load_state_dict(state["net"])
        self.ema.load_state_dict(state["ema"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.done = int(state["step"])


def optimisers(config: TrainConfig, net: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the matrices and convolutions between the first and the last layer, AdamW for everything else.

    Their learning rates are those at the top of the curve.
    """
    outer = ("stem", "head", "time.layers")
    inner = [p for name, p in net.named_parameters() if p.ndim > 1 and not name.startswith(outer)]
    inner = inner if config.muon_rate > 0 else []
    chosen = {id(p) for p in inner}
    rest = [p for p in net.parameters() if id(p) not in chosen]
    made: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            rest, lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True
        )
    ]
    if inner:
        made.append(Muon(inner, config.muon_rate, config.weight_decay, bfloat16=config.dtype == "bfloat16"))
    return made
