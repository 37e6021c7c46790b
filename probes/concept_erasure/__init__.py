"""Concepts erased or added at a site inside the model, and what changes in its answers."""
