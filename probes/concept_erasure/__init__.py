"""Erasure of a concept at a site inside the model, and what changes in its answers."""
