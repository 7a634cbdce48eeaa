"""ONNX files for ONNX Runtime, which is also what runs them here."""
