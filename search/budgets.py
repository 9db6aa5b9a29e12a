"""Budgets: what an architecture may cost, in which quantity, on which device, in which block.

A budget names a quantity, and a limit in text with a unit, or in SI:

    "5 ms"                                         latency
    {"latency": "5 ms", "peak_memory": "2 MB"}     several quantities
    {"phone": "20 ms", "server": "2 ms"}           several devices, by the names of the models
    {"phone": {"latency": "20 ms", "params": 5e6}} both
    {"blocks.stages.0": "1 ms"}                    the latency of a block: all at or below a module path; an
                                                   architecture without it takes no time there

A limit on latency may ask for a margin: with an estimate t in [low, high] that covers the truth with
probability c, and an error of log t taken as normal, the probability to be within T is

    P(truth <= T) = Phi( ln(T / t) / s ),   s = ln(high / t) / z,   Phi(z) = (1 + c) / 2,        (1)

so P >= p means t * exp(s * Phi^-1(p)) <= T. p = 0.5 takes the point estimate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from hwcost import units
from hwcost.device.ceilings import Energy

if TYPE_CHECKING:
    from hwcost.graph import Graph

Amount = str | float
Budget = Amount | Mapping[str, Amount | Mapping[str, Amount]] | None

_DIMENSIONS: Mapping[str, units.Dimension | None] = {
    "latency": "second",
    "peak_memory": "byte",
    "bytes": "byte",
    "flops": "flop",
    "macs": "mac",
    "params": None,  # a plain number
    "energy": "joule",  # by the device's weights of flop and byte, or `GENERIC`
}
QUANTITIES = tuple(_DIMENSIONS)
_BLOCK = "blocks."
GENERIC = Energy(
    per_flop=2.3e-12,
    per_byte=160e-12,
    source="M. Horowitz, ISSCC 2014: at 45 nm a float32 multiply-add takes 4.6 pJ, DRAM at least 1.3 nJ per 64 bit",
)  # of devices whose file gives no weights


class BudgetError(ValueError):
    """A budget that cannot be meant: the rule, the value, the next step."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One ceiling: `quantity` (or a block's latency) on `device` at most `most` (SI)."""

    key: str  # how the study calls it
    device: str
    quantity: str
    most: float

    @property
    def is_of_block(self) -> bool:
        """Whether it limits a part of the architecture."""
        return self.quantity.startswith(_BLOCK)

    def excess(self, value: float) -> float:
        """How far `value` is over the limit, relative to it: feasible iff <= 0, as Optuna's constraints are."""
        return value / self.most - 1.0


def parse_budget(budget: Budget, devices: tuple[str, ...]) -> tuple[Limit, ...]:
    """Every limit of a budget, for models of these names.

    Raises:
        BudgetError: an unknown quantity or device, a limit that is not above 0.
        units.UnitError: a text without number or unit.
    """
    if budget is None:
        return ()
    named: list[tuple[str, str, Amount]] = []
    for key, value in (budget if isinstance(budget, Mapping) else {"latency": budget}).items():
        if key in devices and isinstance(value, Mapping):
            named += [(key, quantity, amount) for quantity, amount in value.items()]
        elif isinstance(value, Mapping):
            raise BudgetError(f"budget of {key!r}: no model has that name; the models are {', '.join(devices)}")
        elif key in devices:
            named.append((key, "latency", value))
        else:
            named += [(device, key, value) for device in devices]
    return tuple(_limit(device, quantity, amount, len(devices) > 1) for device, quantity, amount in named)


def _limit(device: str, quantity: str, amount: Amount, several: bool) -> Limit:
    if quantity not in QUANTITIES and not quantity.startswith(_BLOCK):
        raise BudgetError(
            f"no quantity or model {quantity!r} to budget; choose from {', '.join(QUANTITIES)}, blocks.NAME, {device}"
        )
    dimension = dimension_of(quantity)
    most = units.parse(amount, dimension) if dimension else _number(quantity, amount)
    if most <= 0:
        raise BudgetError(f"a budget must be above 0, but got {quantity} = {amount!r}")
    return Limit(f"{quantity}@{device}" if several else quantity, device, quantity, most)


def dimension_of(quantity: str) -> units.Dimension | None:
    """What a quantity is measured in; None for a plain number."""
    return "second" if quantity.startswith(_BLOCK) else _DIMENSIONS[quantity]


def _number(quantity: str, amount: Amount) -> float:
    try:
        number = float(amount)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(amount, bool) or not math.isfinite(number):
        raise BudgetError(f"a budget of {quantity} is a plain number, but got {amount!r}")
    return number


def upper(estimate: Any, confidence: float, latency: float | None = None, high: float | None = None) -> float:
    """The latency (s) that the truth keeps below with probability `confidence`, eq. (1)."""
    t = float(estimate.latency if latency is None else latency)
    top = float(estimate.high if high is None else high)
    if confidence == 0.5 or t <= 0 or top <= t:
        return t
    covered = float(getattr(estimate, "confidence", 0.9))
    sigma = math.log(top / t) / NormalDist().inv_cdf((1 + covered) / 2)
    return t * math.exp(sigma * NormalDist().inv_cdf(confidence))


def blocks_at(quantity: str, estimate: Any) -> list[Any]:
    """The blocks of an estimate at or below the module path that a quantity "blocks.PATH" names."""
    path = quantity.removeprefix(_BLOCK)
    by_depth = getattr(estimate, "by_depth", None)  # a cost model's tells blocks of any depth
    blocks = by_depth(path.count(".") + 1) if by_depth else getattr(estimate, "blocks", {})
    return [block for name, block in blocks.items() if f"{name}.".startswith(f"{path}.")]


def value_of(
    quantity: str, estimate: Any, confidence: float, graph: Callable[[], Graph], energy: Energy = GENERIC
) -> float:
    """A quantity of an architecture in SI; latencies with the margin of `confidence`.

    `graph` traces the architecture, and is only called for what the estimate does not know; `energy` are the
    weights of the device.
    """
    if quantity == "latency":
        return upper(estimate, confidence)
    if quantity.startswith(_BLOCK):
        parts = blocks_at(quantity, estimate)
        return upper(estimate, confidence, sum(b.latency for b in parts), sum(b.high for b in parts))
    if quantity == "energy":
        return energy.of(*(value_of(q, estimate, confidence, graph) for q in ("flops", "bytes")))
    own = getattr(estimate, quantity, None)
    if own is not None:
        return float(own)
    source = graph()
    return float(getattr(source if quantity in ("peak_memory", "params") else source.cost, quantity))
