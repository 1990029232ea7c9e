"""Packaged models: `fast.onnx` and its card."""
