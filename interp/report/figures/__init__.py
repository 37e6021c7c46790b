"""The figures of the page, each drawn with the pieces and kinds of the grammar."""
