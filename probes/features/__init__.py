"""Features of pictures: one pass through a tower, pooled, kept in memory or stored."""
