"""ONNX Runtime on the CPU. Importing this package registers the runtime."""

import hwcost.runtimes.onnxruntime.lowering  # noqa: F401 - it registers the runtime
