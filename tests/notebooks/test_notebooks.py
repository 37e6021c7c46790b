"""The notebooks, run from top to bottom; they see nothing but the public API."""

import ast
import inspect
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import get_args

import nbformat
import pytest

import interp
from docs.building.notebooks import notebooks, run_notebook

NOTEBOOKS = notebooks()
WINGS = ("models", "probes", "circuits")


def code(path: Path) -> str:
    """All code cells of a notebook."""
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "code")


LARGEST = 10_000_000
"""Bytes that a saved notebook may have: beyond, figures stop rendering in common viewers."""


def test_there_are_notebooks() -> None:
    assert [path.stem[:2] for path in NOTEBOOKS] == ["00", "01", "02", "03", "04", "05", "06"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_short_and_ends_with_what_to_do(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert len(cells) <= 15
    assert all(len(c.source.splitlines()) <= 12 for c in cells if c.cell_type == "code")
    headings = [c.source for c in cells if c.cell_type == "markdown" and c.source.startswith("## ")]
    assert 'fter "unknown"' in headings[-1].splitlines()[0]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_output_and_imports_the_public_faces(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert all(not cell.get("outputs") for cell in cells)
    imported = {
        node.module if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(ast.parse(code(path)))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    ours = {str(name) for name in imported if str(name).split(".")[0] == "interp"}
    assert "interp" in ours and ours <= {"interp", *(f"interp.{wing}" for wing in WINGS)}
    assert not re.search(r"/(tmp|home|root|work)/", code(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_calls_is_there_and_takes_the_keywords(path: Path) -> None:
    faces = {wing: import_module(f"interp.{wing}") for wing in WINGS} | {"interp": interp}
    tree, words = ast.parse(code(path)), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            words[node.func] = {each.arg for each in node.keywords if each.arg}
    named = [
        (faces[node.value.id], node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in faces
    ]
    assert named
    for face, node in named:
        assert node.attr in dir(face), ast.unparse(node)
        if words.get(node):
            assert words[node] <= keywords(getattr(face, node.attr)), ast.unparse(node)


def keywords(function: Callable[..., object]) -> set[str]:
    """The keywords that a function takes, those of its `**options` among them."""
    taken = inspect.signature(function).parameters
    more = [each.annotation for each in taken.values() if each.kind is each.VAR_KEYWORD]
    return {*taken}.union(*(get_args(each)[0].__annotations__ for each in more))


LONG = ("00", "02", "03", "04", "05", "06")
"""Notebooks made of calls that examples and tests make too; `make test-all` and `make docs` run
them. What is left is the shortest, so that one is run wherever tests are."""

RUN = [
    pytest.param(path, marks=pytest.mark.long if path.stem[:2] in LONG else (), id=path.stem)
    for path in NOTEBOOKS
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("path", RUN)
def test_a_notebook_runs(path: Path) -> None:
    notebook = run_notebook(path, timeout=900)  # kept, so that `make docs` need not run it again
    figures = [
        output for cell in notebook.cells for output in cell.get("outputs", ())
        if {"image/png", "application/vnd.plotly.v1+json"} & set(output.get("data", ()))
    ]  # fmt: skip
    assert len(figures) >= 4
    assert len(nbformat.writes(notebook).encode()) < LARGEST
