"""Markdown pages become HTML: links follow the files to where the site has them."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from docs.building import ROOT

CONTENTS: Mapping[str, tuple[str, ...]] = {
    "Start": ("README.md", "docs/in_python.md", "docs/command.md", "docs/glossary.md"),
    "Results": (
        "docs/findings.md",
        "docs/evidence.md",
        "docs/truth.md",
        "docs/judging_methods.md",
        "docs/large_study.md",
        "docs/measured.md",
    ),
    "Guides": (
        "docs/bringing_your_own_data.md",
        "docs/coming_from_other_tools.md",
        "docs/training.md",
        "docs/scaling_out.md",
        "docs/from_embedded_to_yours.md",
        "docs/speed.md",
        "docs/pictures.md",
    ),
    "Project": ("docs/adding_things.md", "CONTRIBUTING.md", "CHANGELOG.md"),
}
"""Every page, in the order of the navigation bar."""

FILES = ("LICENSE", "CITATION.cff")
"""What the site holds as it is, beside the pictures of docs/."""


def where(source: str) -> str:
    """Where the site has a file of the repository; the file's own name, if it is no page.

    >>> where("docs/truth.md"), where("README.md"), where("notebooks/00_the_tour.ipynb")
    ('truth.html', 'index.html', 'notebooks/00_the_tour.html')
    """
    path = Path(source)
    if source == "README.md":
        return "index.html"
    if path.suffix == ".ipynb":
        return str(path.with_suffix(".html"))
    if path.suffix == ".md":
        return f"{path.stem.lower()}.html"
    if source.startswith("docs/tables/"):
        return source.removeprefix("docs/")
    return path.name if path.parent.name in ("docs", "") else source


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading.

    >>> slug("What `opens`, and how")
    'what-opens-and-how'
    """
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@dataclass
class Text:
    """A text in Markdown, parsed: its tokens, with anchors on the headings.

    `source` is the file's path in the repository; links are relative to it.
    """

    source: str
    tokens: list[Token]

    @classmethod
    def of(cls, text: str, source: str) -> "Text":
        """Parse a text."""
        parsed = cls(source, _markdown().parse(text))
        taken: dict[str, int] = {}
        for token, heading in parsed._headings():
            name = slug(heading)
            taken[name] = taken.get(name, -1) + 1
            token.attrSet("id", name if not taken[name] else f"{name}-{taken[name]}")
        return parsed

    def _headings(self) -> Iterator[tuple[Token, str]]:
        for token, inline in zip(self.tokens, self.tokens[1:], strict=False):
            if token.type == "heading_open":
                yield token, "".join(each.content for each in inline.children or ())

    @property
    def title(self) -> str:
        """The first heading."""
        return next((heading for _, heading in self._headings()), self.source)

    @property
    def sections(self) -> list[tuple[str, str]]:
        """Anchor and words of each section's heading."""
        return [
            (str(each.attrGet("id")), text) for each, text in self._headings() if each.tag == "h2"
        ]

    @property
    def anchors(self) -> set[str]:
        """Every anchor that a link may name: of a heading, or written as `<a id="name">`."""
        html = "".join(each.content for each in self._parts() if each.type == "html_inline")
        named = set(re.findall(r'<a id="([^"]+)">', html))
        return named | {str(each.attrGet("id")) for each, _ in self._headings()}

    @property
    def links(self) -> list[str]:
        """Where its links and pictures point to."""
        found = [each.attrGet("href") or each.attrGet("src") for each in self._parts()]
        return [str(each) for each in found if each]

    def html(self, pages: Mapping[str, str]) -> str:
        """The text as HTML; its links lead to `pages` (paths in the repository: in the site)."""
        for token in self._parts():
            for name in ("href", "src"):
                if (target := token.attrGet(name)) is not None:
                    token.attrSet(name, self._moved(str(target), pages))
        return _markdown().renderer.render(self.tokens, _markdown().options, {})

    def _parts(self) -> Iterator[Token]:
        for token in self.tokens:
            yield from token.children or ()

    def _moved(self, target: str, pages: Mapping[str, str]) -> str:
        path, hash_, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return target
        meant = os.path.normpath(Path(self.source).parent / path)
        if meant not in pages:
            return target
        here = Path(where(self.source)).parent
        return Path(os.path.relpath(pages[meant], here)).as_posix() + hash_ + anchor


def dead_in(text: Text, texts: Mapping[str, Text]) -> list[str]:
    """The links of a text that lead to no file of the repository, or to no heading in it."""
    dead = []
    for target in text.links:
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        meant = os.path.normpath(Path(text.source).parent / path) if path else text.source
        there = texts[meant].anchors if meant in texts else set()
        if not (ROOT / meant).exists() or (anchor and anchor not in there):
            dead.append(f"{text.source}: {target}")
    return dead


def texts() -> dict[str, Text]:
    """Every Markdown page of the site, parsed, by its path in the repository."""
    named = [source for section in CONTENTS.values() for source in section]
    return {source: Text.of((ROOT / source).read_text(), source) for source in named}


def highlighted(code: str, language: str) -> str:
    """Code with its syntax marked; escaped and no more, in a language that Pygments lacks."""
    try:
        return highlight(code, get_lexer_by_name(language), HtmlFormatter(nowrap=True))
    except ClassNotFound:
        return escape(code)


def _markdown() -> MarkdownIt:
    def highlighter(code: str, language: str, attributes: str) -> str:
        return highlighted(code, language)

    parser = MarkdownIt("commonmark", {"highlight": highlighter}).enable("table")
    parser.add_render_rule("table_open", _opened)
    parser.add_render_rule("table_close", _closed)
    return parser


def _opened(renderer: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    return '<div class="wide" tabindex="0"><table>\n'


def _closed(renderer: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    return "</table></div>\n"
