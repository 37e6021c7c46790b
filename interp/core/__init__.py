"""Types and tools that all packages share: towers, sites, images, tables, errors, statistics."""
