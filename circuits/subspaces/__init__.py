"""Directions that cause a class: fitted in one domain, tried in another (DAS)."""
