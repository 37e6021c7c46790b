"""Leaks between training and test: pictures that look alike, captions that name withheld things."""
