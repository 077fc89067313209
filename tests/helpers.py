"""Helpers of all tests: small networks, the command line in this process, known posteriors, the browser page."""

import importlib.util
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inkfill.app import cli
from inkfill.core.unet import UNet, UNetConfig
from inkfill.evaluation.analytic import GaussianMixture
from inkfill.models.model import Model, Recipe
from inkfill.web.page import page

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


# ---- the browser page ------------------------------------------------------------------------------------------------

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(  # in CI a missing browser is a failure
    not os.environ.get("CI") and not (CHROMIUM and importlib.util.find_spec("playwright")),
    reason="no chromium, or no playwright: pip install inkfill[page]",
)
PAGE_NETS = {  # name: architecture, image size
    "grey": (UNetConfig(widths=(16, 32), head_width=16, time_width=32), (28, 28)),
    "colour": (UNetConfig(channels=3, widths=(16, 64), blocks=(2, 1), head_width=32, time_width=64), (25, 38)),
    "deep": (UNetConfig(widths=(16, 20, 12, 32), blocks=(1, 2, 1, 1), head_width=16, time_width=32), (26, 37)),
    "reflected": (UNetConfig(widths=(16, 20, 12, 32), blocks=(1, 1, 1, 1), head_width=16, time_width=32), (8, 9)),
    "few": (UNetConfig(widths=(32, 32), blocks=(1, 2), head_width=32, time_width=32, latent=True), (8, 11)),
}


def random_net(config, seed=0):
    """A network without a zero weight, so that every part affects the output."""
    net, generator = UNet(config, seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            fan = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * fan**-0.5)
    return net.eval().requires_grad_(False)


def random_model(name):
    """A model of ``PAGE_NETS`` with random weights."""
    config, size = PAGE_NETS[name]
    recipe = Recipe(channels=config.channels, image_size=size, T=200, schedule="linear", sampling_steps=3)
    if config.latent:
        recipe = replace(recipe, objective="few", sampling_steps=2)
    return Model(random_net(config), recipe, dtype=torch.float32)


def written_page(path, model, plain=False, **settings):
    """Write the page of a model; ``plain`` makes it use the kernels without relaxed SIMD."""
    text = page(model, **settings)
    path.write_text(text.replace('id="about">{', 'id="about">{"kernels": "plain", ', 1) if plain else text)
    return path


class OpenedPage:
    """A page in the browser, with its requests and its errors."""

    def __init__(self, browser, path, fragment="", **context):
        self.tab = browser.new_context(**context).new_page()
        self.errors, self.requests = [], []
        self.tab.on("console", lambda message: self.errors.append(message.text))
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.goto(f"file://{path}{fragment}")

    def status(self, words):
        """Wait until the status line contains ``words``."""
        from playwright.sync_api import expect

        expect(self.tab.locator("#said")).to_contain_text(words, timeout=60_000)
        return self

    def done(self):
        """Wait for the samples."""
        return self.status("samples, ")

    def state(self, name):
        """An array of the page's state: pixels or mask."""
        return self.tab.evaluate(f"Array.from(state.{name})")
