"""Muon: orthogonal updates, and it minimises."""

import pytest
import torch

from inkfill.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(8, 8), (4, 30), (30, 4)])
def test_orthogonalise_keeps_singular_vectors_and_evens_singular_values(shape):
    matrix = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    out = orthogonalise(matrix)
    inner = u.T @ out @ v.T
    torch.testing.assert_close(inner, torch.diag(inner.diagonal()), atol=1e-9, rtol=0)  # the same vectors
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
