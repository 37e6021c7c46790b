"""Links of a built site that lead nowhere, and what its pages would fetch from a network."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

FETCHED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
"""Elements that a browser fetches something for, and the attribute that says what."""


@dataclass
class Page(HTMLParser):
    """The anchors of a page, its links, and what it fetches."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    @classmethod
    def of(cls, path: Path) -> "Page":
        """Read a page."""
        page, text = cls(), path.read_text()
        page.feed(text)
        styles = "".join(re.findall(r"<style.*?</style>", text, re.DOTALL))
        page.fetched += re.findall(r"url\([\"']?([^\"')]+)", styles)
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what an element names, links to or fetches."""
        given = {name: value for name, value in attrs if value}
        self.anchors.update(given[name] for name in ("id", "name") if name in given)
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in FETCHED and FETCHED[tag] in given:
            self.fetched.append(given[FETCHED[tag]])


def dead_links(site: Path) -> list[str]:
    """What leads nowhere in a site, one line each: "page: target".

    A link to another file must find it, and its anchor there. Links to the web are not followed,
    but nothing may be fetched from it, or from outside the site.
    """
    pages = {path.resolve(): Page.of(path) for path in sorted(site.rglob("*.html"))}
    return [
        f"{path.relative_to(site.resolve())}: {target}"
        for path, page in pages.items()
        for target in [*_dead(path, page, pages), *_outside(page)]
    ]


def unreachable(site: Path) -> list[str]:
    """Pages of a site that no chain of links from its index leads to."""
    waiting, seen = [(site / "index.html").resolve()], set()
    while waiting:
        path = waiting.pop()
        if path not in seen and path.suffix == ".html" and path.exists():
            seen.add(path)
            waiting += [target for target, _ in _inside(path, Page.of(path).links)]
    missed = {path.resolve() for path in site.rglob("*.html")} - seen
    return sorted(str(path.relative_to(site.resolve())) for path in missed)


def _inside(path: Path, targets: list[str]) -> Iterator[tuple[Path, str]]:
    for target in targets:
        if not re.match(r"[a-z]+:|//", target):
            name, _, anchor = target.partition("#")
            file = (path.parent / unquote(name).split("?")[0]).resolve() if name else path
            yield file, unquote(anchor)


def _dead(path: Path, page: Page, pages: dict[Path, Page]) -> Iterator[str]:
    for file, anchor in _inside(path, page.links + page.fetched):
        if not file.is_file() or (anchor and file in pages and anchor not in pages[file].anchors):
            yield f"{file.name}#{anchor}" if anchor else file.name


def _outside(page: Page) -> Iterator[str]:
    return (each for each in page.fetched if re.match(r"https?:|//", each))
