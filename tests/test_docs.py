"""The site: no dead link, no page that nothing leads to, nothing fetched from a network."""

import re
from pathlib import Path

import nbformat
import pytest

from docs.building.__main__ import build
from docs.building.links import Page, dead_links, unreachable
from docs.building.notebooks import notebook_html, notebook_text, notebooks
from docs.building.pages import CONTENTS, Text, dead_in, slug, texts, where

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def words() -> dict[str, Text]:
    """Every page and notebook, parsed."""
    read = {f"notebooks/{path.name}": nbformat.read(path, as_version=4) for path in notebooks()}
    return texts() | {source: notebook_text(each, source) for source, each in read.items()}


def test_every_page_is_in_the_navigation_bar() -> None:
    listed = {source for section in CONTENTS.values() for source in section}
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert pages | {"README.md", "CONTRIBUTING.md", "CHANGELOG.md"} == listed


def test_no_link_of_a_page_or_notebook_is_dead(words: dict[str, Text]) -> None:
    assert [line for text in words.values() for line in dead_in(text, words)] == []


def test_every_page_can_be_reached_from_readme(words: dict[str, Text]) -> None:
    waiting, seen = ["README.md"], set()
    while waiting:
        source = waiting.pop()
        if source in words and source not in seen:
            seen.add(source)
            folder = (ROOT / source).parent
            paths = [(folder / link.partition("#")[0]).resolve() for link in words[source].links]
            waiting += [str(path.relative_to(ROOT)) for path in paths if ROOT in path.parents]
    assert set(words) - seen == {"CHANGELOG.md"}  # that the site's bar leads to


def test_a_dead_link_of_a_page_is_found(words: dict[str, Text]) -> None:
    text = Text.of("[a](truth.md#no-such) [b](nothing.md) [c](truth.md#by-rung)", "docs/new.md")
    assert dead_in(text, words) == ["docs/new.md: truth.md#no-such", "docs/new.md: nothing.md"]


def test_what_is_wrong_with_a_site_is_found(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        '<a href="b.html#there">1</a><a href="b.html#gone">2</a><a href="c.html">3</a>'
        '<a href="https://example.org">4</a><img src="no.png"><a href="#own">5</a>'
    )
    (tmp_path / "b.html").write_text(
        '<p id="there"></p><script src="https://example.org/x.js"></script>'
        '<style>a { background: url("//example.org/x.png") }</style>'
    )
    (tmp_path / "alone.html").write_text("<p>nothing leads here</p>")
    assert dead_links(tmp_path) == [
        "b.html: https://example.org/x.js",
        "b.html: //example.org/x.png",
        "index.html: b.html#gone",
        "index.html: c.html",
        "index.html: index.html#own",
        "index.html: no.png",
    ]
    assert unreachable(tmp_path) == ["alone.html"]


def test_headings_have_the_anchors_that_github_gives() -> None:
    text = Text.of("# One `two`, three\n\n## Same\n\n## Same\n", "docs/new.md")
    assert text.anchors == {"one-two-three", "same", "same-1"}
    assert text.title == "One two, three"


def test_an_anchor_in_the_text_can_be_linked_to() -> None:
    source = "docs/glossary.md"
    text = Text.of('<a id="term"></a>\n**term**: a word. [see](#term) [not](#other)', source)
    assert dead_in(text, {source: text}) == [f"{source}: #other"]
    assert 'id="term"' in text.html({})


def test_every_term_of_the_glossary_has_one_anchor(words: dict[str, Text]) -> None:
    text = (ROOT / "docs/glossary.md").read_text()
    terms = {slug(term) for bold in re.findall(r"\*\*(.+?)\*\*", text) for term in bold.split(", ")}
    named = re.findall(r'<a id="([^"]+)"></a>', text)
    assert len(terms) > 50 and sorted(named) == sorted(terms)
    assert terms <= words["docs/glossary.md"].anchors


def test_outputs_of_a_notebook_are_drawn_and_machine_paths_left_out() -> None:
    figure = {"data": [{"type": "scatter", "y": [1, 2]}], "layout": {}}
    outputs = [
        {"output_type": "display_data", "data": {"application/vnd.plotly.v1+json": figure}},
        {"output_type": "display_data", "data": {"image/png": "QUJD", "text/plain": "<Image>"}},
        {"output_type": "stream", "name": "stdout", "text": f"\x1b[1mopen\x1b[0m {ROOT}/a <b>"},
        {"output_type": "stream", "name": "stderr", "text": "50 %"},
    ]
    cells = [
        {"cell_type": "markdown", "source": "# T\n\n[x](01_open_a_clip.ipynb)"},
        {"cell_type": "code", "source": "1 + 1", "outputs": outputs},
    ]
    notebook = nbformat.from_dict({"cells": cells})
    source = "notebooks/01_open_a_clip.ipynb"
    html = notebook_html(notebook, "notebooks/00_the_tour.ipynb", {source: where(source)})
    assert 'href="01_open_a_clip.html"' in html and "Plotly.newPlot" in html
    assert "data:image/png;base64,QUJD" in html and "<pre>open a &lt;b&gt;</pre>" in html
    assert "50 %" not in html and "&lt;Image&gt;" not in html and str(ROOT) not in html


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_site_is_built_whole(tmp_path: Path) -> None:
    assert build(tmp_path / "site", outputs=False) == []
    index = Page.of(tmp_path / "site/index.html")
    assert {"findings.html", "glossary.html", "api/interp.html"} <= set(index.links)
    pages = {path.relative_to(tmp_path / "site").as_posix() for path in tmp_path.rglob("*.html")}
    assert {"notebooks/00_the_tour.html", "api/interp/circuits.html"} <= pages
    circuits = (tmp_path / "site/api/interp/circuits.html").read_text()
    assert re.search(r'id="path_patch"', circuits)
