"""Which errors a user can cause, and what is said of them.

A verb returns normally or raises. `explain` gives one line for an error that a user can cause: a usage error, a
ValueError that this package raises, a runtime that is not installed, a file that cannot be read or written. Any other
exception is a bug and keeps its traceback.
"""

from __future__ import annotations


class UsageError(ValueError):
    """A command line that breaks a rule; the message names the rule, the value and the next step."""


def explain(error: Exception) -> str | None:
    """What to tell the user; None for a bug."""
    if hasattr(error, "format_message"):  # a usage error of the command line parser
        command = getattr(getattr(error, "ctx", None), "command_path", "hwcost")
        return f"{error.format_message().rstrip('.')}. See `{command} --help`."
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror or error}"
    return str(error) if _is_for_users(error) else None


def _is_for_users(error: Exception) -> bool:
    """Whether the message was written for a user: a type of this package, or a ValueError that it raised itself."""
    if type(error).__module__.partition(".")[0] == "hwcost":
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_in = str(trace.tb_frame.f_globals.get("__name__", "")) if trace is not None else ""
    return type(error) is ValueError and raised_in.partition(".")[0] == "hwcost"
