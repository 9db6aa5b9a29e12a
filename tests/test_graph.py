"""Tests of hwcost.graph: what a tensor weighs, what a graph adds up, when memory peaks."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwcost.cost import Cost
from hwcost.graph import ITEMSIZE, Graph, Life, Op, OpSpec, TensorSpec, block_name


def op(module: str = "", macs: int = 0, state: str = "costed", name: str = "aten.relu.default") -> Op:
    spec = OpSpec(name.split(".")[1], (), ())
    return Op(name, spec, module, (), (), Cost(macs=macs), state)  # type: ignore[arg-type]


def graph(*ops: Op, lives: tuple[Life, ...] = (), weight_bytes: int = 0) -> Graph:
    return Graph(
        ops=ops, inputs=(), input_values=(), output_values=(), params=0, weight_bytes=weight_bytes, lives=lives
    )


# -- tensors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", sorted(ITEMSIZE))
def test_item_sizes_agree_with_torch(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    assert getattr(torch, dtype).itemsize == ITEMSIZE[dtype]


def test_bytes_are_those_of_the_distinct_elements() -> None:
    assert TensorSpec("input", (2, 3, 4)).bytes == 24 * 4
    assert TensorSpec("input", (2, 3, 4), "bfloat16").bytes == 24 * 2
    assert TensorSpec("input", ()).bytes == 4  # a scalar is one element
    assert TensorSpec("input", (0, 5)).bytes == 0
    expanded = TensorSpec("bias", (8, 16), overlapping=7 * 16)  # [16] expanded to [8, 16]: stride 0
    assert (expanded.numel, expanded.elements, expanded.bytes) == (128, 16, 64)


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match=r"dtype must be one of .*float32.*, but got 'float31'"):
        TensorSpec("input", (2,), "float31")


def test_an_op_gives_its_inputs_and_parameters_by_name() -> None:
    weight = TensorSpec("weight", (4, 4), weight=True)
    spec = OpSpec("linear", (TensorSpec("input", (1, 4)), weight), (), (("groups", 2),))
    assert spec.input("weight") is weight
    assert spec.input("bias") is None
    assert spec.param("groups") == 2
    assert spec.param("stride", (1, 1)) == (1, 1)


# -- graphs -----------------------------------------------------------------------------------


def test_a_graph_costs_what_its_ops_cost() -> None:
    assert graph(op(macs=3), op(macs=4)).cost == Cost(macs=7)
    assert graph().cost == Cost()


def test_status_and_what_was_not_counted() -> None:
    assert graph(op(), op(state="free")).status == "complete"
    strange = graph(
        op("stages.0", state="unknown", name="aten.roll.default"),
        op("stages.0"),
        op("stages.1", state="unknown", name="lib.fold.default"),
        op("stages.2", state="unknown", name="aten.roll.default"),
    )
    assert strange.status == "partial"
    assert strange.uncounted == (("aten.roll.default", 2, "stages.0"), ("lib.fold.default", 1, "stages.1"))


def test_blocks_cut_the_module_path() -> None:
    found = graph(
        op("stem.conv", 1), op("stages.0.a", 2), op("stages.0.b", 4), op("stages.1", 8), op("", 16), op("stem", 32)
    )
    assert {k: v.macs for k, v in found.blocks(depth=1).items()} == {"stem": 33, "stages": 14, "": 16}
    assert {k: v.macs for k, v in found.blocks(depth=2).items()} == {
        "stem.conv": 1, "stages.0": 6, "stages.1": 8, "": 16, "stem": 32,
    }  # fmt: skip
    assert list(found.blocks(depth=2)) == ["stem.conv", "stages.0", "stages.1", "", "stem"]
    assert found.blocks() == found.blocks(depth=2)
    with pytest.raises(ValueError, match="depth must be at least 1, but got 0"):
        found.blocks(depth=0)


@given(st.lists(st.tuples(st.sampled_from(["", "a", "a.b", "a.b.c", "d.e"]), st.integers(0, 9))), st.integers(1, 4))
def test_blocks_add_up_to_the_whole(placed: list[tuple[str, int]], depth: int) -> None:
    found = graph(*(op(module, macs) for module, macs in placed))
    assert sum(found.blocks(depth=depth).values(), Cost()) == found.cost


def test_block_name() -> None:
    assert [block_name("a.b.c", depth) for depth in (1, 2, 3, 9)] == ["a", "a.b", "a.b.c", "a.b.c"]
    assert block_name("", 2) == ""


def taken_apart(*kinds: str) -> Graph:
    """Value 0 is split into values 1 and 2, which further ops then read."""
    half = TensorSpec("out", (1, 4))
    whole = TensorSpec("self", (2, 4))
    first = Op("aten.unbind.int", OpSpec("unbind", (whole,), (half, half)), "", (0,), (1, 2), Cost(), "free")
    rest = [op(name=f"aten.{kind}.default", macs=1) for kind in kinds]
    return replace(graph(first, *rest), inputs=(whole,), input_values=(0,))


def test_a_block_of_several_inputs_gets_them_apart() -> None:
    found = taken_apart("add").unstacked()
    assert [each.spec.kind for each in found.ops] == ["add"]
    assert found.input_values == (1, 2)
    assert [t.shape for t in found.inputs] == [(1, 4), (1, 4)]
    assert graph(op(macs=3)).unstacked() == graph(op(macs=3))


def test_the_form_by_parts_changes_with_the_graph() -> None:
    both = replace(taken_apart("_native_multi_head_attention"), by_parts=taken_apart("linear", "softmax"))
    found = both.unstacked()
    assert found.by_parts is not None
    assert [each.spec.kind for each in found.by_parts.ops] == ["linear", "softmax"]
    assert found.by_parts.input_values == found.input_values == (1, 2)
    later = both.changed(lambda form: replace(form, since=7))
    assert later.by_parts is not None
    assert (later.since, later.by_parts.since, later.by_parts.by_parts) == (7, 7, None)


def test_the_form_by_parts_is_pickled_and_not_compared() -> None:
    both = replace(graph(op(macs=3)), by_parts=graph(op(macs=1), op(macs=2)))
    assert both == graph(op(macs=3))
    assert both.cost == Cost(macs=3)
    assert pickle.loads(pickle.dumps(both)).by_parts == both.by_parts


# -- memory -----------------------------------------------------------------------------------


def test_memory_peaks_where_most_is_alive() -> None:
    # A chain of three ops whose input (100) lives to op 0, whose middles (50, 80) live one op more,
    # and whose output (10) stays: op 0 holds 100 + 50, op 1 holds 50 + 80, op 2 holds 80 + 10.
    lives = (Life(100, -1, 0), Life(50, 0, 1), Life(80, 1, 2), Life(10, 2, 2))
    chain = graph(op("a"), op("b"), op("c"), lives=lives, weight_bytes=1000)
    assert chain.peak_memory == 1000 + 150
    assert chain.peak_op is not None
    assert chain.peak_op.module == "a"


def test_a_residual_connection_keeps_its_input_alive() -> None:
    short = graph(op("a"), op("b"), lives=(Life(100, -1, 0), Life(100, 0, 1), Life(100, 1, 1)))
    held = graph(op("a"), op("b"), lives=(Life(100, -1, 1), Life(100, 0, 1), Life(100, 1, 1)))
    assert (short.peak_memory, held.peak_memory) == (200, 300)


def test_a_graph_without_ops_holds_its_inputs() -> None:
    assert graph(lives=(Life(64, -1, 0),), weight_bytes=8).peak_memory == 72
    assert graph().peak_op is None


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-1, 5), st.integers(0, 5)), max_size=8))
def test_the_peak_is_the_worst_of_all_moments(spans: list[tuple[int, int, int]]) -> None:
    lives = tuple(Life(size, born, max(born, dies, 0)) for size, born, dies in spans)
    found = graph(*(op(str(i)) for i in range(6)), lives=lives)
    moments = [sum(life.bytes for life in lives if life.born <= i <= life.dies) for i in range(6)]
    assert found.peak_memory == max(moments)
    if max(moments):
        assert found.peak_op is not None
        assert moments[int(found.peak_op.module)] == max(moments)
