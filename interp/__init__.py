"""Interpretability of CLIP: train it on controlled mixtures, open it, test what domains share."""

from interp.core.faces import face

__getattr__, __dir__, __all__ = face(__name__, __file__)
