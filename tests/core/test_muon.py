"""Muon: orthogonal updates of the stated size, and convergence."""

import pytest
import torch

from inkfill.core.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(8, 8), (4, 30), (30, 4)])
def test_orthogonalise_keeps_singular_vectors_with_singular_values_near_1(shape):
    matrix = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    other = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    out = orthogonalise(torch.stack([other, matrix]))[1]  # each matrix is treated alone
    inner = u.T @ out @ v.T
    torch.testing.assert_close(inner, torch.diag(inner.diagonal()), atol=1e-9, rtol=0)  # the same singular vectors
    large = s > 0.05 * s.max()
    assert ((inner.diagonal()[large] > 0.6) & (inner.diagonal()[large] < 1.25)).all()


def test_a_step_is_the_rate_in_spectral_norm():
    weight = torch.nn.Parameter(torch.zeros(6, 6, dtype=torch.float64))
    weight.grad = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    Muon([weight], lr=0.1, weight_decay=0.0, bfloat16=False).step()
    assert 0.06 < float(torch.linalg.matrix_norm(weight.detach(), 2)) < 0.125


def test_it_minimises():
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(5, 2, 3, 3, generator=generator)
    weight = torch.nn.Parameter(torch.zeros_like(target))
    optimiser = Muon([weight], lr=0.05, weight_decay=0.0)
    for i in range(200):
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - i / 200)
        optimiser.zero_grad()
        (weight - target).square().sum().backward()
        optimiser.step()
    assert float((weight - target).detach().norm() / target.norm()) < 0.05


def test_weights_of_one_shape_step_as_they_would_alone():
    """As a stack and in channels-last memory."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(6, 4, 3, 3, generator=generator) for _ in range(3)]
    gradients = [torch.randn(6, 4, 3, 3, generator=generator) for _ in range(3)]

    def stepped(chosen, memory):
        made = [torch.nn.Parameter(weights[i].to(memory_format=memory)) for i in chosen]
        optimiser = Muon(made, lr=0.1, weight_decay=0.5, bfloat16=False)
        for _ in range(2):
            for i, weight in zip(chosen, made, strict=True):
                weight.grad = gradients[i].to(memory_format=memory)
            optimiser.step()
        return [weight.detach() for weight in made]

    together = stepped([0, 1, 2], torch.channels_last)
    for i in range(3):
        torch.testing.assert_close(together[i], stepped([i], torch.contiguous_format)[0], atol=1e-5, rtol=0)
