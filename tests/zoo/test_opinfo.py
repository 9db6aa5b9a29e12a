"""Every op and module that torch tests itself: traces agree with runs (see `tests/tracing/opinfo.py`): `make zoo`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FEWEST = 750  # ops and modules; the databases of torch 2.13 and 2.14 hold more than 800


@pytest.mark.timeout(3600)
def test_traces_agree_with_runs(capsys: pytest.CaptureFixture[str]) -> None:
    script = Path(__file__).parents[1] / "tracing" / "opinfo.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    with capsys.disabled():
        print(f"\n{done.stdout}")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > FEWEST
