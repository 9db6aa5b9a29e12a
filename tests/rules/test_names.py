"""Every rule is the rule of an operator that exists."""

from __future__ import annotations

import torch

from hwcost.rules.registry import known_kinds
from hwcost.tracing.schema import overload_of


def test_every_kind_is_an_operator_of_torch_or_of_onnx() -> None:
    from onnx.defs import get_all_schemas

    exist = {"flex_attention"}  # a higher-order operator of torch
    exist |= {f"onnx.{schema.name}" for schema in get_all_schemas()}
    for schema in torch._C._jit_get_all_schemas():
        space, _, base = schema.name.partition("::")
        base = base[:-1] if base.endswith("_") and not base.endswith("__") else base
        exist.add(base if space == "aten" else f"{space}.{base}")
    costed, free = known_kinds()
    ours = {kind for kind in (*costed, *free) if not kind.startswith(("torchvision.", "my_lib."))}
    assert ours - exist == set()
    assert overload_of(torch.ops.aten.relu_.default).kind in costed
