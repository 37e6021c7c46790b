"""Circuits of classes compared between domains: overlap, and what one does in the other."""
