"""Data sets of speech: corpora by their layout, preparation, shards for training."""
