"""Low-rate simulation: filters, rate conversion and codecs of real low-band recordings."""
