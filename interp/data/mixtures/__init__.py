"""Training distributions: settings, captions, base sets, subsampling, manifests."""

from interp.core.faces.old_names import moved_names

__getattr__ = moved_names(__name__)
