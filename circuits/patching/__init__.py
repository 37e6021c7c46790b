"""Activation patching: activations replaced, swept over sites, layers and positions."""

from interp.core.faces.old_names import moved_names

__getattr__ = moved_names(__name__)
