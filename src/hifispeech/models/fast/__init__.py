"""The fast model: a compact causal network on STFT frames, its export and its recovery from ONNX."""
