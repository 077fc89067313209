"""examples/ddpm_inpainting.py: it runs, is short, stands alone, and agrees with the package."""

import ast
import gzip
import importlib.util
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from inkfill.core.schedule import Schedule
from inkfill.evaluation.metrics import crps

EXAMPLE = Path(__file__).parents[2] / "examples" / "ddpm_inpainting.py"
SCHEDULE = Schedule.named("cosine", 1000)


@pytest.fixture(scope="module")
def example():
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("ddpm_inpainting", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_idx(path: Path, images: np.ndarray) -> None:
    """Write images [N, H, W] as a gzipped IDX file."""
    header = b"\x00\x00\x08\x03" + np.array(images.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + images.tobytes()))


@pytest.mark.check
def test_runs_from_data_to_score_and_figure(tmp_path, digits):
    """Tiny training as a subprocess: the figure is written, and the score is the last line."""
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", digits[:56])
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", digits[56:])
    figure = tmp_path / "new" / "figure.png"
    command = [sys.executable, EXAMPLE, "--data", tmp_path, "--out", figure, "--steps", "2"]
    environment = {**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert figure.read_bytes().startswith(b"\x89PNG")
    number = r"\d\.\d{4}"
    expected = rf"half:left CRPS {number} \(training mean {number}, nearest digits {number}\)"
    assert re.fullmatch(expected, done.stdout.splitlines()[-1])


def test_is_one_file_of_200_lines():
    """At most 200 lines, importing only torch, numpy, matplotlib and the standard library."""
    text = EXAMPLE.read_text()
    assert len(text.splitlines()) <= 200
    nodes = list(ast.walk(ast.parse(text)))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    allowed = {"torch", "numpy", "matplotlib", *sys.stdlib_module_names}
    assert {name.partition(".")[0] for name in imported} <= allowed


def test_alpha_bar_is_that_of_the_package(example):
    torch.testing.assert_close(example.ALPHA_BAR, SCHEDULE.alpha_bar, rtol=1e-12, atol=0)


def noised(seed: int = 0) -> tuple[torch.Tensor, ...]:
    """x0, mask, t and eps of eight images, and a network output."""
    generator = torch.Generator().manual_seed(seed)
    x0, eps, output = torch.randn(3, 8, 1, 28, 28, generator=generator)
    mask = torch.rand(8, 1, 28, 28, generator=generator) < 0.4
    t = torch.tensor([1, 2, 50, 300, 500, 800, 999, 1000])
    return x0, mask, t, eps, output


def test_loss_is_the_noise_error_over_missing_pixels(example):
    """The network is given x_t of eq. 4 and observed pixels only; its noise error is averaged over missing pixels."""
    x0, mask, t, eps, output = noised()

    def net(x_t, observed, given_mask, given_t):
        torch.testing.assert_close(x_t, SCHEDULE.q_sample(x0, t, eps))
        assert torch.equal(observed, torch.where(mask, 0, x0))
        assert torch.equal(given_mask, mask)
        assert torch.equal(given_t, t)
        return output

    torch.testing.assert_close(example.loss(net, x0, mask, t, eps), ((eps - output)[mask] ** 2).mean())


def test_network_returns_the_noise_of_its_v(example):
    """The last layer's output is read as v: with a constant head, eps is the package's eps_from_v."""
    x0, mask, t, eps, _ = noised()
    net = example.UNet()
    torch.nn.init.zeros_(net.head.weight)
    torch.nn.init.constant_(net.head.bias, 0.5)
    x_t = SCHEDULE.q_sample(x0, t, eps)
    expected = SCHEDULE.eps_from_v(x_t, t, torch.full_like(x_t, 0.5))
    torch.testing.assert_close(net(x_t, x0 * ~mask, mask, t), expected)


def test_samples_keep_observed_pixels_and_find_the_only_answer(example):
    """With the exact noise for a known x0, the reverse process ends in x0; observed pixels are bit for bit the same."""
    x0, mask, *_ = noised()
    x0 = x0.clamp(-1, 1)

    def net(x_t, observed, mask, t):
        return SCHEDULE.eps_from_x0(x_t, t, x0)

    chain = example.sample(net, x0, mask)
    assert all(torch.equal(x_t[~mask], x0[~mask]) for x_t in chain)
    torch.testing.assert_close(chain[-1].float(), x0, atol=2e-3, rtol=0)


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_reverse_step_is_the_posterior_of_the_package(example, monkeypatch, noise):
    """With all noise equal to 0, each step gives the mean of q(x_s | x_t, x_0); with 1, one standard deviation more."""
    x0, mask, *_ = noised()
    x0 = x0.clamp(-1, 1)
    monkeypatch.setattr(torch, "randn_like", lambda like: torch.full_like(like, noise))
    chain = example.sample(lambda x_t, observed, mask, t: SCHEDULE.eps_from_x0(x_t, t, x0), x0, mask)
    for i, (t, s) in enumerate(pairwise(example.TIMESTEPS)):
        mean, variance = SCHEDULE.q_posterior(x0, chain[i], int(t), int(s))
        expected = torch.where(mask, mean + noise * variance.sqrt(), x0)
        torch.testing.assert_close(chain[i + 1].float(), expected.float(), atol=2e-3, rtol=0)


def test_sample_does_not_read_masked_pixels(example):
    x0, mask, *_ = noised()
    net = example.UNet().eval()
    results = []
    for hidden in (0.0, 1.0):
        torch.manual_seed(0)
        results.append(example.sample(net, torch.where(mask, hidden, x0), mask)[-1])
    assert torch.equal(*results)


def test_crps_is_that_of_the_package(example):
    rng = np.random.default_rng(0)
    truth, samples = rng.integers(0, 256, (5, 28, 28), np.uint8), rng.integers(0, 256, (5, 4, 28, 28), np.uint8)
    mask = example.draw_masks(["half:left"] * 5, rng)
    ours = example.crps(torch.from_numpy(samples / 127.5 - 1), torch.from_numpy(truth / 127.5 - 1)[:, None], mask)
    assert ours == pytest.approx(crps(truth, samples, mask[:, 0].numpy()).mean(), rel=1e-5)


def test_masks_are_their_families(example):
    rng = np.random.default_rng(0)
    left, right, top, bottom, everything, box, pixels = example.draw_masks(example.FAMILIES, rng)[:, 0]
    assert left[:, :14].all()
    assert not left[:, 14:].any()
    assert torch.equal(right, ~left)
    assert torch.equal(top, left.T)
    assert torch.equal(bottom, ~top)
    assert 0 < box.sum() < 28 * 28
    assert torch.equal(box, box.any(1)[:, None] & box.any(0))
    assert box.any(0).sum() < 22
    assert box.any(1).sum() < 22
    assert 0 < pixels.sum() < 28 * 28
    assert everything.all()
