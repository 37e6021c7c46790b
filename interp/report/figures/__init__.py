"""The figures of the page: pieces that all are drawn from, and what is drawn with them."""
