"""Helpers of all tests: a tiny network, the command line in this process, and images with known posteriors."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from inkfill.app import cli
from inkfill.core.unet import UNet, UNetConfig
from inkfill.evaluation.analytic import GaussianMixture
from inkfill.models.model import Model, Recipe

ROOT = Path(__file__).parent.parent
TINY = UNetConfig(widths=(16, 32), blocks=(1, 1), head_width=16, time_width=32)


def tiny_model(dtype: torch.dtype = torch.float32) -> Model:
    """Random weights everywhere, so that the output depends on every input."""
    net = UNet(TINY)
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.7 / parameter[0].numel() ** 0.5, generator=generator)
    return Model(net, Recipe(), dtype=dtype)


# ---- the command line ------------------------------------------------------------------------------------------------


def run(*arguments) -> int:
    """The exit status of ``inkfill ARGUMENTS``, in this process."""
    before = sys.argv
    sys.argv = ["inkfill", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0


def refused(capsys, *arguments, says=()):
    """One line on stderr, nothing on stdout, a non-zero status."""
    assert run(*arguments) in (1, 2)
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.strip()]
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("inkfill: ")
    for word in says:
        assert word in lines[0]
    assert captured.out == ""


def process(*words, before=(), **named) -> subprocess.CompletedProcess:
    """``inkfill WORDS`` in a process of its own; ``before`` is put in front of the command line."""
    command = [*before, sys.executable, "-m", "inkfill", *map(str, words)]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=300, check=False, **named)


def two_processes(*words) -> subprocess.CompletedProcess:
    """``inkfill WORDS`` in two processes under torchrun."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "inkfill"]
    command, environment = [*launcher, *map(str, words)], {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, check=True, env=environment, capture_output=True, timeout=300, text=True)


def commands(text):
    """The inkfill commands in code blocks of a page, continued lines joined."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            line = re.sub(r"^(\.venv/bin/|torchrun \S+ \S+ -m )", "", line.strip())
            if line.startswith("inkfill "):
                yield re.split(r"\s+#\s", line)[0]


# ---- images with known posteriors ------------------------------------------------------------------------------------

GREY, RANGE = 0.25, (-2.0, 2.0)  # deviation of a pixel from its image's level; of the values
LAWS = {  # of the level: weight, mean and deviation of each component
    "gaussian": [(1.0, 0.0, 0.3)],
    "mixture": [(0.3, -0.4, 0.1), (0.7, 0.4, 0.1)],
}


def of_one_level(law, count, rng):
    """Images ``[count, 8, 8]``: a level for all of it, and noise of every pixel."""
    which = rng.choice(len(law), count, p=[weight for weight, _, _ in law])
    _, means, deviations = np.array(law).T
    levels = rng.normal(means[which], deviations[which])
    return (levels[:, None, None] + rng.normal(0, GREY, (count, 8, 8))).astype(np.float32)


def posterior(law, known, hidden):
    """Mean and variance of the mean of so many hidden pixels, given the values of those that are known."""
    weights, means, variances = np.array(law).T ** np.array([[1], [1], [2]])
    n, average = len(known), known.mean() if len(known) else 0.0
    if n:
        spread = variances + GREY**2 / n
        weights = weights * np.exp(-((average - means) ** 2) / spread / 2) / np.sqrt(spread)
    each = 1 / (1 / variances + n / GREY**2)
    centre = each * (means / variances + n * average / GREY**2)
    mean = weights @ centre / weights.sum()
    return mean, weights @ (each + centre**2) / weights.sum() - mean**2 + GREY**2 / hidden


def beside_posterior(law, images, hidden, filled):
    """Completions ``[N, K, 8, 8]`` beside the exact posterior of the mean of an image's hidden pixels.

    The root mean square error of its mean; its deviation, and what that should be; the deviation of pixels; the levels
    ``[N, K]``.
    """
    drawn = [filled[i][:, hidden[i]] for i in range(len(images))]  # [K, pixels] of each image
    mean, variance = np.array([posterior(law, x[~h], h.sum()) for x, h in zip(images, hidden, strict=True)]).T
    levels = np.stack([each.mean(1) for each in drawn])
    off, spread = np.sqrt(((levels.mean(1) - mean) ** 2).mean()), np.sqrt(levels.var(1).mean())
    return off, spread, np.sqrt(variance.mean()), np.mean([each.std(1).mean() for each in drawn]), levels


# ---- an analytic prior -----------------------------------------------------------------------------------------------


def mixture() -> GaussianMixture:
    """Three unlike components in two dimensions."""
    covariances = torch.tensor(
        [[[0.05, 0.0], [0.0, 0.05]], [[0.10, 0.05], [0.05, 0.08]], [[0.04, -0.01], [-0.01, 0.02]]]
    )
    return GaussianMixture(
        torch.tensor([5.0, 3.0, 2.0]), torch.tensor([[-1.0, -1], [1, 0.8], [-0.6, 1.2]]), covariances
    )
