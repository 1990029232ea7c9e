"""Audio core: files, resampling, the STFT, bandwidth detection, crossover and low-rate simulation."""
