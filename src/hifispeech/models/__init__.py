"""Models: frozen config dataclasses and networks (PyTorch, extra `train`); the runtime uses their ONNX
exports.
"""
