"""The reuse distance of kernels: the bytes that a network moves between writing an activation and reading it.

It decides in which cache level, if any, a kernel finds its input (`hwcost.roofline`). The same definition holds for all
runtimes, for measured and for lowered networks, and for latency tables:

1. Kernels run one after the other; each moves its compulsory traffic.
2. Of the activations that a kernel reads, only the largest counts, by the bytes that the kernel reads of it; of equally
   large ones, that with the highest value number, which was made last. Weights do not count.
3. A view counts as written when the tensor that it is a view of was. The inputs of a network are written before its
   first kernel runs.
4. A kernel that reads no activation, or whose largest activation nobody wrote, has distance -1.

Sizes are integers. They are integer arrays where many networks that differ in their sizes alone are stepped through at
once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

Bytes = TypeVar("Bytes", int, NDArray[np.int64])  # one number, or an array [networks]


class Reuse(Generic[Bytes]):
    """Steps through the kernels of a network in the order they run. Value numbers grow in the order values are made."""

    def __init__(self, inputs: Iterable[int], moved: Bytes) -> None:
        """Begin before the first kernel.

        Args:
            inputs: numbers of the values that are inputs of the network.
            moved: bytes that were moved since the inputs were written: 0, or `Graph.since` for a part of a network.
        """
        self._moved: Bytes = moved
        self._written: dict[int, Bytes] = dict.fromkeys(inputs, 0 * moved)

    def step(self, reads: Iterable[tuple[int, Bytes]], moves: Bytes, writes: Iterable[int]) -> Bytes:
        """Run a kernel.

        Args:
            reads: numbers of the activations that it reads, each with its size (byte).
            moves: its compulsory traffic (byte).
            writes: numbers of the values that it makes, or changes in place.

        Returns:
            Its reuse distance (byte), -1 where it reads no activation.
        """
        distance = self._distance(reads)
        self._moved = self._moved + moves
        self._written.update(dict.fromkeys(writes, self._moved))
        return distance

    def view(self, source: int, views: Iterable[int]) -> None:
        """Make `views` views of `source`: they count as written when that was, or now where nobody wrote it."""
        self._written.update(dict.fromkeys(views, self._written.get(source, self._moved)))

    def _distance(self, reads: Iterable[tuple[int, Bytes]]) -> Bytes:
        """Bytes moved since the largest of `reads` was written, -1 where none was."""
        none = 0 * self._moved - 1
        largest, distance = none, none
        for value, size in sorted(reads, key=_number):
            since = self._moved - self._written[value] if value in self._written else none
            larger = size >= largest
            largest, distance = _where(larger, size, largest), _where(larger, since, distance)
        return distance


def _number(read: tuple[int, object]) -> int:
    return read[0]


def _where(condition: bool | NDArray[np.bool_], yes: Bytes, no: Bytes) -> Bytes:
    """`yes` where the condition holds, else `no`."""
    if isinstance(condition, np.ndarray):
        return cast(Bytes, np.where(condition, yes, no))
    return yes if condition else no
