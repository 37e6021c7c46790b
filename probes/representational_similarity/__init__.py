"""CKA and other similarities between domains and between layers, with evidence."""
