"""The notebooks run from the first cell to the last with little training, and define no algorithm of their own."""

import os

import pytest

from helpers import ROOT

FOLDER = ROOT / "notebooks"


@pytest.mark.check
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebook(path, tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("INKFILL_NOTEBOOK_MINUTES", "0.1")
    monkeypatch.setenv("INKFILL_NOTEBOOK_COUNT", "8")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=dict(os.environ))
    pictures = sum("image/png" in o.get("data", {}) for c in notebook.cells for o in c.get("outputs", []))
    assert pictures >= {"inpainting": 8, "methods": 3, "one-evaluation": 6}[path.stem]
    assert not any("class " in c.source for c in notebook.cells if c.cell_type == "code")
