"""Folders that are complete or not there, and activations on disk that are written row by row."""
