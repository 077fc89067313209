"""Fixtures of all tests: a tiny model, its checkpoint, and digits."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import tiny_model
from inkfill import data
from inkfill.models.checkpoint import save_network
from inkfill.models.model import Model, Recipe

torch.set_num_threads(1)  # the suite runs on as many processes as there are cores


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


@pytest.fixture
def few_rendered(monkeypatch) -> Callable[[], data.Dataset]:
    """The data set ``rendered`` with 40 training and 40 test digits instead of 22,000, which take seconds to draw."""

    def few() -> data.Dataset:
        return data.rendered(40, 8, 40)

    monkeypatch.setitem(data.datasets.DATASETS, "rendered", few)
    return few


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
