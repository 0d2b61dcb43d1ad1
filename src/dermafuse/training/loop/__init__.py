"""The training loop: pipeline, losses, optimizer, checkpoints."""
