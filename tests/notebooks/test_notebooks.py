"""The notebooks, run from top to bottom; they see nothing but the public API."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from docs.building.notebooks import notebooks, run_notebook

NOTEBOOKS = notebooks()


def code(path: Path) -> str:
    """All code cells of a notebook."""
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "code")


LARGEST = 10_000_000
"""Bytes that a saved notebook may have: beyond, figures stop rendering in common viewers."""


def test_there_are_notebooks() -> None:
    assert [path.stem[:2] for path in NOTEBOOKS] == ["00", "01", "02", "03", "04", "05"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_at_most_fifteen_cells_of_code(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert sum(cell.cell_type == "code" for cell in cells) <= 15
    if path.stem[:2] in ("00", "05"):  # those that a newcomer opens
        assert len(cells) <= 15


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_output_and_imports_nothing_private(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert all(not cell.get("outputs") for cell in cells)
    names = [
        alias.name for node in ast.walk(ast.parse(code(path)))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("interp")
        for alias in node.names
    ]  # fmt: skip
    assert names and not any(name.startswith("_") for name in names)
    assert not re.search(r"/(tmp|home|root|work)/", code(path))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path) -> None:
    notebook = run_notebook(path, timeout=900)  # kept, so that `make docs` need not run it again
    figures = [
        output for cell in notebook.cells for output in cell.get("outputs", ())
        if {"image/png", "application/vnd.plotly.v1+json"} & set(output.get("data", ()))
    ]  # fmt: skip
    assert len(figures) >= 4
    assert len(nbformat.writes(notebook).encode()) < LARGEST
