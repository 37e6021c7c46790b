"""Channels, heads and neurons: scores of single units, and circuits of them."""
