"""Figures and a page of what was judged on planted models."""
