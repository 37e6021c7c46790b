"""Figures drawn on pictures: galleries of units, and heatmaps."""
