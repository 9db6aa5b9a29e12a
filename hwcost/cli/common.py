"""What the verbs share: options, targets and inputs, output, errors, progress.

A verb returns normally (exit 0) or raises. `report_error` turns what a user can cause into one line on
standard error and exit 2; any other exception is a bug and keeps its traceback. A user can cause: a
usage error, a ValueError that this package raises, a runtime that is not installed, a file that cannot
be read or written. Under `--json` standard output belongs to the one JSON document: everything else that
is printed meanwhile, by a user's own module or a compiled library too, goes to standard error.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TextIO

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from hwcost.device.device import Device
    from hwcost.model.cost_model import CostModel


_WIDTH_OF_PIPES = 140  # columns: tables in a file or a pipe keep their lines whole


class UsageError(ValueError):
    """A command line that breaks a rule: the rule, the value, the next step."""


# -- help ---------------------------------------------------------------------------------------


def examples(*lines: str) -> str:
    """The example lines at the end of a verb's help."""
    title = "Examples" if len(lines) > 1 else "Example"
    return "\n".join([f"[bold]{title}[/bold]", *("[dim]$[/dim] " + line.replace("[", r"\[") for line in lines)])


# -- output -------------------------------------------------------------------------------------

_reserved: ContextVar[TextIO | None] = ContextVar("standard output kept for the JSON document", default=None)


def _reserve_stdout(ctx: typer.Context, wanted: bool) -> bool:
    """Under --json, keep standard output for `print_json` until the verb ends."""
    if wanted and not ctx.resilient_parsing:
        ctx.with_resource(_stdout_kept())
    return wanted


@contextmanager
def _stdout_kept() -> Iterator[None]:
    with _descriptor_kept() as document:
        token = _reserved.set(document)
        try:
            with redirect_stdout(sys.stderr):
                yield
        finally:
            _reserved.reset(token)


@contextmanager
def _descriptor_kept() -> Iterator[TextIO]:
    """Standard output for the document, while whoever writes to its descriptor writes to standard error: torch's
    ONNX exporter prints the graph that it cannot export, and does not ask `sys.stdout` where to."""
    try:
        number = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):  # none behind it: in a notebook, or where it is captured
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
    """Have the C library write what it holds back; where it cannot be asked, that comes at the end."""
    with suppress(OSError, TypeError):
        ctypes.CDLL(None).fflush(None)


def print_json(document: Mapping[str, Any]) -> None:
    """Print the verb's one JSON document; numbers that JSON does not know (inf, nan) become null."""
    out = _reserved.get() or sys.stdout
    out.write(json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    out.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def say(line: str) -> None:
    """One line to the person, on standard error."""
    print(f"hwcost: {' '.join(line.split())}", file=sys.stderr)


def console() -> Console:
    """For tables and text on standard output."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_PIPES)


class Progress(Protocol):
    """Tells how far a long task is: `done` of `total`, and what it is at."""

    def __call__(self, done: float, total: float, note: str = "") -> None:
        """Move the bar."""


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """A progress bar on standard error; call the result with (done, total, note). It pulses until then."""
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


# -- errors -------------------------------------------------------------------------------------


def report_error(error: Exception) -> int:
    """One line on standard error and the exit code for an error that a user caused.

    Raises:
        Exception: the error itself, where nobody but this package is to blame.
    """
    if isinstance(error, BrokenPipeError):  # `hwcost devices | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, typer.Abort):
        say("interrupted")
        return 130
    line = _explain(error)
    if line is None:
        raise error
    say(line)
    return 2


def _explain(error: Exception) -> str | None:
    """What to tell the user, or None for a bug."""
    if hasattr(error, "format_message"):  # a usage error of the command line parser
        command = getattr(getattr(error, "ctx", None), "command_path", "hwcost")
        return f"{error.format_message().rstrip('.')}. See `{command} --help`."
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror or error}"
    return str(error) if _is_ours(error) else None


def _is_ours(error: Exception) -> bool:
    """Whether the message was written for a user: a type of this package, or a ValueError it raised itself."""
    if type(error).__module__.partition(".")[0] == "hwcost":
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_in = str(trace.tb_frame.f_globals.get("__name__", "")) if trace is not None else ""
    return type(error) is ValueError and raised_in.partition(".")[0] == "hwcost"


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


# -- options shared by verbs ----------------------------------------------------------------------

JsonFlag = Annotated[
    bool, typer.Option("--json", callback=_reserve_stdout, is_eager=True, help="Print one JSON document.")
]
TargetArgument = Annotated[
    str, typer.Argument(metavar="TARGET", show_default=False, help="package.module:callable or path/file.py:callable.")
]
TargetsArgument = Annotated[
    list[str],
    typer.Argument(metavar="TARGET...", show_default=False, help="package.module:callable or path/file.py:callable."),
]
NetworkArgument = Annotated[
    str,
    typer.Argument(
        metavar="TARGET", show_default=False, help="package.module:callable, path/file.py:callable or file.onnx."
    ),
]
NetworkInputOption = Annotated[  # an ONNX file states its own
    list[str] | None,
    typer.Option("--input", "-i", metavar="SHAPE", help="1x3x224x224, or 1x16:int64; repeat for more inputs."),
]
KwargsOption = Annotated[
    str, typer.Option("--kwargs", metavar="JSON", help="Keyword arguments of the callable, a JSON object.")
]
InputOption = Annotated[
    list[str],
    typer.Option(
        "--input", "-i", metavar="SHAPE", help="1x3x224x224, or 1x16:int64 with a dtype; repeat for more inputs."
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", "-d", metavar="NAME", help="A name of the catalogue, or a device file.")
]
ModelOption = Annotated[
    str, typer.Option("--model", "-m", metavar="FILE", help="A cost model, or `default` for the shipped one.")
]
RuntimeOption = Annotated[
    str, typer.Option("--runtime", metavar="NAME", help="torch-eager, torch-compile, onnxruntime or openvino.")
]
RuntimeOfModelOption = Annotated[
    str | None, typer.Option("--runtime", metavar="NAME", help="Must be the model's; chooses a shipped one.")
]
ThreadsOfModelOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="Must be the model's; chooses a shipped one.")
]
ThreadsOption = Annotated[int, typer.Option("--threads", min=1, help="Threads the network runs on.")]
EnvironmentOption = Annotated[
    str,
    typer.Option("--environment", metavar="DIGITS", help="Which one, where several of the store fit."),
]
DtypeOption = Annotated[str, typer.Option("--dtype", help="Dtype whose compute ceiling counts.")]
QuantileOption = Annotated[
    str,
    typer.Option("--quantile", metavar="NAME", help="Latency meant: low (unloaded), typical (0.5) or tail (0.95)."),
]
PlotOption = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Draw achieved against paper into an HTML file.")
]
StoreOption = Annotated[
    str, typer.Option("--store", metavar="URL", help="Where measurements are kept: a file, or a database URL.")
]


def load_device(name: str) -> Device:
    """A device of the catalogue or of a file."""
    from hwcost.device.device import Device

    return Device.load(name)


def load_model(
    name: str, *, runtime: str | None = None, threads: int | None = None, quantile: str = "low"
) -> CostModel:
    """A cost model's file, or the shipped one for `default` (by default that of torch-eager on one thread), saying
    the latency that is meant; its warning becomes a line.

    Raises:
        ModelError: none such, or of another runtime or thread count than what was asked for.
        MeasurementError: no such quantile, or nothing measured tells it.
    """
    from hwcost.model.cost_model import CostModel, DefaultModel

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DefaultModel)
        model = CostModel.load(name, runtime=runtime, threads=threads)
    for warning in caught:
        say(str(warning.message))
    return model if quantile == "low" else model.at_quantile(quantile)


def save_ceilings(device: Device, path: Path | None) -> None:
    """Draw a device's achieved ceilings against those on paper, where a file is asked for."""
    if path is None:
        return
    from hwcost.report.ceilings import ceiling_notes, ceilings_figure
    from hwcost.report.html import save_figure

    save_figure(ceilings_figure(device), writable(path), f"Ceilings of {device.name}", ceiling_notes(device))
    say(f"wrote {path}")
