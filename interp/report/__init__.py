"""Tables and plates become figures, and figures one self-contained HTML page; no model is seen."""

from interp.core.faces import face

__getattr__, __dir__, __all__ = face(__name__, __file__)
