"""The words that every wing of the house shares."""
