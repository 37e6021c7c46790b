"""Lazy loading of a package's public names, so that imports are quick.

A stub beside `__init__.py` lists the names; `lazy_loader` reads it, and so do type checkers.
"""

from collections.abc import Callable
from importlib import import_module

import lazy_loader

from interp.core.errors import nearest


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
