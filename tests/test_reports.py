"""The pages of reports/ hold the tables of their stored data, and every planted bug applies to the source."""

import importlib
import shutil

import pytest

from helpers import ROOT

REPORTS = ROOT / "reports"
PAGES = {
    "results": "page", "posteriors": "page", "posteriors_images": "page", "few": "page", "speed": "main",
    "data_size": "page", "damaged": "page", "fields": "page", "browser": "page", "image_types": "page",
    "other_libraries": "page", "fault_injection": "page",
}  # fmt: skip


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(REPORTS)
    return importlib.import_module


@pytest.mark.parametrize("script", PAGES)
def test_a_page_holds_the_tables_of_its_data(script, scripts, tmp_path, monkeypatch):
    pytest.importorskip("playwright" if script == "browser" else "skimage")
    module = scripts(script)
    copy = tmp_path / "reports"
    shutil.copytree(REPORTS, copy, ignore=shutil.ignore_patterns("*.png", "*.py", "__pycache__"))
    monkeypatch.setattr(scripts("common"), "REPORTS", copy)
    getattr(module, PAGES[script])()
    for page in copy.glob("*.md"):
        assert page.read_text() == (REPORTS / page.name).read_text()


def test_every_planted_bug_applies(scripts):
    bugs = list(scripts("fault_injection").bugs())
    assert len({bug.about for bug in bugs}) == len(bugs) == 72
    for bug in bugs:
        assert bug.applied() != (ROOT / "src" / "inkfill" / bug.file).read_text()
