"""Pages that classify in the browser: ONNX Runtime as WebAssembly, with nothing sent anywhere."""
