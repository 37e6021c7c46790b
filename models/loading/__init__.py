"""CLIPs opened from names, folders, checkpoints and archives."""
