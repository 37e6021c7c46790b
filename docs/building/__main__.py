"""Build the site: `python -m docs.building [--without-outputs] [FOLDER]`, by `make docs`.

Pages from Markdown, the API reference from docstrings, the notebooks with what they draw. A dead
link, or anything that a page would fetch from a network, fails the build.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import nbformat
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs
from pygments.formatters import HtmlFormatter

from docs.building import ROOT
from docs.building.links import dead_links, unreachable
from docs.building.notebooks import executed, notebook_html, notebook_text, notebooks
from docs.building.pages import CONTENTS, FILES, Text, dead_in, texts, where
from docs.building.reference import write_reference

HERE = Path(__file__).parent


def build(site: Path, *, outputs: bool = True) -> list[str]:
    """Build the site into a folder, which is emptied first.

    Args:
        site: The folder.
        outputs: Whether the notebooks are run, and shown with what they draw.

    Returns:
        What is wrong with it, one line each.
    """
    shutil.rmtree(site, ignore_errors=True)
    (site / "notebooks").mkdir(parents=True)
    words = texts()
    read = {f"notebooks/{path.name}": path for path in notebooks()}
    opened = {
        source: executed(path) if outputs else nbformat.read(path, as_version=4)
        for source, path in read.items()
    }
    words |= {source: notebook_text(each, source) for source, each in opened.items()}
    dead = [line for text in words.values() for line in dead_in(text, words)]
    beside = [*(ROOT / "docs").glob("*.png"), *(ROOT / "docs" / "tables").rglob("*.csv")]
    files = [*FILES, *(str(path.relative_to(ROOT)) for path in sorted(beside))]
    pages = {source: where(source) for source in [*words, *files]}
    for source in files:
        (site / where(source)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / source, site / where(source))
    write_reference(site / "api")
    _write_looks(site)
    for source, text in words.items():
        body = (
            notebook_html(opened[source], source, pages) if source in opened else text.html(pages)
        )
        _write_page(site, text, body, words)
    return [*dead, *dead_links(site), *(f"{page}: not reachable" for page in unreachable(site))]


def _write_looks(site: Path) -> None:
    style = (HERE / "site.css").read_text() + HtmlFormatter().get_style_defs("pre")
    (site / "site.css").write_text(style)
    (site / "plotly.min.js").write_text(get_plotlyjs())


def _write_page(site: Path, text: Text, body: str, words: Mapping[str, Text]) -> None:
    own = where(text.source)
    bar = {
        **CONTENTS, "Notebooks": tuple(each for each in words if each.startswith("notebooks/"))
    }  # fmt: skip
    order = [source for section in bar.values() for source in section]
    place = order.index(text.source)
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("page.html.jinja2").render(
        root="../" * own.count("/"), own=text.source, text=text, body=body, bar=bar, words=words,
        where=where, before=order[place - 1] if place else "",
        after=order[place + 1] if place + 1 < len(order) else "",
        drawn="plotly" in body and "Plotly.newPlot" in body,
    )  # fmt: skip
    (site / own).write_text(page)


def main() -> int:
    """Build what the command line asks for; 1 if something is wrong with it."""
    parser = argparse.ArgumentParser(prog="python -m docs.building")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "docs/site")
    parser.add_argument(
        "--without-outputs", action="store_true", help="do not run the notebooks: code alone"
    )
    asked = parser.parse_args()
    wrong = build(asked.folder, outputs=not asked.without_outputs)
    print("\n".join(wrong) or f"open {asked.folder / 'index.html'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
