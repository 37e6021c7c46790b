"""Lazy loading of a package's public names, so that imports are quick.

A stub beside `__init__.py` lists the names; `lazy_loader` reads it, and so do type checkers.
"""

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module

import lazy_loader

from interp.core.errors import nearest


def face(
    package: str, file: str, moved: Mapping[str, str] | None = None
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """A package's `__getattr__`, `__dir__` and `__all__`, from the stub `__init__.pyi` beside it.

    Args:
        package: The package's `__name__`.
        file: Its `__file__`.
        moved: Names that the package had before, each with where it is now
            (`"interp.core.artists:artist_halves"`); they still work, with a `DeprecationWarning`.

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
        if name in (moved or {}):
            return _moved(package, name, (moved or {})[name])
        if name.startswith("__"):
            raise AttributeError(f"{package} has no {name!r}")
        try:
            return import_module(f"{package}.{name}")
        except ModuleNotFoundError:
            found = nearest(name, names)
            raise AttributeError(f"{package} has no {name!r}; it has {found}") from None

    return __getattr__, lambda: list(names), names


def _moved(package: str, name: str, place: str) -> object:
    module, _, attribute = place.partition(":")
    warnings.warn(f"{package}.{name} is now {module}.{attribute}", DeprecationWarning, stacklevel=3)
    return getattr(import_module(module), attribute)
