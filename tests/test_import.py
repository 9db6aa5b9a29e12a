"""`import hwcost` is light, and every name of its face is there."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import hwcost

HEAVY = ("torch", "sklearn", "numpy", "pandas", "pydantic", "optuna", "sqlalchemy", "plotly", "scipy", "pyarrow")


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = run("import sys, hwcost; print(*sys.modules)").split()
    assert "hwcost" in loaded
    assert not set(HEAVY) & set(loaded)


def test_listing_the_names_loads_nothing_heavy() -> None:
    loaded = run("import sys, hwcost; dir(hwcost), hwcost.__version__; print(*sys.modules)").split()
    assert not set(HEAVY) & set(loaded)


def test_counting_needs_no_numpy_and_a_device_no_torch() -> None:
    assert "numpy" not in run("import sys, hwcost; hwcost.Cost(macs=1); print(*sys.modules)").split()
    assert "torch" not in run("import sys, hwcost; hwcost.Device.names(); print(*sys.modules)").split()


@pytest.mark.parametrize("name", hwcost.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(hwcost, name) is not None
    assert name in dir(hwcost)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'hwcost' has no attribute 'tracer'"):
        _ = hwcost.tracer


def test_the_version_is_stated_alike() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert hwcost.__version__ == project["version"]
