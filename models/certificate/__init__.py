"""The numerics certificate: a hooked tower compared with open_clip, site by site."""

from interp.core.faces.old_names import moved_names

__getattr__ = moved_names(__name__)
