"""Zero-shot accuracy, exposure, effective robustness and the seen/held-out trade-off."""

from interp.core.faces.old_names import moved_names

__getattr__ = moved_names(__name__)
