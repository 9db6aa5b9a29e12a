"""The names that `hwcost.search` promises to its users."""

from __future__ import annotations

import subprocess
import sys

import pytest

import hwcost.search


@pytest.mark.parametrize("name", ["LatencyObjective", "spaces", "penalties", "scoring", "run_study"])
def test_a_fresh_process_can_import_the_name(name: str) -> None:
    """In a process of its own, where nothing else has imported the module that defines it."""
    subprocess.run([sys.executable, "-c", f"from hwcost.search import {name}"], check=True)


def test_every_public_name_exists() -> None:
    for name in hwcost.search.__all__:
        assert getattr(hwcost.search, name) is not None


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'hwcost\.search' has no attribute 'nothing'"):
        hwcost.search.nothing  # noqa: B018 - the access is what is tested
