"""Random numbers of a trace, drawn from a generator of its own.

A forward whose values are computed may draw numbers. They must neither come from the generators of the process, which
a training in another thread reads meanwhile, nor be different from trace to trace.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _pop_mode, _push_mode

from hwcost.tracing.schema import overload_of

_SEED = 0


@contextmanager
def own_draws(generators: dict[torch.device, torch.Generator]) -> Iterator[None]:
    """In this thread, give operators that draw numbers one of `generators`; a device without one gets one."""
    with torch.inference_mode(False), torch.no_grad():  # so that composite ops are taken apart into those that draw
        _push_mode(_OwnDraws(generators))  # past `__enter__`, which sets flags of the whole process
        try:
            yield
        finally:
            _pop_mode()


class _OwnDraws(TorchDispatchMode):
    def __init__(self, generators: dict[torch.device, torch.Generator]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._generators = generators

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords = dict(kwargs or {})
        overload = overload_of(func)
        if not overload.draws:
            return func(*args, **keywords)
        first = next((a for a in args if isinstance(a, torch.Tensor)), None)
        device = torch.device(keywords.get("device") or (first.device if first is not None else "cpu"))
        if "generator" in overload.arguments:
            return func(*args, **{**keywords, "generator": self._generator(device)})
        name = func._overloadname
        drawing = getattr(func.overloadpacket, "generator" if name == "default" else f"{name}_generator", None)
        if drawing is not None and first is None:
            return drawing(*args, **keywords, generator=self._generator(device))
        fill = _FILLS.get(overload.kind)
        if fill is None or first is None:  # as a dropout that is not taken apart; it draws nothing in inference
            return func(*args, **keywords)
        made = torch.empty_like(first, **{k: v for k, v in keywords.items() if k not in ("pin_memory",)})
        return fill(made, args[1:], self._generator(device))

    def _generator(self, device: torch.device) -> torch.Generator:
        found = self._generators.get(device)
        if found is None:
            found = self._generators[device] = torch.Generator(device).manual_seed(_SEED)
        return found


def _integers(made: torch.Tensor, bounds: Any, generator: torch.Generator) -> torch.Tensor:
    low, high = (0, bounds[0]) if len(bounds) == 1 else bounds[:2]
    return made.random_(int(low), int(high), generator=generator)


# By kind, how to fill a tensor as an op without an argument for a generator does.
_FILLS: dict[str, Any] = {
    "rand_like": lambda made, _, generator: made.uniform_(generator=generator),
    "randn_like": lambda made, _, generator: made.normal_(generator=generator),
    "randint_like": _integers,
}
