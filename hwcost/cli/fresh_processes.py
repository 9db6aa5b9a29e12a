"""Fresh processes for `hwcost measure --space` on runtimes that take activations from the process's heap.

The heap of a process that has held many networks is fragmented: activations that a process of one network would find
in its caches lie at other addresses each time, and the same network takes up to a fifth longer. The networks of a
space are therefore measured by processes of a few networks each, one after another, and the last ones by the process
that was started by the user. Each is `hwcost measure` itself, told how many networks are to be in the store when it
ends, with an environment variable that says that it is such a process.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
import time as clock
from collections.abc import Mapping
from typing import Any

import typer

from hwcost.cli.output import Progress

_NETWORKS = 40  # that a process measures before another one takes over
_VARIABLE = "HWCOST_PART"  # set for such processes: how many networks are wanted in all, 0 for as many as time allows


def is_one() -> bool:
    """Whether this is a process that `measure_all_but_the_last` started."""
    return _VARIABLE in os.environ


def end_with_parent() -> None:
    """End this process when the one that started it ends."""
    from hwcost.measure.process import end_with_parent as end

    end()


def measure_all_but_the_last(options: Mapping[str, Any], samples: int | None, time: str) -> tuple[str, int, int]:
    """Have fresh processes measure all networks of a space but the last few.

    Args:
        options: of `hwcost measure`, by name, but for those below.
        samples: number of networks that are wanted; None for as many as the time allows.
        time: to spend, with its unit; "" for no limit.

    Returns:
        The time that is left, the number of visits to networks, and how many of these were disturbed.

    Raises:
        typer.Exit: such a process failed; it has said why.
    """
    from hwcost import units

    end = clock.monotonic() + units.parse(time, "second") if time else math.inf
    visits = disturbed = 0
    numbers = itertools.count(_NETWORKS, _NETWORKS) if samples is None else range(_NETWORKS, samples, _NETWORKS)
    for number in numbers:
        left = end - clock.monotonic()
        if left <= 0:
            break
        given = {**options, **({"time": f"{left:.1f} s"} if time else {}), "samples": number}
        words = itertools.chain.from_iterable((f"--{name}", str(value)) for name, value in given.items())
        command = [sys.executable, "-m", "hwcost", "measure", *words, "--json"]
        environment = {**os.environ, _VARIABLE: str(samples or 0)}
        done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=False)
        if done.returncode:
            raise typer.Exit(done.returncode)
        document = json.loads(done.stdout)
        visits += document["visits"]
        disturbed += document["disturbed"]
    return f"{max(end - clock.monotonic(), 0.1):.1f} s" if time else "", visits, disturbed


def progress_of_all(bar: Progress, rounds: int, budget: float) -> Progress:
    """A progress function for one of several processes, which moves the bar of all of them together.

    Args:
        bar: what it moves.
        rounds: of each network.
        budget: the time (s) that is left to this process and those after it; inf for no limit.
    """
    wanted = int(os.environ[_VARIABLE]) * rounds or math.inf
    begun = clock.monotonic()
    first: float | None = None  # rounds that were done before this process began

    def told(done: float, total: float, note: str = "") -> None:
        nonlocal first
        if first is None:
            first = done
        share = (clock.monotonic() - begun) / budget  # of the time that is left; 0 where it is without end
        expected = first + (done - first) / share if share > 0 else math.inf
        least = min(wanted, expected)
        bar(done, max(done, least if math.isfinite(least) else total), note)

    return told
