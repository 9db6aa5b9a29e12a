"""Where data lies: device files, measurements and models that come with the package, and the user's cache."""

from __future__ import annotations

import os
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path


def shipped(*parts: str) -> Traversable:
    """A file or folder of `datasets`, as in ``shipped("devices", "nvidia-t4.toml")``; it may not exist.

    In a checkout `hwcost/datasets` is a symbolic link to the folder `datasets` beside the package. A system without
    symbolic links makes a text file of it; then the folder beside the package is read.
    """
    installed = files("hwcost") / "datasets"
    root = installed if installed.is_dir() else Path(__file__).parents[1] / "datasets"
    return root.joinpath(*parts)


def cache_folder() -> Path:
    """The folder of files that later runs can use but do not need: $HWCOST_CACHE, or `hwcost` in the user's cache."""
    if os.environ.get("HWCOST_CACHE"):
        return Path(os.environ["HWCOST_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hwcost"
