"""Modules and names of version 0.1: they still import from where they were, with a warning.

`old_names.csv` lists every module that moved, where its public names are now, and those names.
"""

import csv
import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any


def moved_names(module: str) -> Callable[[str], object]:
    """A `__getattr__` for what was in a module of 0.1 and now is somewhere else.

    Args:
        module: The module's full name in 0.1.

    Returns:
        A function from a name to the object that had it, which warns; `AttributeError` for others.
    """

    def __getattr__(name: str) -> object:
        place = _listed().get(module, {}).get(name)
        if place is None:
            raise AttributeError(f"{module} has no {name!r}")
        said = f"{module}.{name} moved: say `from {place} import {name}`"
        warnings.warn(said, DeprecationWarning, stacklevel=2)
        return getattr(import_module(place), name)

    return __getattr__


class MovedModules(MetaPathFinder, Loader):
    """Finds modules of 0.1 that are gone, after all others have failed to."""

    def find_spec(
        self, fullname: str, path: Any, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module whose names are found where they are now.

        Raises `ModuleNotFoundError`, with what to say, for one that bore a function's name: as a
        module it would take the function's place.
        """
        if not fullname.startswith("interp.") or fullname not in _listed():
            return None
        package, _, name = fullname.rpartition(".")
        if name in _listed()[fullname]:
            raise ModuleNotFoundError(
                f"{fullname} is a name and no module any more: say `from {package} import {name}`",
                name=fullname,
            )
        return ModuleSpec(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its names, each found when it is asked for."""
        vars(module)["__getattr__"] = moved_names(module.__name__)


@cache
def _listed() -> dict[str, dict[str, str]]:
    """Modules of 0.1, each with its names and where they are now."""
    found: dict[str, dict[str, str]] = {}
    with (Path(__file__).parent / "old_names.csv").open() as file:
        for module, now, names in list(csv.reader(file))[1:]:
            found.setdefault(module, {}).update(dict.fromkeys(names.split(), now))
    return found
