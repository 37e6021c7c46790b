"""What an embedding is the sum of, what each layer would answer, and where attention heads look."""
