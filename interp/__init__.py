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
    from interp.difference import compare_results
    from interp.exporting import export
    from interp.models.loading import load_clip
    from interp.result import open_result
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
    "compare_results",
    "export",
    "ladder",
    "load_clip",
    "open_images",
    "open_result",
    "probes",
    "verdict",
]

_HOME = {
    "ImageTable": "interp.core.images",
    "Patch": "interp.core.patches",
    "Site": "interp.core.sites",
    "Study": "interp.study",
    "Table": "interp.core.tables",
    "compare_results": "interp.difference",
    "export": "interp.exporting",
    "ladder": "interp.sharing",
    "load_clip": "interp.models.loading",
    "open_images": "interp.data",
    "open_result": "interp.result",
    "verdict": "interp.verdicts",
}
_WINGS = ("circuits", "probes")


def __getattr__(name: str) -> object:
    """Load a public name when it is first asked for, so that `interp-report --help` is quick."""
    if name in _WINGS:
        return import_module(f"interp.{name}")
    if name not in _HOME:
        raise AttributeError(f"interp has no {name!r}; it has {', '.join(__all__)}")
    found = getattr(import_module(_HOME[name]), name)
    globals()[name] = found  # from now on found without asking here, by documentation tools too
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
