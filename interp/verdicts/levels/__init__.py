"""The verdict across checkpoints: four levels of evidence, never pooled, and their rivals."""
