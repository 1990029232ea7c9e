"""Inference: the ONNX backend, the frame-wise generator, the upscaler for arrays and files. No PyTorch."""

import os

# ONNX Runtime (since 1.29) sends telemetry and stores a device identifier unless this is set before it loads.
# Speech is private: nothing leaves the machine unless the user asks for it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
