"""Ops that answer with something else than a tensor, ops of other libraries, generators, hooks made in a forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hwcost

X = torch.linspace(-1, 1, 48).view(6, 8)

QUESTIONS: dict[str, Callable[[Tensor], Any]] = {
    "is_same_size": lambda x: x.is_same_size(x + 1),
    "other size": lambda x: not x.is_same_size(x[:1]),
    "result_type": lambda x: torch.result_type(x, 1j) is torch.complex64,
    "promote_types": lambda x: torch.promote_types(x.dtype, torch.float64) is torch.float64,
    "can_cast": lambda x: not torch.can_cast(x.dtype, torch.int64),
    "is_floating_point": lambda x: torch.is_floating_point(x) and not x.is_complex(),
}
OF_VALUES: dict[str, Callable[[Tensor], Any]] = {
    "equal": lambda x: torch.equal(x, x * 1),
    "not equal": lambda x: not torch.equal(x, x + 1),
    "allclose": lambda x: x.allclose(x + 1e-9),
    "is_nonzero": lambda x: torch.is_nonzero(x.abs().sum()),
}


def product_if(question: Callable[[Tensor], Any]) -> Callable[[Tensor], Tensor]:
    """A forward with a matrix product where the answer is yes."""
    return lambda x: x @ x.t() if question(x) else x


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("name", QUESTIONS)
def test_what_follows_from_shapes_and_dtypes(name: str, device: str) -> None:
    graph = hwcost.trace(product_if(QUESTIONS[name]), X.to(device))
    assert graph.cost.macs == 6 * 6 * 8
    assert graph.notes == ()


@pytest.mark.parametrize("name", OF_VALUES)
def test_what_follows_from_values(name: str) -> None:
    forward = product_if(OF_VALUES[name])
    assert hwcost.trace(forward, X).cost.macs == 6 * 6 * 8
    with pytest.raises(hwcost.TraceError, match="reads a value"):
        hwcost.trace(forward, X.to("meta"))


# -- ops of other libraries ------------------------------------------------------------------------


@torch.library.custom_op("hwcost_answers::mixed", mutates_args=())
def mixed(x: Tensor, n: int) -> tuple[Tensor, list[Tensor], float, bool]:
    return x.clone(), [x.clone() for _ in range(n)], 0.5, True


@mixed.register_fake
def _(x: Tensor, n: int) -> tuple[Tensor, list[Tensor], float, bool]:
    return torch.empty_like(x), [torch.empty_like(x) for _ in range(n)], 0.5, True


@torch.library.custom_op("hwcost_answers::rows", mutates_args=())
def rows(x: Tensor) -> tuple[Tensor, int]:
    return x.clone(), x.shape[0] - 2


@torch.library.custom_op("hwcost_answers::positive", mutates_args=())
def positive(x: Tensor) -> int:
    return int((x[:, 0] > 0).sum())


@torch.library.custom_op("hwcost_answers::kept", mutates_args=())
def kept(x: Tensor) -> Tensor:
    return x[x[:, 0] > 0].clone()


@torch.library.custom_op("hwcost_answers::empties", mutates_args=("x",))
def empties(x: Tensor) -> int:
    x.zero_()
    return 3


def of_mixed(x: Tensor) -> Tensor:
    first, others, factor, yes = mixed(x, 2)
    return first @ others[1].t() * factor if yes else first


def of_rows(x: Tensor) -> Tensor:
    y, n = rows(x)
    return y[:n] @ y.t()


def of_empties(x: Tensor) -> Tensor:
    y = x * 1
    return y[: empties(y)] @ x.t()


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(("forward", "m"), [(of_mixed, 6), (of_rows, 4), (of_empties, 3)])
def test_lists_and_numbers_of_custom_ops(forward: Callable[[Tensor], Tensor], m: int, device: str) -> None:
    graph = hwcost.trace(forward, X.to(device))
    assert graph.cost.macs == m * 6 * 8
    assert graph.uncounted[0][0].startswith("hwcost_answers.")


@pytest.mark.parametrize("forward", [lambda x: x[: positive(x)] @ x.t(), lambda x: kept(x) @ x.t()])
def test_what_a_custom_op_makes_of_values(forward: Callable[[Tensor], Tensor]) -> None:
    assert hwcost.trace(forward, X).cost.macs == int((X[:, 0] > 0).sum()) * 6 * 8
    with pytest.raises(hwcost.TraceError, match="returns follows from values, and the op has no fake implementation"):
        hwcost.trace(forward, X.to("meta"))


# -- generators -------------------------------------------------------------------------------------

DRAWS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "randn": lambda x, g: x + torch.randn(6, 8, generator=g),
    "randint": lambda x, g: x + torch.randint(0, 5, (6, 8), generator=g),
    "randperm": lambda x, g: x[torch.randperm(6, generator=g)],
    "bernoulli": lambda x, g: torch.bernoulli(x.sigmoid(), generator=g).expand(6, 8),
    "in place": lambda x, g: x.clone().normal_(generator=g),
    "read": lambda x, g: x * float(torch.rand(1, generator=g)),
    "beside values": lambda x, g: x.clone().uniform_(generator=g) if (x > -9).all() else x[:1],
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_generator_is_taken_and_not_advanced(name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    graph = hwcost.trace(DRAWS[name], (X, generator))
    assert graph.ops[-1].spec.outputs[0].shape == (6, 8)
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(3).get_state())


# -- hooks ------------------------------------------------------------------------------------------


class Hooks(nn.Module):
    """Registers hooks while it runs, one of which stays."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        seen: list[Tensor] = []
        handle = self.a.register_forward_hook(lambda module, args, out: seen.append(out * 2))
        y = self.a(x)
        handle.remove()
        self.b.register_forward_pre_hook(lambda module, args: (args[0] + seen[0],))
        self.register_forward_hook(lambda module, args, out: out @ x.t())
        out: Tensor = self.b(y)
        return out


def test_hooks_that_a_forward_registers() -> None:
    module = Hooks()
    graph = hwcost.trace(module, X)
    assert [op.spec.kind for op in graph.ops] == ["linear", "mul", "add", "linear"]  # as when it runs: no last hook yet
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
