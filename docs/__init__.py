"""The documentation: Markdown pages here, and `docs.building`, which makes one site of them."""
