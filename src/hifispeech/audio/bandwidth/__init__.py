"""Effective bandwidth of speech: the meter of a signal, the edge in its spectrum, bandwidth over time."""
