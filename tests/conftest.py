"""Shared by the tests: a small trained-looking model that is quick to build, and digits to work on."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from inkfill import data
from inkfill.models.checkpoint import save_network
from inkfill.models.model import Model, Recipe
from inkfill.core.unet import UNet, UNetConfig

torch.set_num_threads(1)  # the suite runs on as many processes as there are cores
TINY = UNetConfig(widths=(16, 32), blocks=(1, 1), head_width=16, time_width=32)


def tiny_model(dtype: torch.dtype = torch.float32) -> Model:
    """Random weights everywhere, so that the output depends on every input."""
    net = UNet(TINY)
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.7 / parameter[0].numel() ** 0.5, generator=generator)
    return Model(net, Recipe(), dtype=dtype)


@pytest.fixture
def model() -> Model:
    return tiny_model()


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """The weights of ``model``, in a file."""
    path, net = tmp_path / "tiny.safetensors", tiny_model().net
    save_network(path, net, net.state_dict(), Recipe().to_json())
    return path


@pytest.fixture(scope="session")
def digits() -> np.ndarray:
    """64 rendered digits, uint8 [64, 28, 28]."""
    return data.rendered(64, 1, 1).train


@pytest.fixture(scope="session")
def hostile() -> list[Path]:
    """Files found by fuzzing, where they are at hand: beside the data that ``INKFILL_DATA`` names."""
    folder = Path(os.environ.get("INKFILL_DATA", "."), "..", "hostile")
    return sorted(path for path in folder.glob("*") if path.suffix != ".md") if folder.is_dir() else []


def pytest_terminal_summary(terminalreporter) -> None:
    """What tests measured (``record_property("figures", ...)``) is printed at the end, one line each."""
    reports = [report for each in ("passed", "failed") for report in terminalreporter.stats.get(each, [])]
    lines = [value for report in reports for name, value in report.user_properties if name == "figures"]
    if lines:
        terminalreporter.section("figures")
        for line in sorted(lines):
            terminalreporter.line(line)
