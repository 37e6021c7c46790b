"""Loading of CLIPs from names, folders, checkpoints and archives."""

from interp.core.faces.old_names import moved_names

__getattr__ = moved_names(__name__)
