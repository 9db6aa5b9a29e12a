"""Damaged files of every kind: each must give the right answer, or be refused in one line.

    python tests/fuzz/fuzz.py                    10,050 inputs: a line for each kind, and one for each fault
    python tests/fuzz/fuzz.py --kinds store onnx --inputs 5000 --seed 7

Faults are tracebacks, hangs and, where a file has a digest, other answers. A text that people write, such as a device
file, has none: what a changed digit says is what the file says, which the column "otherwise" counts.
"""

from __future__ import annotations

import argparse
import faulthandler
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from kinds import Kind, kinds

from hwcost.cli.errors import explain

_HANG = 30  # s for one input
OUTCOMES = ("right", "refused", "otherwise", "other answer", "traceback", "hang")
FAULTS = OUTCOMES[3:]


class _Hang(BaseException):
    pass


def fuzz(kind: Kind, inputs: int, seed: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """How many inputs had which outcome, and a line for each fault."""
    counts, faults = Counter[str](), list[str]()
    answers = {path: kind.ask(path) for path in kind.seeds}
    for number in range(inputs):
        rng = np.random.default_rng([seed, number])
        path = kind.seeds[number % len(kind.seeds)]
        with _damaged(kind, path, folder, rng, number / inputs) as changed:
            outcome, said = _ask(kind, changed, answers[path])
        counts[outcome] += 1
        if outcome in FAULTS:
            faults.append(f"{kind.name}, seed {seed}, input {number}: {outcome}: {said}")
    return counts, faults


@contextmanager
def _damaged(kind: Kind, seed: Path, folder: Path, rng: np.random.Generator, place: float) -> Iterator[Path]:
    """A damaged copy of a seed, in a folder of its own, deleted afterwards."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        copy = Path(own) / seed.name
        if kind.inside:
            shutil.copytree(seed, copy)
            files = sorted(copy.glob(kind.inside))
            file = files[int(place * len(files))]
            place = place * len(files) % 1
        else:
            file = copy
        content = (seed / file.name if kind.inside else seed).read_bytes()
        file.write_bytes(kind.mutate(content, rng, place))
        yield copy


def _ask(kind: Kind, path: Path, right: Any) -> tuple[str, str]:
    signal.signal(signal.SIGALRM, _ring)
    signal.setitimer(signal.ITIMER_REAL, _HANG)
    faulthandler.dump_traceback_later(4 * _HANG, exit=True)  # a loop in compiled code does not hear the signal
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = kind.ask(path)
    except _Hang:
        return "hang", f"more than {_HANG} s"
    except Exception as error:
        if explain(error):
            return "refused", ""
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return "traceback", f"{type(error).__name__}: {str(error)[:100]!r} at {frame.filename}:{frame.lineno}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
    if found == right:
        return "right", ""
    return ("other answer" if kind.told else "otherwise"), repr(found)[:100]


def _ring(*_: Any) -> None:
    raise _Hang


def main() -> int:
    """Print the table; 1 where there are faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="*", default=[], help="of files; all by default")
    parser.add_argument("--inputs", type=int, default=670, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    every = list[str]()
    with tempfile.TemporaryDirectory() as made:
        (Path(made) / "work").mkdir()
        print(f"{'kind':20}{'inputs':>8}" + "".join(f"{name:>14}" for name in OUTCOMES))
        for kind in kinds(Path(made)):
            if options.kinds and kind.name not in options.kinds:
                continue
            counts, faults = fuzz(kind, options.inputs, options.seed, Path(made))
            cells = "".join(f"{counts[name]:>14}" for name in OUTCOMES)
            print(f"{kind.name:20}{options.inputs:>8}{cells}", flush=True)
            every += faults
            print(*faults, sep="\n", end="\n" * bool(faults), flush=True)
    return 1 if every else 0


if __name__ == "__main__":
    sys.exit(main())
