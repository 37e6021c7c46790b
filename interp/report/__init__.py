"""Figures and the HTML page of a result, made from its tables and plates without a model."""

from interp.core.faces.late import face

__getattr__, __dir__, __all__ = face(__name__, __file__)
