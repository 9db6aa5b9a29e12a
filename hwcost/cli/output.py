"""What the verbs print: text and tables, one JSON document, messages and progress; and the files they write.

Under `--json` standard output holds the one JSON document and nothing else. Whatever is printed meanwhile, also by a
user's own module or by a compiled library, goes to standard error, as messages and progress always do.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Protocol, TextIO

import typer

from hwcost.cli.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH_OF_PIPES = 140  # columns of text that goes to a file or a pipe, so that the lines of tables stay whole

# -- text ---------------------------------------------------------------------------------------


def say(line: str) -> None:
    """Print a message to the user, as one line on standard error."""
    print(f"hwcost: {' '.join(line.split())}", file=sys.stderr)


def console() -> Console:
    """A console that prints tables and text on standard output."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_PIPES)


def end_output() -> None:
    """Drop what is still to be written to standard output, whose reader has gone, as in `hwcost devices | head`."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# -- JSON ---------------------------------------------------------------------------------------

_document: ContextVar[TextIO | None] = ContextVar("where the JSON document goes", default=None)


def reserve_output(ctx: typer.Context, wanted: bool) -> bool:
    """Keep standard output for `print_json` until the verb ends, where --json is given; the option's callback."""
    if wanted and not ctx.resilient_parsing:
        ctx.with_resource(_output_reserved())
    return wanted


@contextmanager
def _output_reserved() -> Iterator[None]:
    with _descriptor_reserved() as document:
        token = _document.set(document)
        try:
            with redirect_stdout(sys.stderr):
                yield
        finally:
            _document.reset(token)


@contextmanager
def _descriptor_reserved() -> Iterator[TextIO]:
    """Give a file that writes to standard output, and send to standard error what is written to descriptor 1.

    Compiled code writes to the descriptor and does not know `sys.stdout`; torch's ONNX exporter prints a graph that
    it cannot export in this way.
    """
    try:
        number = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):  # no descriptor behind it: in a notebook, or where it is captured
        yield sys.stdout
        return
    sys.stdout.flush()
    kept = os.dup(number)
    os.dup2(2, number)
    try:
        with open(os.dup(kept), "w", encoding=sys.stdout.encoding) as document:
            yield document
    finally:
        _flush_libraries()
        os.dup2(kept, number)
        os.close(kept)


def _flush_libraries() -> None:
    """Write out what the C library buffers; where it cannot be called, it does so itself when the process ends."""
    with suppress(OSError, TypeError):
        ctypes.CDLL(None).fflush(None)


def print_json(document: Mapping[str, Any]) -> None:
    """Print the verb's one JSON document; numbers that JSON does not know (inf, nan) become null."""
    out = _document.get() or sys.stdout
    out.write(json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    out.flush()


def _plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


# -- progress -----------------------------------------------------------------------------------


class Progress(Protocol):
    """Tells how far a long task is: `done` of `total`, and what it is doing."""

    def __call__(self, done: float, total: float, note: str = "") -> None:
        """Move the bar."""


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """A progress bar on standard error; call the result with (done, total, note). It pulses until the first call."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, note="")

        def move(done: float, total: float, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=note)

        yield move


# -- files --------------------------------------------------------------------------------------


def writable(path: Path) -> Path:
    """`path`, after making sure, before any work starts, that a file can be written there.

    Raises:
        UsageError: it cannot; the message says why.
    """
    if path.is_dir():
        raise UsageError(f"output must be a file, but {path} is a folder; give a file name in it")
    if not path.parent.is_dir():
        raise UsageError(f"output {path} cannot be written: there is no folder {path.parent}; make it first")
    try:
        if path.exists():
            path.open("ab").close()
        else:
            TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise UsageError(f"output {path} cannot be written: {error.strerror or error}; choose another place") from error
    return path
