"""Intervals, nulls, permutation tests, replication over blocks, association of two numbers."""

from interp.core.faces.old_names import moved_names

__getattr__ = moved_names(__name__)
