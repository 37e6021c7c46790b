"""Names found when they are asked for: of a package, and of rooms above the one that calls.

`face` loads a package's public names lazily, so that imports are quick: a stub beside `__init__.py`
lists them, `lazy_loader` reads it, and so do type checkers. `late` finds what stands above a room
or is built on it, arrows of the house that an import would make a circle of; `tests/test_house.py`
reads them here, and lets no module import by a name of its own.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import lazy_loader

from interp.core.errors import nearest

LATE = {
    # how results are drawn, as pandas finds its plotting backend
    "draw_table": "interp.report.drawing",
    "draw_decision_bias": "interp.report.drawing",
    "draw_gallery": "interp.report.on_pictures.galleries",
    "draw_heatmaps": "interp.report.on_pictures.heatmaps",
    "draw_pairs": "interp.report.on_pictures.heatmaps",
    # methods of a model that are built on models
    "explain": "interp.models.attribution.explain",
    "logit_attrs": "interp.models.attribution.logit_lens",
    # all measures, in the order of the page, for whoever reads them without knowing who measures
    "MEASURES": "interp.measures.catalogue",
}


def late(name: str) -> Any:
    """A function or a constant of `LATE`, by its name."""
    return getattr(import_module(LATE[name]), name)


def face(
    package: str, file: str
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """A package's `__getattr__`, `__dir__` and `__all__`, from the stub `__init__.pyi` beside it.

    Args:
        package: The package's `__name__`.
        file: Its `__file__`.

    Returns:
        The three that a module defines to load its names lazily (PEP 562).

    Raises:
        AttributeError: By the returned `__getattr__`, for an unknown name, with the nearest ones.
    """
    load, _, names = lazy_loader.attach_stub(package, file)
    names = sorted(names)

    def __getattr__(name: str) -> object:
        if name in names:
            return load(name)
        if name.startswith("__"):
            raise AttributeError(f"{package} has no {name!r}")
        try:
            return import_module(f"{package}.{name}")
        except ModuleNotFoundError:
            found = nearest(name, names)
            raise AttributeError(f"{package} has no {name!r}; it has {found}") from None

    return __getattr__, lambda: list(names), names
