"""Networks and inputs as the command line names them (`hwcost.measure.targets`, `hwcost.measure.inputs`).

TARGET    package.module:callable or path/file.py:callable, with --kwargs '{"width": 64}'; for some verbs file.onnx
--input   1x3x224x224, 1x128:int64 with a dtype, 1x128:int64=0..100 with values, or an .npy or .npz file
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hwcost.cli.errors import UsageError
from hwcost.foreign import one_line, parsed_json
from hwcost.measure.inputs import InputSpec, TargetError, parse_each
from hwcost.measure.targets import build_target

if TYPE_CHECKING:
    import torch
    from torch import nn

    from hwcost.graph import Graph
    from hwcost.measure.types import Item


def parse_inputs(texts: Sequence[str]) -> tuple[InputSpec, ...]:
    """Read every `--input`; a file of several arrays gives as many inputs.

    Raises:
        UsageError: none is given, or one cannot be read.
    """
    if not texts:
        raise UsageError("a network needs --input with its shape, batch included, as in --input 1x3x224x224")
    try:
        return tuple(spec for text in texts for spec in parse_each(text))
    except TargetError as error:
        raise UsageError(f"--{error}") from error  # the message begins with "input"


def parse_kwargs(text: str) -> dict[str, Any]:
    """Read `--kwargs`.

    Raises:
        UsageError: it is no JSON object.
    """
    try:
        value = parsed_json(text or "{}", finite=True)
    except ValueError as error:
        raise UsageError(
            f"""--kwargs must be a JSON object, as in '{{"width": 64}}', but got {text!r:.200} ({one_line(error)})"""
        ) from None
    if not isinstance(value, dict):
        raise UsageError(f"""--kwargs must be a JSON object, as in '{{"width": 64}}', but got {text!r:.200}""")
    return value


def target_item(target: str, inputs: Sequence[str], kwargs: str) -> Item:
    """TARGET as a network to be measured, after making sure that it can be built.

    Raises:
        UsageError: an option cannot be read.
        TargetError: the target cannot be built.
    """
    from hwcost.measure import items

    return items.target_item(target, parse_inputs(inputs), parse_kwargs(kwargs), written=kwargs)


def module_of(
    target: str, inputs: Sequence[str], kwargs: str, dtype: str = ""
) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """The module of TARGET and inputs to trace it with, both in `dtype` where one is given.

    Inputs have the values that the user gave. Without, floats have none, and other dtypes zeros, valid as an index.

    Raises:
        UsageError: an option cannot be read.
        TargetError: the target cannot be built.
    """
    specs, arguments = parse_inputs(inputs), parse_kwargs(kwargs)
    tensors = tuple(spec.tensor("meta" if "float" in spec.dtype and not spec.has_values else "cpu") for spec in specs)
    module = build_target(target, arguments)
    return _in_dtype(module, tensors, dtype) if dtype else (module, tensors)


def checked_float(dtype: str) -> str:
    """What `--dtype` names, "" where nothing.

    Raises:
        UsageError: no dtype of floating-point numbers.
    """
    from hwcost.device.ceilings import checked_dtype

    if dtype and "float" not in checked_dtype(dtype):
        raise UsageError(
            f"--dtype must be one of floating-point numbers, such as bfloat16, but got {dtype}: a network of other "
            "numbers is one that its TARGET quantises"
        )
    return dtype


def _in_dtype(
    module: nn.Module, inputs: tuple[torch.Tensor, ...], dtype: str
) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """A module and its inputs with all floating-point numbers in a dtype."""
    import torch

    wanted = getattr(torch, checked_float(dtype))
    return module.to(wanted), tuple(x.to(wanted) if x.is_floating_point() else x for x in inputs)


def is_onnx(target: str) -> bool:
    """Whether a TARGET is an ONNX file."""
    return target.endswith(".onnx")


def graph_of(target: str, inputs: Sequence[str], kwargs: str = "", dtype: str = "") -> Graph:
    """The graph of TARGET in `dtype`, where one is given. TARGET may be an ONNX file; that needs `inputs` only where it
    leaves shapes open.

    Raises:
        UsageError: an option cannot be read.
        TargetError, TraceError, OnnxError: the network cannot be built, followed or read.
    """
    if is_onnx(target):
        from hwcost.tracing.onnx_file import onnx_graph

        for option, value in (("--kwargs", kwargs), ("--dtype", dtype)):
            if value:
                raise UsageError(f"{option} is for a module; an ONNX file is what it is, so leave {option} out")
        specs = parse_inputs(inputs) if inputs else ()
        if valued := [spec for spec in specs if spec.has_values]:
            raise UsageError(
                f"the graph of an ONNX file follows from shapes alone; give the shape in place of --input {valued[0]}"
            )
        return onnx_graph(target, [spec.shape for spec in specs])
    from hwcost.tracing.trace import trace

    return trace(*module_of(target, inputs, kwargs, dtype))
