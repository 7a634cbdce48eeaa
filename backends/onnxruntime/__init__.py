"""Target for ONNX Runtime: ONNX files, which ONNX Runtime also runs on this machine."""
