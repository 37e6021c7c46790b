"""How classes and domains lie in a layer: variance shares, directions, distances."""
