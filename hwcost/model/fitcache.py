"""Fits remembered on this machine, so that loading a model again does not fit it again.

The key is a hash of the model file's bytes and of the versions that a fit depends on. The cache is
this user's own folder and is never part of a model file: what a user is given holds data alone, and
a cache that is lost, damaged or of another user is simply not used.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from hwcost.paths import kept
from hwcost.version import __version__

if TYPE_CHECKING:
    from hwcost.model.fit import Fitted
    from hwcost.model.provenance import About


@dataclass(frozen=True, slots=True)
class Known:
    """What is kept of a model file."""

    fitted: Fitted
    about: About


def key(content: bytes) -> str:
    """Identity of a fit: the data and everything that turns data into a fit."""
    versions = [
        __version__,
        platform.python_version(),
        *(version(p) for p in ("scikit-learn", "numpy", "scipy")),
    ]
    code = b"".join(path.read_bytes() for path in sources())
    return hashlib.sha256(content + "\0".join(versions).encode() + code).hexdigest()


def sources() -> list[Path]:
    """The code that turns data into a fit. A cost model's kernels are priced by the rules, so these belong to it, and
    so does what reads measurements and says how certain they are."""
    here = Path(__file__).parents[1]
    return sorted(here.rglob("*.py"))


def recall(content: bytes) -> Known | None:
    """The fit of a model file's bytes, if this user has made it before."""
    path = kept() / f"{key(content)}.pickle"
    try:
        if path.stat().st_uid != _user():
            return None
        found = pickle.loads(path.read_bytes())
    except Exception:  # whatever is wrong with a cache, the answer is to fit again
        return None
    return found if isinstance(found, Known) else None


def remember(content: bytes, known: Known) -> None:
    """Keep a fit; where the folder cannot be written it is not kept."""
    path = kept() / f"{key(content)}.pickle"
    try:
        kept().mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_bytes(pickle.dumps(known, pickle.HIGHEST_PROTOCOL))
        partial.replace(path)
    except OSError:
        return


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0
