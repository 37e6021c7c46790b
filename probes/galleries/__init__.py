"""Galleries: what activates a unit, a head, a feature or a direction, domains side by side."""
