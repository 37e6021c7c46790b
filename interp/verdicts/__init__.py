"""Verdicts: the rungs of the ladder, the levels across checkpoints, and the words they license."""

from interp.core.faces.old_names import moved_names

__getattr__ = moved_names(__name__)
