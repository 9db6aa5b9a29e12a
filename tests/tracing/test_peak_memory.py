"""Peak memory of whatever lives at the end of a forward, and in the first trace of a process."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hwcost

FLOATS = torch.zeros(1000)


@dataclass
class Pair:
    a: Tensor
    b: Tensor


class Cache:
    def __init__(self) -> None:
        self.layers: list[Tensor] = []


class Keeps(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        self.features = [x * 2 for _ in range(10)]
        return x.sum()


def cached(x: Tensor, cache: Cache) -> Tensor:
    for _ in range(5):
        cache.layers.append(x + 1)
    return x.sum()


def returned(x: Tensor) -> Any:
    cache = Cache()
    cache.layers += [x + 1, x + 2, x + 3]
    return x.sum(), cache


@pytest.mark.parametrize(
    ("forward", "more", "floats"),
    [
        (lambda x: (x * 2, x * 3), (), 3000),  # the input and both products
        (lambda x: Pair(x * 2, x * 3), (), 3000),
        (lambda x: {"held": [Pair(x * 2, x * 3)]}, (), 3000),
        (Keeps(), (), 1000 + 10 * 1000 + 1),  # ten features, and the sum
        (cached, (Cache(),), 1000 + 5 * 1000 + 1),
        (returned, (), 1000 + 3 * 1000 + 1),
    ],
)
def test_what_lives_at_the_end_counts(forward: Any, more: tuple[Any, ...], floats: int) -> None:
    assert hwcost.trace(forward, (FLOATS, *more)).peak_memory == 4 * floats


def test_the_first_trace_of_a_process_holds_what_the_second_does() -> None:
    """The meta kernel of roll imports much when it is first called, which holds the frame of the forward."""
    code = (
        "import torch, hwcost\n"
        "def turn(u):\n"
        "    return u.t().roll(1, 0).sum()\n"
        "def forward(u):\n"
        "    a = turn(u)\n"
        "    return (u * 2).sum() + a + (u * 3).sum()\n"
        "u = torch.zeros(64, 1024, device='meta')\n"
        "print(*(hwcost.trace(forward, (u,)).peak_memory for _ in range(2)))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    first, second = map(int, done.stdout.split())
    # u and one other matrix at a time; beside the last product a, the sum before it, and its own sum
    assert first == second == 2 * 64 * 1024 * 4 + 3 * 4
