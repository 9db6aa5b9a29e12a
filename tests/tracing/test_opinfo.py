"""Ops and modules as torch tests them itself, a sample by a fixed seed: traces agree with runs (see `opinfo`)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_traces_agree_with_runs() -> None:
    script = Path(__file__).with_name("opinfo.py")
    command = [sys.executable, str(script), "--ops", "80", "--samples", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("80 ops and modules, ")
