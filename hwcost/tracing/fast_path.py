"""The fast path of torch's attention layers: nn.MultiheadAttention or nn.TransformerEncoderLayer as a single op.

torch takes it in inference where a layer's settings allow it, and not where a mode of this thread overrides torch's
functions. `by_parts` is such a mode, which changes nothing else. The setting of torch.backends.mha is not touched,
since it holds for the whole process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def by_parts() -> Iterator[None]:
    """In this thread, have attention layers call their projections, products and softmax one by one."""
    from torch.overrides import TorchFunctionMode

    class ByParts(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            return func(*args, **(kwargs or {}))

    with ByParts():
        yield


def without_nesting(modules: Iterable[Any]) -> None:
    """Have copies of torch's encoders not ask, before their first layer, whether its fast path takes a padding mask."""
    from torch import nn

    for module in modules:
        if isinstance(module, nn.TransformerEncoder):
            module.__dict__["use_nested_tensor"] = False
