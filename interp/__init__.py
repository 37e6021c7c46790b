"""Interpretability of CLIP: train it on controlled mixtures, open it, test what domains share."""

from interp.core.faces.late import face

_of_face, __dir__, __all__ = face(__name__, __file__)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("interp")
    return _of_face(name)
