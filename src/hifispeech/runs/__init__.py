"""Runs over many files: worker processes, manifests, folders, corpora."""
