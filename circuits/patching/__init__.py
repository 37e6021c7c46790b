"""Activation patching: activations replaced, swept over sites, layers and positions."""
