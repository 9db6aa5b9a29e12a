"""Tests of hwcost.kernel: a description is complete, canonical, and read back with care."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwcost.graph import ITEMSIZE, OpSpec, TensorSpec
from hwcost.kernel import Kernel, KernelError
from hwcost.model.provenance import unpacked
from hwcost.paths import shipped
from hwcost.rules.registry import cost_of


def tensor(name: str, *shape: int, **flags: Any) -> TensorSpec:
    return TensorSpec(name, shape, **flags)


CONV = OpSpec(
    "conv2d",
    (tensor("input", 1, 8, 10, 10), tensor("weight", 16, 8, 3, 3, weight=True)),
    (tensor("output", 1, 16, 8, 8),),
    (("dilation", (1, 1)), ("groups", 1), ("padding", (0, 0)), ("stride", (1, 1))),
)
RELU = OpSpec("relu", (tensor("self", 1, 16, 8, 8),), (tensor("output", 1, 16, 8, 8),))

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
scalars = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | names
values = scalars | st.lists(scalars, max_size=3).map(tuple)
whole_tensors = st.builds(
    TensorSpec,
    name=names,
    shape=st.lists(st.integers(0, 512), max_size=4).map(tuple),
    dtype=st.sampled_from(sorted(ITEMSIZE)),
    weight=st.booleans(),
    internal=st.booleans(),
    repeat=st.booleans(),
    layout=st.sampled_from(["contiguous", "channels_last", "strided"]),
    overlapping=st.just(0),
)
tensors = st.builds(
    lambda tensor, elements: replace(tensor, overlapping=tensor.numel - elements),
    whole_tensors,
    st.integers(0, 2**40),
)
parameters = st.dictionaries(names, values, max_size=4).map(lambda d: tuple(sorted(d.items())))
ops = st.builds(
    OpSpec,
    kind=names,
    inputs=st.lists(tensors, max_size=3).map(tuple),
    outputs=st.lists(tensors, max_size=2).map(tuple),
    params=parameters,
)
kernels = st.lists(ops, min_size=1, max_size=2).map(lambda found: Kernel(tuple(found)))


@given(kernels)
def test_a_kernel_is_its_text(kernel: Kernel) -> None:
    again = Kernel.from_json(kernel.to_json())
    assert again == kernel
    assert again.to_json() == kernel.to_json()
    assert again.digest == kernel.digest


@given(tensors, st.sampled_from(["name", "shape", "dtype", "weight", "internal", "repeat", "layout", "overlapping"]))
def test_every_part_of_a_tensor_counts_for_the_digest(spec: TensorSpec, part: str) -> None:
    other = {"name": spec.name + "'", "shape": (*spec.shape, 2), "overlapping": spec.overlapping - 1}
    other |= {flag: not getattr(spec, flag) for flag in ("weight", "internal", "repeat")}
    other |= {"dtype": "int8" if spec.dtype != "int8" else "int16", "layout": spec.layout + "'"}
    changed = replace(spec, **{part: other[part]})
    assert changed != spec
    assert Kernel((OpSpec("relu", (changed,), ()),)).digest != Kernel((OpSpec("relu", (spec,), ()),)).digest


def test_every_part_of_an_op_counts_for_the_digest() -> None:
    others = [
        replace(CONV, kind="conv3d"),
        replace(CONV, inputs=CONV.inputs[::-1]),
        replace(CONV, inputs=CONV.inputs[:1]),
        replace(CONV, outputs=()),
        replace(CONV, params=CONV.params[1:]),
        replace(CONV, params=(*CONV.params[:-1], ("stride", (2, 1)))),
    ]
    assert len({Kernel((op,)).digest for op in [CONV, *others]}) == 1 + len(others)
    assert Kernel((CONV, RELU)).digest != Kernel((RELU, CONV)).digest


def test_the_order_in_which_a_file_was_written_does_not_matter() -> None:
    kernel = Kernel((CONV,))
    turned = json.dumps([dict(reversed(op.items())) for op in json.loads(kernel.to_json())], indent=2)
    assert Kernel.from_json(turned).digest == kernel.digest


def test_a_whole_float_is_the_same_parameter_as_the_integer() -> None:
    # 1.0 == 1, so the kernels are equal, and equal kernels have equal digests.
    whole, broken = (Kernel((OpSpec("add", (), (), (("alpha", v),)),)) for v in (1, 1.0))
    assert whole == broken
    assert whole.to_json() == broken.to_json()


def test_the_text_is_the_form_of_files_that_exist() -> None:
    # Measurements hold this text, so a change of it makes every older file strange.
    assert Kernel((RELU,)).to_json() == (
        '[{"in":[{"name":"self","shape":[1,16,8,8]}],"kind":"relu","out":[{"name":"output","shape":[1,16,8,8]}]}]'
    )
    assert Kernel((RELU,)).digest == "71e6c4285ee7ae313c07"  # sha256 of that text, by sha256sum


def test_what_a_kernel_says_of_itself() -> None:
    fused = Kernel((CONV, RELU))
    assert fused.name == "conv2d+relu"
    assert fused.kind == "conv2d"
    assert fused.dtype == "float32"
    assert Kernel((RELU, CONV)).kind == "conv2d"  # the op with most macs
    assert Kernel((RELU,)).kind == "relu"
    index = OpSpec("argmax", (tensor("self", 4, dtype="bfloat16"),), (tensor("output", dtype="int64"),))
    assert Kernel((index,)).dtype == "bfloat16"


def test_fusion_keeps_the_work_and_saves_the_traffic_between() -> None:
    alone = Kernel((CONV,)).cost + Kernel((RELU,)).cost
    middle = tensor("output", 1, 16, 8, 8, internal=True)
    first = OpSpec(CONV.kind, CONV.inputs, (middle,), CONV.params)
    second = OpSpec(RELU.kind, (tensor("self", 1, 16, 8, 8, internal=True),), RELU.outputs)
    fused = Kernel((first, second)).cost
    assert fused.flops == alone.flops
    # The map between the two, 16 x 8 x 8 values of 4 byte, is neither written nor read.
    assert alone.bytes - fused.bytes == 2 * 16 * 8 * 8 * 4


def test_a_kernel_that_was_met_before_its_rule_is_counted_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import hwcost.rules

    monkeypatch.setattr(hwcost.rules.registry, "_RULES", dict(hwcost.rules.registry._RULES))
    kernel = Kernel((OpSpec("test_kernel.late", (), (tensor("output", 5),)),))
    assert kernel.cost.macs == 0
    hwcost.rules.registry.rule("test_kernel.late")(lambda op: hwcost.rules.registry.Work(macs=7))
    try:
        assert kernel.cost.macs == 7
    finally:
        cost_of.cache_clear()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        "{}",
        "5",
        "null",
        '"conv2d"',
        "[5]",
        '[{"kind": "relu"}]',
        '[{"kind": "relu", "in": 5, "out": []}]',
        '[{"kind": "relu", "in": [{"name": "self"}], "out": []}]',
        '[{"kind": "relu", "in": [{"name": "self", "shape": [2], "dtype": "float33"}], "out": []}]',
        '[{"kind": "relu", "in": [{"name": "self", "shape": [2], "colour": "red"}], "out": []}]',
        '[{"kind": "relu", "in": [{"name": "self", "shape": [-2]}], "out": []}]',
        '[{"kind": "relu", "in": [{"name": "self", "shape": [2.5]}], "out": []}]',
        '[{"kind": "relu", "in": [{"name": "self", "shape": ["a"]}], "out": []}]',
        '[{"kind": "relu", "in": [{"name": "self", "shape": "ab"}], "out": []}]',
        '[{"kind": "relu", "in": [{"name": "self", "shape": [2], "weight": "no"}], "out": []}]',
        '[{"kind": "relu", "in": [{"name": "self", "shape": [2], "elements": 0.5}], "out": []}]',
        '[{"kind": "relu", "in": [], "out": [], "params": 3}]',
        '[{"kind": "relu", "in": [], "out": [], "params": {"size": {"height": 3}}}]',
        "[" * 100_000,
    ],
)
def test_what_is_no_kernel(text: str) -> None:
    with pytest.raises(KernelError) as error:
        Kernel.from_json(text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_a_kernel_holds_an_op() -> None:
    with pytest.raises(KernelError, match="at least one op"):
        Kernel(())


def test_what_ships_is_in_canonical_form_so_that_its_text_tells_the_digest() -> None:
    for path in sorted(Path(str(shipped("models"))).glob("*.hwcost")):
        table = pq.read_table(io.BytesIO(unpacked(path.read_bytes())["kernels.parquet"]))
        for text in table["description"].to_pylist()[::50]:
            assert Kernel.from_json(text).to_json() == text
            assert Kernel.from_json(text, canonical=True).digest == Kernel.from_json(text).digest


@pytest.mark.parametrize("field", ['"shape":[2.0]', '"shape":[2],"weight":1', '"shape":[2],"elements":2.0'])
def test_what_merely_equals_a_tensor_that_was_read_before_is_refused(field: str) -> None:
    text = '[{{"kind":"relu","in":[{{"name":"x",{}}}],"out":[]}}]'
    for right in ('"shape":[2]', '"shape":[2],"weight":true', '"shape":[2],"elements":2'):
        Kernel.from_json(text.format(right))
    with pytest.raises(KernelError):
        Kernel.from_json(text.format(field))
