"""`python -m hwcost`: the same as the command `hwcost`."""

from __future__ import annotations

import sys

from hwcost.cli.app import main

sys.exit(main())
