"""The tutorials run from the first cell to the last, their pages show what they draw, and they lie in git without outputs."""

import json
import re
import runpy
from pathlib import Path

import nbformat
import pytest

pages = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "tutorial_pages.py"))
TUTORIALS = pages["TUTORIALS"]
FIGURES = {"hooks-to-patching": 2, "note-in-ten-cells": 1, "one-image": 2, "own-data-own-probe": 0}


def test_there_are_four():
    assert [path.stem for path in TUTORIALS] == sorted(FIGURES)


@pytest.fixture
def quick_kernel(python, tmp_path, monkeypatch):
    """Jupyter's kernel with the Python that starts in no time."""
    spec = tmp_path / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs_and_its_page_shows_what_it_draws(path, quick_kernel):
    page = pages["as_page"](pages["executed"](path), path.stem)
    assert len(re.findall(r'Plotly\.newPlot\("figure-\d", {"data": \[{', page)) == FIGURES[path.stem]
    script = pages["SCRIPT"]
    assert page.count(f'<script src="{script}">') == (FIGURES[path.stem] > 0)
    assert '<pre class="shown">' in page
    assert "Loading weights" not in page  # a bar of a library


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_is_kept_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)
