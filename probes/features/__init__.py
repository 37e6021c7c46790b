"""Features of pictures: one pass through a tower, pooled, kept in memory or stored."""

from interp.core.faces.old_names import moved_names

__getattr__ = moved_names(__name__)
