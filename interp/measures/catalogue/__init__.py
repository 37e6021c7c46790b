"""Everything that is measured on one opened model: one file declares one measure."""
