"""Helpers of all tests: small networks, the command line in this process, known posteriors, the browser page."""

import importlib.util
import os
import re
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inkfill.app import cli
from inkfill.core.denoiser import Observation
from inkfill.core.rng import SampleNoise
from inkfill.core.samplers import spaced_timesteps
from inkfill.core.schedule import Schedule
from inkfill.core.unet import UNet, UNetConfig
from inkfill.errors import InputError
from inkfill.evaluation.analytic import AnalyticPrior, GaussianMixture
from inkfill.methods import Task
from inkfill.models.checkpoint import save_network
from inkfill.models.model import Model, Recipe
from inkfill.web.page import page

ROOT = Path(__file__).parent.parent
TINY = UNetConfig(widths=(16, 32), blocks=(1, 1), head_width=16, time_width=32)


def tiny_model(dtype: torch.dtype = torch.float32) -> Model:
    """Random weights everywhere, so that the output depends on every input."""
    model = model_of(1)
    return Model(model.net, Recipe(), dtype=dtype)


def model_of(channels: int, size: tuple[int, int] = (28, 28), **recipe) -> Model:
    """A tiny model with random weights for images of ``channels`` channels."""
    net, generator = UNet(replace(TINY, channels=channels)), torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.7 / parameter[0].numel() ** 0.5, generator=generator)
    return Model(net, Recipe(channels=channels, image_size=size, **recipe), dtype=torch.float32)


def saved(model: Model, path: Path) -> Path:
    """The weights of a model, written to ``path``."""
    save_network(path, model.net, model.net.state_dict(), model.recipe.to_json())
    return path


def images_of(dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Random images over all values of a dtype; floats from 0 to 1."""
    rng, kind = np.random.default_rng(seed), np.dtype(dtype).kind
    if kind == "f":
        return rng.random(shape).astype(dtype)
    return rng.integers(0, 2 if kind == "b" else np.iinfo(dtype).max + 1, shape).astype(dtype)


def incomplete(images: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images as floats with half of their pixels NaN, and the mask of these."""
    mask = np.random.default_rng(seed).random(images.shape) < 0.5
    return np.where(mask, np.nan, images / np.float32(255)).astype(np.float32), mask


def observed_alike(filled: np.ndarray, images: np.ndarray, mask: np.ndarray) -> bool:
    """Whether the observed pixels of all samples ``[N, K, ...]`` are those of the images, bit for bit."""
    observed = np.broadcast_to((~mask)[:, None] if images.ndim == 3 else (~mask)[:, None, ..., None], filled.shape)
    expected = np.broadcast_to(images[:, None], filled.shape)
    return filled.dtype == images.dtype and filled[observed].tobytes() == expected[observed].tobytes()


def idx(shape=(3, 28, 28), kind=8, body=None, extra=b"") -> bytes:
    """An IDX file; by default of three black digits."""
    body = bytes(int(np.prod(shape))) if body is None else body
    return bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + body + extra


def must_refuse(call, *words) -> str:
    """The message of the InputError that ``call`` raises: one line that has all the words."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


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


# ---- analytic priors -------------------------------------------------------------------------------------------------


def mixture() -> GaussianMixture:
    """Three unlike components in two dimensions."""
    covariances = torch.tensor(
        [[[0.05, 0.0], [0.0, 0.05]], [[0.10, 0.05], [0.05, 0.08]], [[0.04, -0.01], [-0.01, 0.02]]]
    )
    return GaussianMixture(
        torch.tensor([5.0, 3.0, 2.0]), torch.tensor([[-1.0, -1], [1, 0.8], [-0.6, 1.2]]), covariances
    )


CORRELATED = GaussianMixture(
    torch.ones(1), torch.tensor([[0.2, -0.1, 0.3]]), torch.tensor([[[1.0, 0.6, 0.2], [0.6, 0.8, 0.1], [0.2, 0.1, 0.5]]])
)


def independent(*variances: float, means: tuple[float, ...] | None = None) -> GaussianMixture:
    """One Gaussian with independent pixels."""
    centre = torch.zeros(1, len(variances)) if means is None else torch.tensor([means])
    return GaussianMixture(torch.ones(1), centre, torch.diag(torch.tensor(variances))[None])


def analytic_task(prior, known, y, n, steps, seed=0, sampler="ancestral", noise=0.0, watch=None) -> Task:
    """``n`` rows of one image ``[1, 1, d]`` under an analytic prior, with the pixels ``y`` observed where ``known``."""
    schedule = Schedule.named("cosine")
    known = torch.tensor(known).view(1, 1, 1, -1).expand(n, -1, -1, -1)
    pixels = torch.where(known, torch.tensor(y, dtype=torch.float32).view(1, 1, 1, -1), 0.0).expand(known.shape)
    streams = SampleNoise(seed, np.arange(n), np.zeros(n, int), known.shape[1:])
    observation = Observation(pixels, known, noise)
    timesteps = spaced_timesteps(schedule.T, steps)
    return Task(AnalyticPrior(prior, schedule), observation, streams, timesteps, sampler, watch)


def draws(run, task) -> torch.Tensor:
    """The samples of a method, float64 ``[n, d]``; exact observations put in."""
    with torch.no_grad():
        x0 = run(task)
    if not task.observation.noise:
        x0 = torch.where(task.observation.known, task.observation.pixels, x0)
    return x0.flatten(1).double()


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
