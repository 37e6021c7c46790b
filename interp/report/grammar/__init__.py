"""One grammar of figures: rows read, the views of each choice, pieces, and four kinds drawn."""
