"""How CLIPs are made and opened: training, loading, hooked towers, certificates, heads."""
