"""Particle methods: the evidence, and resampling."""

import pytest
import torch

from helpers import CORRELATED, analytic_task
from inkfill.core.rng import SampleNoise
from inkfill.methods.particles import Mcgdiff, Tds, resample, run_filter


@pytest.mark.parametrize("name", ["mcgdiff", "tds"])
def test_the_evidence_is_right_and_better_with_more_steps_and_particles(name):
    """Mean over 300 filters of the evidence estimate, unbiased but for the steps: within 15 % of the truth."""

    def estimate(particles, steps):
        task = analytic_task(CORRELATED, [True, False, False], [0.7, 0, 0], 300, steps)
        kernel = Mcgdiff(task, particles) if name == "mcgdiff" else Tds(task, particles, 1.0)
        with torch.no_grad():
            return run_filter(task, particles, 1.0 if name == "mcgdiff" else 0.5, kernel).log_evidence

    truth = CORRELATED.observe(torch.eye(3)[:1], torch.tensor([0.7]))[1]
    few, many = estimate(4, 20), estimate(32, 100)
    assert abs(float(many.exp().mean() / truth.exp()) - 1) < 0.15
    assert many.std() < few.std()


def test_resampling_copies_in_proportion_to_the_weights():
    """Systematic: a particle of weight w has floor(P w) or ceil(P w) copies; rows are resampled alone."""
    weights = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.0, 0.0, 1.0, 0.0], [0.4, 0.3, 0.2, 0.1]])
    ancestors = resample(weights.log(), SampleNoise(0, [0, 1, 2], [0, 0, 0], ()))
    for row, w in zip(ancestors, weights, strict=True):
        copies = torch.bincount(row, minlength=4)
        assert ((copies >= (4 * w).floor()) & (copies <= (4 * w).ceil())).all()
    alone = resample(weights[2:].log(), SampleNoise(0, [2], [0], ()))
    assert torch.equal(alone[0], ancestors[2])
