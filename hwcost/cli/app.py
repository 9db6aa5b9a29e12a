"""The command line: `hwcost VERB`, also `python -m hwcost VERB`.

Each verb has a file in this package, with its options and what it prints. Nothing here or at the top of those files
loads torch, scikit-learn, pandas, numpy or pydantic, so that `hwcost --help` is instant.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hwcost.cli.errors import explain
from hwcost.cli.options import examples
from hwcost.cli.output import end_output, say
from hwcost.version import __version__

_VERBS = (  # files of this package, in the order of the help, which is that of the work
    "quickstart",
    "calibrate",
    "measure",
    "export",
    "import_",
    "estimate",
    "advise",
    "devices",
    "roofline",
    "fit",
    "evaluate",
    "table",
    "search",
)


class _Verbs(TyperGroup):
    """The verbs; Ctrl-C ends any of them with one line."""

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of registration."""
        return list(self.commands)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            say("interrupted")
            raise typer.Exit(130) from None


app = typer.Typer(
    name="hwcost",
    cls=_Verbs,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "hwcost quickstart",
        "hwcost calibrate --threads 1 -o here.toml",
        "hwcost estimate nets.py:build --input 1x3x224x224 --device here.toml",
        'hwcost search --space tiny-cnn --model default --budget "5 ms" --trials 60',
    ),
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hwcost {__version__}")
        raise typer.Exit


@app.callback()
def _hwcost(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """How long a neural architecture takes on a device, before anyone trains it.

    Counts work and traffic of an nn.Module, bounds its time by a device's roofline,
    corrects the bound with measurements, and lets Optuna search with the result.
    """


for _verb in _VERBS:
    import_module(f"hwcost.cli.{_verb}").register(app)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (None: this process's own) and return its exit code.

    0 is success, 2 an error that the user caused, with one line on standard error, and 130 Ctrl-C.

    Raises:
        Exception: a bug.
    """
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        code = app(arguments, prog_name="hwcost", standalone_mode=False)
    except BrokenPipeError:
        end_output()
        return 0
    except typer.Abort:
        say("interrupted")
        return 130
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        say(line)
        return 2
    return code if isinstance(code, int) else 0
