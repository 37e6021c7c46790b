"""Models whose circuits are known: hand-written, trained to order or merged; disguised."""
