"""Foreign files: other projects' measurements, ONNX networks."""
