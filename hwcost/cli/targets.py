"""Networks and inputs as the command line names them (`hwcost.measure.targets`).

TARGET    package.module:callable or path/file.py:callable, with --kwargs '{"width": 64}'; for some verbs file.onnx
--input   1x3x224x224, or 1x128:int64 with a dtype
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hwcost.cli.errors import UsageError
from hwcost.measure.targets import InputSpec, TargetError, build_target, parse_input

if TYPE_CHECKING:
    import torch
    from torch import nn

    from hwcost.graph import Graph
    from hwcost.measure.types import Item


def parse_inputs(texts: Sequence[str]) -> tuple[InputSpec, ...]:
    """Read every `--input`.

    Raises:
        UsageError: none is given, or one is no shape.
    """
    if not texts:
        raise UsageError("a network needs --input with its shape, batch included, as in --input 1x3x224x224")
    try:
        return tuple(parse_input(text) for text in texts)
    except TargetError as error:
        raise UsageError(f"--{error}") from error  # the message begins with "input"


def parse_kwargs(text: str) -> dict[str, Any]:
    """Read `--kwargs`.

    Raises:
        UsageError: it is no JSON object.
    """
    try:
        value = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise UsageError(
            f"""--kwargs must be a JSON object, as in '{{"width": 64}}', but got {text!r} ({error})"""
        ) from None
    if not isinstance(value, dict):
        raise UsageError(f"""--kwargs must be a JSON object, as in '{{"width": 64}}', but got {text!r}""")
    return value


def target_item(target: str, inputs: Sequence[str], kwargs: str) -> Item:
    """TARGET as a network to be measured, after making sure that it can be built.

    Raises:
        UsageError: an option cannot be read.
        TargetError: the target cannot be built.
    """
    from hwcost.measure import items

    return items.target_item(target, parse_inputs(inputs), parse_kwargs(kwargs), written=kwargs)


def module_of(target: str, inputs: Sequence[str], kwargs: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """The module of TARGET and inputs to trace it with: floats without values, other dtypes zero, valid as an index.

    Raises:
        UsageError: an option cannot be read.
        TargetError: the target cannot be built.
    """
    specs, arguments = parse_inputs(inputs), parse_kwargs(kwargs)
    tensors = tuple(spec.tensor("meta" if "float" in spec.dtype else "cpu") for spec in specs)
    return build_target(target, arguments), tensors


def graph_of(target: str, inputs: Sequence[str], kwargs: str = "") -> Graph:
    """The graph of TARGET, which may be an ONNX file; that needs `inputs` only where it leaves shapes open.

    Raises:
        UsageError: an option cannot be read.
        TargetError, TraceError, OnnxError: the network cannot be built, followed or read.
    """
    if target.endswith(".onnx"):
        from hwcost.tracing.onnx_file import onnx_graph

        return onnx_graph(target, [spec.shape for spec in parse_inputs(inputs)] if inputs else [])
    from hwcost.tracing.trace import trace

    return trace(*module_of(target, inputs, kwargs))
