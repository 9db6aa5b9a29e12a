"""The fast path of torch's attention layers: nn.MultiheadAttention or nn.TransformerEncoderLayer as a single op.

torch takes it in inference where a layer's settings allow it. Whether it may is a setting of the whole process,
which `by_parts` changes for a while. So that a trace on another thread does not see the change, a trace holds the lock
`following` while it follows a forward. A layer that runs on another thread meanwhile computes the same by its parts.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.RLock()


@contextmanager
def following() -> Iterator[None]:
    """Wait until no other thread follows a forward or has the fast path turned off, and keep others waiting."""
    with _lock:
        yield


@contextmanager
def by_parts() -> Iterator[None]:
    """Turn the fast path off, so that attention layers call their projections, products and softmax one by one."""
    import torch

    with following():
        was = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(was)


def _unlock() -> None:
    """Give a forked process a lock of its own, since the thread that held the parent's does not exist there."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_unlock)
