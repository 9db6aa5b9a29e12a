"""From an `nn.Module` with example inputs, or an ONNX file, to a `hwcost.graph.Graph`, without running the network."""
