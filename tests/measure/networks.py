"""Small networks for campaigns, and a campaign that can be run as a process of its own.

python networks.py URL COUNT ROUNDS     prints a line for each round that the store has taken
"""

import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from hwcost.measure.types import Item


def _build(width: int) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    net = nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)
    )
    net(torch.zeros(1, 3, 8, 8))
    return net, (torch.empty(1, 3, 8, 8, device="meta"),)


def item(width: int) -> Item:
    """A network that takes well below a millisecond."""
    return Item(name=f"toy/{width}", family="toy", spec={"width": width}, build=lambda: _build(width))


def items(count: int) -> Iterator[Item]:
    """Networks toy/1 to toy/`count`."""
    return (item(width) for width in range(1, count + 1))


def main(url: str, count: int, rounds: int) -> None:
    """A campaign that says what it has stored."""
    from hwcost.measure.campaign import measure
    from hwcost.measure.store.store import Store

    store = Store.open(url, create=True)
    add = store.add_round

    def say(network_id: int, number: int, taken: Any) -> None:
        add(network_id, number, taken)
        print(network_id, number, flush=True)

    store.add_round = say  # type: ignore[method-assign]
    measure(list(items(count)), store=store, rounds=rounds)
    print("end", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
