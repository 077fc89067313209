"""Fixtures of all tests: a tiny model, its checkpoint, and digits."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import CHROMIUM, OpenedPage, random_model, tiny_model, written_page
from inkfill import data
from inkfill.models.checkpoint import save_network
from inkfill.models.model import Model, Recipe
from inkfill.web.page import write_page

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


@pytest.fixture(scope="module")
def browser():
    """Chromium. Not for the session: playwright's event loop would be in the way of other tests."""
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "chromium is not installed"
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def opened(browser):
    """A function that opens a page: ``opened(path, fragment, **context)``."""
    pages = []

    def open_page(path, fragment="", **context):
        pages.append(OpenedPage(browser, path, fragment, **context))
        return pages[-1]

    yield open_page
    for page in pages:
        page.tab.context.close()


@pytest.fixture(scope="session")
def small_page(tmp_path_factory) -> Path:
    """The page of a small network with random weights, for grey images of 28x28 pixels; T = 200, 3 steps."""
    return written_page(tmp_path_factory.mktemp("page") / "page.html", random_model("grey"))


@pytest.fixture(scope="session")
def shipped_page(tmp_path_factory) -> Path:
    """The page of the shipped weights."""
    return write_page("mnist", tmp_path_factory.mktemp("page") / "page.html")


def pytest_terminal_summary(terminalreporter) -> None:
    """What tests measured (``record_property("figures", ...)``) is printed at the end, one line each."""
    reports = [report for each in ("passed", "failed") for report in terminalreporter.stats.get(each, [])]
    lines = [value for report in reports for name, value in report.user_properties if name == "figures"]
    if lines:
        terminalreporter.section("figures")
        for line in sorted(lines):
            terminalreporter.line(line)
