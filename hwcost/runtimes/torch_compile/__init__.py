"""torch.compile on the CPU. Importing this package registers the runtime."""

import hwcost.runtimes.torch_compile.lowering  # noqa: F401 - it registers the runtime
