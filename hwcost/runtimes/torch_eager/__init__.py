"""torch eager: every traced op is a kernel of its own. Importing this package registers the runtime."""

import hwcost.runtimes.torch_eager.lowering  # noqa: F401 - it registers the runtime
