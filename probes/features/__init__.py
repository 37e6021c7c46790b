"""Features of pictures: one pass through a tower, pooled, kept or stored; what activates them."""
