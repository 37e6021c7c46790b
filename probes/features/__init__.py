"""From pictures to features: one pass over the data, pooled, kept or stored."""
