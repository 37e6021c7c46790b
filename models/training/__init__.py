"""Training runs: recipes, open_clip's trainer under torchrun, resumption."""

from interp.core.faces.old_names import moved_names

__getattr__ = moved_names(__name__)
