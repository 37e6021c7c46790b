"""Pictures and training distributions: sources, captions, mixtures, audits."""

from interp.core.faces import face

__getattr__, __dir__, __all__ = face(__name__, __file__)
