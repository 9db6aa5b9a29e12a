"""Tests of the verb quickstart; tests/test_quickstart.py does the steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def test_a_folder_that_cannot_be_written_is_refused_at_once(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    refused(["quickstart", "-o", str(tmp_path / "file")], "cannot be written")
