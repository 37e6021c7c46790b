"""Dictionaries of features: training, quality, stability, and which features two domains share."""

from interp.core.faces.old_names import moved_names

__getattr__ = moved_names(__name__)
