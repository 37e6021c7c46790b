"""What a circuit is asked to do: pairs of pictures, corruptions, metrics."""
