"""Decomposition of an embedding into parts, the logit lens, and attention maps."""
