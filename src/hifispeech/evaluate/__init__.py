"""Metrics, baselines and figures (extra `eval`)."""
