"""Hooked towers: open_clip encoders whose activations have names, shared weights and all."""

from interp.core.faces.old_names import moved_names

__getattr__ = moved_names(__name__)
