"""Probes: what activations represent, and whether it is the same across domains."""

from interp.core.faces.lazy import face

__getattr__, __dir__, __all__ = face(
    __name__,
    __file__,
    moved={
        "artist_halves": "interp.core.artists:artist_halves",
        "units": "interp.probes:raw_units",
        "Measure": "interp.probes:SimilarityMeasure",
    },
)
