"""What others made: their checkpoints and their ONNX files, read and brought into our terms."""
