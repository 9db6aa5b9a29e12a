"""Shape functions: the form (shape, strides, dtype) of an op's result, without running a kernel.

    @shape_function("relu.default")
    def relu(x: Form) -> Form | None:
        return x if is_dense(x) else None

torch finds the shape of a result by running the op on meta tensors. Many of those kernels are written in Python and
take a millisecond each, far more than the rest of a trace. The ops that networks are made of have simple shapes,
which the modules of this folder write down. A shape function takes the arguments of the op, tensors as forms, and
returns what torch's CPU kernel returns, strides included; the tests compare them. It returns None for arguments that
it does not cover, and then the meta kernel is asked (`trial_run`). Shape functions know no costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hwcost.extensions import load
from hwcost.tracing.form import Form

ShapeFunction = Callable[..., Form | None]

_FUNCTIONS: dict[str, ShapeFunction] = {}


def shape_function(*names: str) -> Callable[[ShapeFunction], ShapeFunction]:
    """Register a function for overloads of aten ("conv2d.default") or of another library ("quantized.add.default").

    Raises:
        ValueError: an overload has a shape function already.
    """

    def register(function: ShapeFunction) -> ShapeFunction:
        for name in names:
            if name in _FUNCTIONS:
                other = f"{_FUNCTIONS[name].__module__}.{_FUNCTIONS[name].__qualname__}"
                raise ValueError(f"an overload has one shape function, but {name!r} has {other} already")
            _FUNCTIONS[name] = function
        return function

    return register


def has_shape_function(name: str) -> bool:
    """Whether the overload ("aten.conv2d.default") has one."""
    load("hwcost.tracing.shapes")
    return name.removeprefix("aten.") in _FUNCTIONS


def result_form(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Form | None:
    """Form of the one new tensor that the overload `name` returns; None where no shape function tells.

    Args:
        name: as in "aten.conv2d.default".
        args: positional arguments of the op, with forms in place of tensors.
        kwargs: keyword arguments, likewise.

    Raises:
        FormError: the op cannot take these arguments.
    """
    load("hwcost.tracing.shapes")
    function = _FUNCTIONS.get(name.removeprefix("aten."))
    return function(*args, **kwargs) if function else None
