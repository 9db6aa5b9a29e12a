"""Where data lies: what comes with the package, device files, measurements, models; and what runs keep for later."""

from __future__ import annotations

import os
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path


def shipped(*parts: str) -> Traversable:
    """A file or folder of `datasets`, as in ``shipped("devices", "nvidia-t4.toml")``; it may not exist.

    A checkout whose links were lost (a system without symbolic links makes them text files) has no
    `hwcost/datasets` folder; the one beside the package is the same data.
    """
    installed = files("hwcost") / "datasets"
    root = installed if installed.is_dir() else Path(__file__).parents[1] / "datasets"
    return root.joinpath(*parts)


def kept() -> Path:
    """Where this user's runs keep what later ones may use and never need: $HWCOST_CACHE, or in the user's cache."""
    if os.environ.get("HWCOST_CACHE"):
        return Path(os.environ["HWCOST_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hwcost"
