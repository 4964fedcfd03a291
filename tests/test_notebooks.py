"""Every notebook runs top to bottom (`pytest -m notebook`); in git they carry no outputs."""

import json
import os
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
each = pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)


@each
def test_no_outputs_in_git(path):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.slow
@pytest.mark.notebook
@each
def test_runs_top_to_bottom(path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="notebooks run with the extra 'test'")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setitem(os.environ, "XLA_FLAGS", "")
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=3000, resources={"metadata": {"path": FOLDER}}).execute()
