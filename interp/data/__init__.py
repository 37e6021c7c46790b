"""Where pictures come from, what is said of them, and which of them a model is trained on."""

from interp.core.faces import face

__getattr__, __dir__, __all__ = face(__name__, __file__)
