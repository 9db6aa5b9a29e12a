"""The first example of the README prints what the README says it prints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_first_example_prints_what_stands_below_it() -> None:
    found = re.search(r"```python\n(.*?)```\n\n<!-- output -->\n```text\n(.*?)```", README.read_text(), re.S)
    assert found, "the README's first example stands before its output"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", found[1]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == found[2]
