"""Losses: on STFT frames, adversarial on waveforms, and the discriminators."""
