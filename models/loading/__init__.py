"""Loading of CLIPs from names, folders, checkpoints and archives."""
