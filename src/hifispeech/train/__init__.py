"""Training: data, simulation, losses and the trainer (extra `train`: PyTorch and Lightning Fabric)."""
