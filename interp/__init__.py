"""Find out how CLIP sees: train it on controlled mixtures, open it, and test what domains share."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp import circuits, probes
    from interp.core.images import ImageTable
    from interp.core.patches import Patch
    from interp.core.sites import Site
    from interp.core.tables import Table
    from interp.data import open_images
    from interp.models.loading import load_clip
    from interp.sharing import ladder
    from interp.study import Study
    from interp.verdicts import verdict

__all__ = [
    "ImageTable",
    "Patch",
    "Site",
    "Study",
    "Table",
    "circuits",
    "ladder",
    "load_clip",
    "open_images",
    "probes",
    "verdict",
]

_HOME = {
    "ImageTable": "interp.core.images",
    "Patch": "interp.core.patches",
    "Site": "interp.core.sites",
    "Study": "interp.study",
    "Table": "interp.core.tables",
    "ladder": "interp.sharing",
    "load_clip": "interp.models.loading",
    "open_images": "interp.data",
    "verdict": "interp.verdicts",
}
_WINGS = ("circuits", "probes")


def __getattr__(name: str) -> object:
    """Load a public name when it is first asked for, so that `interp-report --help` is quick."""
    if name in _WINGS:
        return import_module(f"interp.{name}")
    if name not in _HOME:
        raise AttributeError(f"interp has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
