"""What a room calls that stands above it or is built on it: by name, when it is asked for.

These are arrows of the house that an import would make a circle of; `tests/test_house.py` reads
them here, and lets no module import by a name of its own.
"""

from importlib import import_module
from typing import Any

LATE = {
    # how results are drawn, as pandas finds its plotting backend
    "draw_table": "interp.report.drawing",
    "draw_gallery": "interp.report.on_pictures.galleries",
    "draw_heatmaps": "interp.report.on_pictures.heatmaps",
    "draw_pairs": "interp.report.on_pictures.heatmaps",
    # methods of a model that are built on models
    "explain": "interp.models.attribution.explain",
    "logit_attrs": "interp.models.attribution.logit_lens",
    # all measures, in the order of the page, for whoever reads them without knowing who measures
    "MEASURES": "interp.measures.catalogue.registry",
}


def late(name: str) -> Any:
    """A function or a constant of `LATE`, by its name."""
    return getattr(import_module(LATE[name]), name)
