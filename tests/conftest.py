"""What all tests share: where the shared data lies, and how hypothesis runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]

# No test asserts a time, hypothesis included; under CI every run draws the same examples.
settings.register_profile("hwcost", deadline=None, derandomize=os.environ.get("CI") == "true")
settings.load_profile("hwcost")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither use nor change what the user's runs keep."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWCOST_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Callable[..., Path]:
    """Path of a file of measurements that lie beside the repository; skips where they are absent."""
    root = Path(os.environ.get("HWCOST_SHARED", ROOT.parent / "shared"))

    def find(*parts: str) -> Path:
        path = root.joinpath("data", *parts)
        if not path.exists():
            pytest.skip(f"needs {'/'.join(parts)} of the shared data; HWCOST_SHARED names the folder that has data/")
        return path

    return find
