"""Muon: momentum whose every matrix is made orthogonal before it is applied (Jordan et al. 2024)."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """A matrix with the singular vectors of ``matrix`` and singular values near 1, by Newton-Schulz iteration.

    The quintic's coefficients are Jordan's: after five steps every singular value that was not tiny lies in 0.7 to 1.2,
    which is near enough to 1 for an optimiser and cheaper than exact. Works in the dtype of ``matrix``.
    """
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Muon for weights of two and more dimensions; a convolution is taken as the matrix [out, in x height x width].

    ``lr`` is the size of a step in spectral norm; ``bfloat16`` is the precision of the iteration alone.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, weight_decay: float, momentum: float = 0.95, bfloat16: bool = True
    ):
        self.dtype = torch.bfloat16 if bfloat16 else torch.float32
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step: Nesterov momentum, made orthogonal, with decoupled weight decay."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                update = weight.grad.lerp(state["momentum"], group["momentum"])
                matrix = orthogonalise(update.flatten(1).to(self.dtype)).to(weight.dtype)
                # A tall matrix changes its larger output as much as a square one does.
                scale = math.sqrt(max(1.0, matrix.shape[0] / matrix.shape[1]))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(matrix.view_as(weight), alpha=-group["lr"] * scale)
