"""Build the API reference from docstrings: `python docs/reference.py [FOLDER]`, by `make docs`.

A name that does not resolve, or a docstring that does not parse, is a warning, and warnings are
errors here.
"""

import sys
import warnings
from pathlib import Path

import pdoc

import interp
from interp import circuits, probes

FACES = (interp, probes, circuits)
"""Packages whose public names must all be there before pdoc looks: `interp` loads them lazily."""


MODULES = ("interp", "interp.models", "interp.core", "interp.data", "interp.report")
"""What has pages. `interp.probes` and `interp.circuits` come with `interp`, as names of its."""

ROOMS = ("study", "specification", "grid", "result", "difference", "exporting", "sharing", "truth")
"""Modules of `interp` itself that one may want to read about."""


def build(folder: Path) -> None:
    """Write a page per module into a folder."""
    for face in FACES:
        for name in face.__all__:
            getattr(face, name)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        pdoc.render.configure(docformat="markdown", footer_text="interp", show_source=False)
        pdoc.pdoc(*MODULES, *(f"interp.{room}" for room in ROOMS), output_directory=folder)


if __name__ == "__main__":
    build(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/api"))
