"""Linear probes: within a domain, between domains, of the domain, against control tasks."""

from interp.core.faces.old_names import moved_names

__getattr__ = moved_names(__name__)
