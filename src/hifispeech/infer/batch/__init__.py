"""Many recordings at a time in PyTorch, for GPUs and whole corpora."""
