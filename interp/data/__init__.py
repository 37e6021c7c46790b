"""Data: where pictures come from, how they are described, and which ones a model is trained on."""

from interp.core.faces.late import face

__getattr__, __dir__, __all__ = face(__name__, __file__)
