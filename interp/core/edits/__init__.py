"""Edits: what is changed of activations inside a tower, and what a model then answers."""
