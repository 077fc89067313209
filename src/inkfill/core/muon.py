"""Muon: momentum, orthogonalised matrix by matrix (Jordan et al. 2024)."""

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Orthogonalise matrices ``[N, rows, columns]`` by Newton-Schulz: singular values near 1, singular vectors kept.

    The quintic's coefficients are Jordan's: after five steps every singular value that was not tiny lies in 0.7 to 1.2,
    close enough to 1 for an optimiser and cheaper than an SVD. Works in the dtype of ``matrices``.
    """
    x = matrices / (torch.linalg.matrix_norm(matrices, keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    for _ in range(steps):
        gram = x @ x.mT
        odd = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, odd, x, beta=3.4445)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon for weights of two or more dimensions; a convolution counts as the matrix [out, height x width x in].

    ``lr`` is the size of a step in spectral norm; ``bfloat16`` is the precision of the iteration alone. Matrices of one
    shape are iterated as one batch, since each alone is too small to use two cores.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, weight_decay: float, momentum: float = 0.95, bfloat16: bool = True
    ):
        self.dtype = torch.bfloat16 if bfloat16 else torch.float32
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step: Nesterov momentum, orthogonalised, with decoupled weight decay."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape[weight.shape].append(weight)
            for weights in by_shape.values():
                self._step(weights, **{key: group[key] for key in ("lr", "weight_decay", "momentum")})

    def _step(self, weights: list[Tensor], lr: float, weight_decay: float, momentum: float) -> None:
        """A step for weights of one shape."""
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum"] = torch.zeros_like(weight)
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        moments = [self.state[weight]["momentum"] for weight in weights]
        torch._foreach_lerp_(moments, gradients, 1 - momentum)
        updates = [update.to(self.dtype) for update in torch._foreach_lerp(gradients, moments, momentum)]
        last = torch.stack([update.movedim(1, -1) for update in updates])  # in channels-last memory, a plain copy
        matrices = orthogonalise(last.flatten(2))
        # A tall matrix changes its larger output as much as a square one does.
        scale = math.sqrt(max(1.0, matrices.shape[1] / matrices.shape[2]))
        torch._foreach_mul_(weights, 1 - lr * weight_decay)
        steps = matrices.to(weights[0].dtype).view(last.shape).movedim(-1, 2)
        torch._foreach_add_(weights, list(steps), alpha=-lr * scale)
