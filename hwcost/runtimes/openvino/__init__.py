"""OpenVINO on the CPU. Importing this package registers the runtime."""

import hwcost.runtimes.openvino.lowering  # noqa: F401 - it registers the runtime
