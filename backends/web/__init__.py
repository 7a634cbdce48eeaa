"""Target for web pages: ONNX Runtime as WebAssembly classifies images in the browser."""
