"""CLIPs made and opened: loading, hooked towers, certificates, evaluation, training."""

from interp.core.faces.late import face

__getattr__, __dir__, __all__ = face(__name__, __file__)
