"""Notebooks: run once for each state of notebook and code, and rendered with their figures."""

import hashlib
import re
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import nbformat
import plotly.io as pio
from nbclient import NotebookClient

from docs.building import ROOT
from docs.building.pages import Text, highlighted

RUNS = ROOT / "build/notebooks"
"""Where executed notebooks are kept, by the hash of what they depend on."""


def notebooks() -> list[Path]:
    """The committed notebooks, in reading order."""
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


def run_notebook(path: Path, *, timeout: int = 3600) -> nbformat.NotebookNode:
    """Run a notebook from top to bottom, and keep what came out for the site.

    Args:
        path: The notebook.
        timeout: Seconds that one cell may take.

    Returns:
        The notebook with its outputs.
    """
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(ROOT)}}
    NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources=where).execute()
    RUNS.mkdir(parents=True, exist_ok=True)
    for old in RUNS.glob(f"{path.stem}-*.ipynb"):
        old.unlink()
    nbformat.write(notebook, _kept(path))
    return notebook


def executed(path: Path) -> nbformat.NotebookNode:
    """A notebook with its outputs: those kept, if neither it nor the code has changed since."""
    kept = _kept(path)
    return nbformat.read(kept, as_version=4) if kept.exists() else run_notebook(path)


def _kept(path: Path) -> Path:
    digest = hashlib.sha256(path.read_bytes())
    for folder in ("interp", "models", "probes", "circuits"):
        for source in sorted((ROOT / folder).rglob("*.py")):
            digest.update(source.read_bytes())
    return RUNS / f"{path.stem}-{digest.hexdigest()[:16]}.ipynb"


def notebook_text(notebook: nbformat.NotebookNode, source: str) -> Text:
    """The words of a notebook, all its cells in one text: for its title, sections and links."""
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return Text.of("\n\n".join(cells), source)


def notebook_html(notebook: nbformat.NotebookNode, source: str, pages: Mapping[str, str]) -> str:
    """The cells of a notebook as HTML; the page that holds them loads plotly."""
    return "\n".join(
        Text.of(cell.source, source).html(pages) if cell.cell_type == "markdown" else _code(cell)
        for cell in notebook.cells
    )


def _code(cell: nbformat.NotebookNode) -> str:
    outputs = "\n".join(filter(None, map(_output, cell.get("outputs", ()))))
    shown = f'<div class="output" tabindex="0">{outputs}</div>' if outputs else ""
    return f"<pre><code>{highlighted(cell.source, 'python')}</code></pre>\n{shown}"


def _output(output: Mapping[str, Any]) -> str:
    if output["output_type"] == "stream":  # progress and warnings on stderr are no result
        return _plain(output["text"]) if output["name"] == "stdout" else ""
    data = output["data"]
    kind = next((each for each in SHOWN if each in data), None)
    return SHOWN[kind](data[kind]) if kind else ""


def _figure(data: Mapping[str, Any]) -> str:
    figure = {"data": data["data"], "layout": data["layout"]}
    return pio.to_html(
        figure, full_html=False, include_plotlyjs=False, config={"responsive": True},
        validate=False,
    )  # fmt: skip


def _picture(data: str) -> str:
    return f'<img alt="what the cell above draws" src="data:image/png;base64,{data.strip()}">'


def _plain(text: str) -> str:
    said = re.sub(r"\x1b\[[0-9;]*m", "", text.replace(f"{ROOT}/", ""))
    return f"<pre>{escape(said)}</pre>"


SHOWN: Mapping[str, Callable[[Any], str]] = {
    "application/vnd.plotly.v1+json": _figure,
    "image/png": _picture,
    "text/html": str,
    "text/plain": _plain,
}
"""How each kind of output is drawn; of several, the first here."""
