"""Models whose circuits are known: hand-written, trained to order or merged; disguised."""

from interp.core.faces.old_names import moved_names

__getattr__ = moved_names(__name__)
