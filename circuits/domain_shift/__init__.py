"""Domain shift: a domain's mean, moved inside the model, and what pictures are then called."""
