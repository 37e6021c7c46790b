"""Edges of a residual stream: masked runs, edge attribution, path patching."""
