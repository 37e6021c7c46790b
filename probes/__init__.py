"""Probes: what activations represent, and whether it is the same across domains."""

from interp.core.faces.late import face

__getattr__, __dir__, __all__ = face(__name__, __file__)
