"""What is measured on one opened model, and filed under the names of its table."""
