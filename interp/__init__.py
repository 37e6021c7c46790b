"""Interpretability of CLIP: train it on controlled mixtures, open it, test what domains share."""

import sys

from interp.core.faces.lazy import face
from interp.core.faces.old_names import MovedModules

sys.meta_path.append(MovedModules())
__getattr__, __dir__, __all__ = face(__name__, __file__)
