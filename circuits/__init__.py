"""Causal analysis: patch activations of one run into another, and measure what changes."""

from interp.core.faces.late import face

__getattr__, __dir__, __all__ = face(__name__, __file__)
