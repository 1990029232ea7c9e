"""What the trainer needs to know of each model: batches, losses, updates, validation."""
