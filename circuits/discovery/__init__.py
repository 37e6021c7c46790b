"""Circuits as sets of edges: found from scores, judged by faithfulness and minimality."""

from interp.core.faces.old_names import moved_names

__getattr__ = moved_names(__name__)
