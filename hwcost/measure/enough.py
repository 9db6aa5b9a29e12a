"""Which kernels a campaign has measured often enough, in their contexts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hwcost.kernel import bucket
from hwcost.measure.store.store import Store
from hwcost.runtimes.base import Network

_ENOUGH = 3  # complete networks that hold a kernel in context before it counts as known


class Known:
    """Kernels in context, and how many complete networks hold each."""

    def __init__(self, store: Store, environment_id: int, rounds: int) -> None:
        self._count = Counter(
            context
            for network in store.contexts(environment_id, rounds)
            for context in {(digest, bucket(distance)) for digest, distance in network}
        )

    def add(self, networks: Iterable[Network]) -> None:
        """Networks that are complete now."""
        for network in networks:
            self._count.update(_contexts(network))

    def holds(self, network: Network) -> bool:
        """Whether every kernel is known where it stands."""
        return all(self._count[context] >= _ENOUGH for context in _contexts(network))


def _contexts(network: Network) -> set[tuple[str, int]]:
    return {(p.kernel.digest, bucket(p.distance)) for p in network.kernels}
