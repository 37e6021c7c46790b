"""Studies: specification, grid of runs, measurements, results."""

from interp.core.faces.old_names import moved_names

__getattr__ = moved_names(__name__)
