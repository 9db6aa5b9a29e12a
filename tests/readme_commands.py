"""Runs what a README tells its reader to run, as its reader would: in order, in an empty folder.

    python tests/readme_commands.py README.md

A line of a ```console block that starts with "$ " is a command, and lines that start with "> "
go on with it. The ```python blocks make one script, which runs after the commands. A block below
the comment <!-- not run: reason --> is left out, and so are `make` commands, which whoever calls
this has run already. `.venv` of the repository lies in the folder and its commands are on the path.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(
    r"(?P<mark><!-- not run: [^\n]+ -->\s*\n)?^```(?P<kind>console|python)\n(?P<text>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Command:
    """What is run: a shell command, or the script of all Python blocks."""

    text: str
    kind: str


def commands(markdown: str) -> Iterator[Command]:
    """Every command of a page, in order, and then the script of its Python blocks."""
    script = []
    for block in _BLOCK.finditer(markdown):
        if block["mark"]:
            continue
        if block["kind"] == "python":
            script.append(block["text"])
        else:
            yield from (Command(text, "console") for text in _shell(block["text"]))
    if script:
        yield Command("\n".join(script), "python")


def _shell(block: str) -> Iterator[str]:
    text: list[str] = []
    for line in [*block.splitlines(), ""]:
        if text and (line.startswith("> ") or line == ">"):
            text.append(line[2:])
            continue
        if text and not text[0].startswith("make "):
            yield "\n".join(text)
        text = [line[2:]] if line.startswith("$ ") else []


def run(command: Command, folder: Path) -> int:
    """Exit status; what the command prints goes where this program's own output goes."""
    path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    line = (
        [sys.executable, "-c", command.text]
        if command.kind == "python"
        else ["bash", "-euo", "pipefail", "-c", command.text]
    )
    return subprocess.run(line, cwd=folder, env={**os.environ, "PATH": path}, stdin=subprocess.DEVNULL).returncode


def main(page: str) -> int:
    """Run a page until the first command that fails."""
    found = list(commands(Path(page).read_text(encoding="utf-8")))
    if not found:
        print(f"{page} has no command to run")
        return 1
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / ".venv").symlink_to(ROOT / ".venv")
        for command in found:
            print(f"$ {command.text if command.kind == 'console' else '(the python blocks)'}", flush=True)
            status = run(command, Path(name))
            if status:
                print(f"{page}: this exits with {status}:\n{command.text}", file=sys.stderr)
                return 1
    print(f"{page}: {len(found)} commands ran")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
