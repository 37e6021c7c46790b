"""Measures, discovery methods, names of heads, and methods of anybody's, judged on planted models.

Everything is tried where the answer is known.
"""

from interp.core.faces.late import face

__getattr__, __dir__, __all__ = face(__name__, __file__)
