"""Decomposition of an embedding into parts, names of heads, the logit lens, and attention maps."""
