"""The findings of the large study: from committed tables of its runs to pages and figures."""
