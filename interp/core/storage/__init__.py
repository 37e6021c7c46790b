"""Pictures and activations on disk, and folders that are complete or not there."""
