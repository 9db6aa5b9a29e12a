"""Tests of hwcost.runtimes.reuse: distances worked out by hand, and many networks at once against one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hwcost import trace
from hwcost.runtimes.registry import get_runtime, runtime_names
from hwcost.runtimes.reuse import Reuse


def test_the_distance_is_what_moved_since_the_input_was_written() -> None:
    reuse = Reuse([0], 0)
    assert reuse.step([(0, 8)], 100, [1]) == 0  # the input of the network: nothing was moved yet
    assert reuse.step([(1, 8)], 30, [2]) == 0  # just written
    assert reuse.step([(0, 8)], 7, [3]) == 130
    assert reuse.step([(1, 8)], 7, [4]) == 37


def test_of_a_small_and_a_large_activation_the_large_one_counts() -> None:
    for reads in ([(0, 8), (1, 2)], [(1, 2), (0, 8)]):
        reuse = Reuse([0], 0)
        reuse.step([(0, 8)], 100, [1])
        assert reuse.step(reads, 1, [2]) == 100


def test_of_equal_activations_that_made_last_counts() -> None:
    for reads in ([(0, 8), (1, 8)], [(1, 8), (0, 8)]):
        reuse = Reuse([0], 0)
        reuse.step([(0, 8)], 100, [1])
        assert reuse.step(reads, 1, [2]) == 0


def test_a_view_was_written_when_its_source_was() -> None:
    reuse = Reuse([0], 0)
    reuse.step([(0, 8)], 100, [1])
    reuse.step([(1, 8)], 30, [2])
    reuse.view(1, [3])
    assert reuse.step([(3, 8)], 1, [4]) == 30


def test_what_is_changed_in_place_was_written_then() -> None:
    reuse = Reuse([0], 0)
    reuse.step([(0, 8)], 100, [0])
    assert reuse.step([(0, 8)], 1, [1]) == 0


def test_a_kernel_that_reads_no_activation_has_none() -> None:
    reuse = Reuse([0], 0)
    assert reuse.step([], 100, [1]) == -1
    assert reuse.step([(7, 8)], 1, [2]) == -1  # nobody wrote it
    assert reuse.step([(1, 8)], 1, [3]) == 1


def test_a_part_begins_after_what_moved_since_its_input_was_written() -> None:
    assert Reuse([0], 500).step([(0, 8)], 1, [1]) == 500


kernels = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), max_size=3),  # reads: value, index of its size
        st.integers(0, 3),  # moves: index of the size
        st.lists(st.integers(0, 6), max_size=2),  # writes
        st.booleans(),  # whether it makes views of its first read instead
    ),
    max_size=12,
)


@given(kernels, st.lists(st.lists(st.integers(0, 99), min_size=4, max_size=4), min_size=1, max_size=3))
def test_many_networks_at_once_are_as_one_by_one(steps: list[tuple], sizes: list[list[int]]) -> None:  # type: ignore[type-arg]
    def distances(size: list, moved: object) -> list:  # type: ignore[type-arg]
        reuse, found = Reuse([0, 1], moved), []  # type: ignore[type-var]
        for reads, moves, writes, view in steps:
            if view and reads:
                reuse.view(reads[0][0], writes)
            else:
                found.append(reuse.step([(value, size[which]) for value, which in reads], size[moves], writes))
        return found

    together = distances(list(np.array(sizes, dtype=np.int64).T), np.zeros(len(sizes), dtype=np.int64))
    for number, own in enumerate(sizes):
        assert distances(own, 0) == [int(np.broadcast_to(each, len(sizes))[number]) for each in together]


class Joined(nn.Module):
    """Adds a mean of a map to the map itself, in either order (`first`: the mean is the first operand).

    Several kernels run between writing the map and the sum, so that the map, the larger operand, has a long distance.
    """

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        large = torch.exp(x)
        small = torch.exp(torch.exp(large.mean((2, 3), keepdim=True)))
        return small + large if self.first else large + small


@pytest.mark.parametrize("runtime", ["torch-eager", "onnxruntime"])
def test_all_runtimes_take_the_largest_in_whichever_order(runtime: str) -> None:
    found = []
    for first in (False, True):
        graph = trace(Joined(first), (torch.empty(1, 5, 16, 16),))
        found.append([p.distance for p in get_runtime(runtime).lower(graph).kernels])
    assert found[0] == found[1]
    assert found[0][-1] > 5 * 16 * 16 * 4  # the mean alone has read the whole map since it was written


@pytest.mark.parametrize("runtime", runtime_names())
def test_an_input_read_at_once_is_at_distance_0(runtime: str) -> None:
    network = get_runtime(runtime).lower(trace(nn.Linear(8, 8), (torch.empty(4, 8),)))
    assert network.kernels[0].distance == 0
