"""Dictionaries of features: training, quality, stability, and which features two domains share."""
