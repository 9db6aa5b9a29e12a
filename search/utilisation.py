"""What an architecture makes of a device: intensity, memory-bound time, and achieved against ceiling.

A network of W flop and Q byte that takes t seconds has intensity I = W / Q. On a device with peak P flop/s
and bandwidth B byte/s no network of that intensity runs faster than C = min(P, I * B) flop/s, so

    achieved = (W / t) / C = max(W / P, Q / B) / t                                                (1)

is the share of the ceiling that it reaches. Networks for a device whose ridge point P / B is high must be
dense (high I) to use it; on one with a low ridge point a dense network only takes longer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from hwcost import units
from hwcost.device.ceilings import Energy
from hwcost.device.device import Device
from hwcost.model.features import Target


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Of a device for one dtype and number of threads."""

    peak: float  # flop/s
    bandwidth: float  # byte/s

    def achieved(self, flops: float, traffic: float, latency: float) -> float:
        """Eq. (1), for latency in seconds; above 1 where the work counts products with padding that nobody computes."""
        return max(flops / self.peak, traffic / self.bandwidth) / latency


def target_of(model: Any) -> Target | None:
    """The target of a cost model, or of a latency table that a model priced; else None."""
    target = getattr(model, "target", None)
    if target is not None and isinstance(getattr(target, "device", None), Device):
        return Target(target.device, target.threads, target.dtype)
    meta = getattr(model, "meta", {})
    if "device" not in meta:
        return None
    return Target(Device.from_toml(meta["device"], "latency table"), meta["target"]["threads"], meta["target"]["dtype"])


def ceilings_of(model: Any) -> Ceilings | None:
    """The ceilings behind a model, where its target is known."""
    target = target_of(model)
    if target is None:
        return None
    device, dtype, threads = target.device, target.dtype, target.threads
    return Ceilings(device.peak(dtype, threads), device.bandwidth("DRAM", threads))


def energy_of(model: Any) -> Energy | None:
    """What a flop and a byte cost on the device behind a model, where its file says so."""
    target = target_of(model)
    return target.device.energy if target else None


def facts_of(estimate: Any, ceilings: Ceilings | None) -> dict[str, Any]:
    """What a trial keeps of an estimate: numbers in SI, and only those that the estimate knows."""
    names = ("latency", "low", "high", "bound", "support", "memory_share", "intensity")
    found = {name: getattr(estimate, name, None) for name in names}
    work = _work(estimate)
    if work is not None and found["intensity"] is None and work[1]:
        found["intensity"] = work[0] / work[1]
    if work is not None and ceilings is not None:
        found["achieved"] = ceilings.achieved(*work, estimate.latency)
    return {name: v if isinstance(v, str) else float(v) for name, v in found.items() if v is not None}


def character_of(facts: Sequence[Mapping[str, Any]]) -> str:
    """What architectures are like on a device, in words: medians over their `facts_of`; empty where none tells."""
    telling = {
        "intensity": lambda v: units.format(v, "flop/byte"),
        "memory_share": lambda v: f"{v:.0%} of the time memory-bound",
        "achieved": lambda v: f"{v:.0%} of the ceiling achieved",
    }
    known = {name: [f[name] for f in facts if name in f] for name in telling}
    return ", ".join(telling[name](median(values)) for name, values in known.items() if values)


def _work(estimate: Any) -> tuple[float, float] | None:
    """(flop, byte) of the whole network, where the estimate knows them."""
    source = getattr(estimate, "cost", estimate)
    flops, traffic = getattr(source, "flops", None), getattr(source, "bytes", None)
    return None if flops is None or traffic is None else (float(flops), float(traffic))


def parts_of(estimate: Any) -> list[dict[str, Any]]:
    """An architecture's parts: kernels where the estimate knows them, blocks otherwise; latencies in seconds."""
    kernels = getattr(estimate, "kernels", None)
    if kernels is not None:
        return [{"name": k.module, "kernel": k.name, **_part(k)} for k in kernels]
    blocks: Mapping[str, Any] = getattr(estimate, "blocks", None) or {}
    return [{"name": name, **_part(block)} for name, block in blocks.items()]


def _part(part: Any) -> dict[str, Any]:
    found: dict[str, Any] = {f"{what}_s": float(getattr(part, what)) for what in ("latency", "low", "high")}
    cost = getattr(part, "cost", None)
    if cost is not None:
        found |= {"flops": cost.flops, "bytes": cost.bytes, "bound": part.bound}
    return found
