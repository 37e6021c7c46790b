"""Concepts erased at a site inside the model, and what changes in its answers."""
