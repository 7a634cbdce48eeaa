"""Convert graphs to other frameworks: ONNX and PyTorch."""
