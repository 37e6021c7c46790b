"""The API reference, from docstrings, by pdoc.

A name that does not resolve, or a docstring that does not parse, is a warning, and warnings are
errors here.
"""

import re
import warnings
from importlib import import_module
from pathlib import Path

import pdoc
from pdoc import render

WINGS = ("interp.models", "interp.probes", "interp.circuits", "interp.data")
OWN = ("interp", "interp.report")
"""Packages whose public names are loaded lazily, and must all be there before pdoc looks; the
wings come with `interp`, as names of its."""

ROOMS = ("core", "measures", "study", "validation", "verdicts", "circuits.planted")
"""Packages of `interp` that have no face: each of their modules has a page."""


def write_reference(folder: Path) -> None:
    """Write a page per module into a folder."""
    for face in (*OWN, *WINGS):
        package = import_module(face)
        for name in package.__all__:
            setattr(package, name, getattr(package, name))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        # pandas is generic to type checkers alone
        warnings.filterwarnings("ignore", r"Error parsing type annotation pd\.Series")
        # what pydantic says of its dataclasses to type checkers alone
        warnings.filterwarnings("ignore", "(?s).*PydanticDataclass")
        # a group of keywords that another one extends
        warnings.filterwarnings("ignore", r"Cannot determine where \S+Keywords\.")
        render.configure(
            docformat="google", footer_text="interp", show_source=False,
            template_directory=Path(__file__).parent / "pdoc",
        )  # fmt: skip
        pdoc.pdoc(*OWN, *(f"interp.{room}" for room in ROOMS), output_directory=folder)
    (folder / "index.html").unlink()  # it leads on to `interp`, and nothing leads to it
    for page in folder.rglob("*.html"):
        page.write_text(_without_guesses(page.read_text()))


def _without_guesses(html: str) -> str:
    """A page without the links that pdoc makes of words, but gives no anchor: inherited names."""
    anchors = set(re.findall(r'\bid="([^"]+)"', html))
    return re.sub(
        r'<a href="#([^"]+)">(.*?)</a>', lambda it: it[0] if it[1] in anchors else it[2], html
    )
