"""Where the data that comes with the package lies: device files, measurements, models."""

from __future__ import annotations

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
