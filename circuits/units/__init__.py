"""Channels, heads and neurons: scores of single units, and circuits of them."""

from interp.core.faces.old_names import moved_names

__getattr__ = moved_names(__name__)
