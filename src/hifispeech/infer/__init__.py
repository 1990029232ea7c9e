"""Inference: the ONNX backend, the frame-by-frame generator and the upscaler for arrays and files. No PyTorch."""
