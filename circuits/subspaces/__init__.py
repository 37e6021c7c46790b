"""Directions that cause a class: fitted in one domain, tried in another (DAS)."""

from interp.core.faces.old_names import moved_names

__getattr__ = moved_names(__name__)
