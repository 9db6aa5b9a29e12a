"""Tests of readme_commands: it runs what it says, and tells when something fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

PAGE = """
```console
$ make venv
made
$ echo one > file
$ cat \\
> file
one
```

<!-- not run: needs a board -->
```console
$ false
```

```python
from pathlib import Path
text = Path("file").read_text()
```

```python
assert text == "one\\n"
print("python ran")
```

```json
{"not": "a command"}
```
"""


def run(page: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "page.md").write_text(page)
    script = ROOT / "tests" / "readme_commands.py"
    return subprocess.run([sys.executable, script, folder / "page.md"], capture_output=True, text=True)


def test_commands_run_in_order_in_one_folder(tmp_path: Path) -> None:
    done = run(PAGE, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("page.md: 3 commands ran")
    assert "\none\n" in done.stdout
    assert "python ran" in done.stdout
    assert "make" not in done.stdout


def test_a_command_that_fails_fails_the_page(tmp_path: Path) -> None:
    done = run(PAGE.replace("<!-- not run: needs a board -->\n", ""), tmp_path)
    assert done.returncode == 1
    assert "this exits with 1:\nfalse" in done.stderr
    assert "python ran" not in done.stdout


def test_python_that_fails_fails_the_page(tmp_path: Path) -> None:
    assert run(PAGE.replace('"one', '"two'), tmp_path).returncode == 1


def test_a_page_without_commands_fails(tmp_path: Path) -> None:
    assert run("nothing", tmp_path).returncode == 1
