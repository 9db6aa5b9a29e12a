"""Probes of kinds of kernel: the rate of arithmetic that each kind reaches at best in one runtime on this machine.

A depthwise convolution, an exponential or a pooling leaves most of a CPU's multipliers idle whatever its size, so its
compute ceiling lies below that of the dtype. Each kind runs with inputs that stay in a cache, at two batch sizes of
which the second has four times the work W. The time that a call takes by itself cancels in

    P_kind = (W2 - W1) / (t2 - t1),                                        (1)

where t is the low quantile of the kernel's time, as the runtime's profile tells it, over the rounds of the calibration.
The fastest of several shapes of a kind gives the ceiling. A kind has none if t2 - t1 is less than twice the time that
its extra traffic takes, since memory may bind it, and none if its rate equals the ceiling of the dtype within the error
of both.

Kinds are measured on one thread, and several threads are taken to reach that many times the rate. The slope cannot be
measured with several threads: a runtime may share out the large batch among them but not the small one, and on two
threads the slope was once that of three.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwcost.device.ceilings import KindCeiling
from hwcost.device.device import Device
from hwcost.kernel import Kernel, label
from hwcost.measure.statistics import latency_and_spread
from hwcost.roofline import level_time
from hwcost.runtimes.base import Session
from hwcost.runtimes.registry import get_runtime

_BATCHES = (1, 4)
_RUNS = 3  # profiles in a visit
_CLEAR = 2.0  # times the time of its traffic: a kernel that takes no longer may be bound by memory
_NOISY = 0.25  # spread above which a slope does not count: the fastest of several would be the noisiest
_MAP = (20, 20)  # size of feature maps: four maps of 64 channels fill 400 kB in float32


class _Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Any, **options: Any) -> None:
        super().__init__()
        self._function = partial(function, **options)

    def forward(self, *inputs: Tensor) -> Any:
        """The function of the inputs."""
        return self._function(*inputs)


def _convolution(channels: int, window: int, **options: Any) -> nn.Module:
    return nn.Conv2d(channels, channels, window, padding=window // 2, **options)


def shapes() -> Iterator[tuple[str, nn.Module, tuple[tuple[int, ...], ...]]]:
    """What to measure: (description, module, shapes of its inputs without the batch)."""
    maps, rows, heads = (64, *_MAP), (128, 256), (4, 128, 64)
    for window in (1, 3):
        yield f"{window}x{window}, 64 channels", _convolution(64, window), (maps,)
    yield "3x3, 256 channels", _convolution(256, 3), ((256, 10, 10),)
    for window in (3, 5, 7):
        yield f"{window}x{window}", _convolution(64, window, groups=64), (maps,)
    for groups in (2, 8):
        yield f"3x3, {groups} groups of {64 // groups} channels", _convolution(64, 3, groups=groups), (maps,)
    yield "2x2, stride 2, 64 channels", nn.ConvTranspose2d(64, 64, 2, stride=2), ((64, 10, 10),)
    yield "256 to 256 features", nn.Linear(256, 256), (rows,)
    yield "128x64 by 64x128, 4 heads", _Call(torch.matmul), (heads, (4, 64, 128))
    attention = _Call(torch.nn.functional.scaled_dot_product_attention)
    yield "4 heads of 64, 128 tokens", attention, (heads, heads, heads)
    on_maps = (nn.BatchNorm2d(64), nn.GroupNorm(8, 64), nn.AvgPool2d(3, 1, 1), nn.MaxPool2d(3, 1, 1))
    yield from ((f"64 channels, {_MAP[0]}x{_MAP[1]}", module, (maps,)) for module in on_maps)
    activations = (nn.GELU(), nn.SiLU(), nn.Sigmoid(), nn.Tanh(), nn.Hardswish(), nn.ReLU(), _Call(torch.exp))
    on_rows = (nn.LayerNorm(256), nn.Softmax(-1), *activations)
    yield from (("128 rows of 256", module, (rows,)) for module in on_rows)


Timed = tuple[Kernel, float, float]  # kernel, latency (s), spread


@dataclass(slots=True)
class KindProbe:
    """A network of one op at one batch size."""

    description: str
    batch: int
    session: Session
    rounds: list[NDArray[np.float64]] = field(default_factory=list)  # of each visit the least time of each kernel (s)

    def visit(self) -> None:
        """Take a round: of each kernel the least time in a few profiles."""
        self.session.run()
        self.rounds.append(self.session.profile(_RUNS).min(axis=0))

    def results(self) -> Iterator[Timed]:
        """Latency (s) and spread of each kernel that does arithmetic."""
        low, spread = latency_and_spread(np.array(self.rounds))
        for placed, seconds, error in zip(self.session.network.kernels, low.tolist(), spread.tolist(), strict=True):
            if placed.kernel.cost.flops:
                yield placed.kernel, seconds, error


Pair = tuple[KindProbe, KindProbe]  # the smaller batch first


def kind_probes(runtime: str) -> list[Pair]:
    """A pair of probes for each of `shapes`, ready to run on one thread.

    Raises:
        RuntimeUnavailable: the runtime's package is not installed.
    """

    def probe(description: str, module: nn.Module, inputs: tuple[tuple[int, ...], ...], batch: int) -> KindProbe:
        tensors = [torch.randn(batch, *shape) for shape in inputs]
        return KindProbe(description, batch, get_runtime(runtime).prepare(module.eval(), tensors, threads=1))

    small, large = _BATCHES
    return [(probe(*shape, small), probe(*shape, large)) for shape in shapes()]


def kind_ceilings(pairs: Sequence[Pair], device: Device, runtime: str, threads: int) -> tuple[KindCeiling, ...]:
    """Ceilings of the kinds that memory does not bind, for `threads` threads, each as fast as the one probed."""
    times = f" of one thread, times {threads}" if threads > 1 else ""
    best: dict[str, KindCeiling] = {}
    for small, large in pairs:
        of_large = _by_label(large)
        for name, before in _by_label(small).items():
            rate = _rate(before, of_large[name], device, threads) if name in of_large else None
            if rate is None:
                continue
            found = KindCeiling(
                kind=name,
                runtime=runtime,
                threads=threads,
                dtype=before[0].dtype,
                measured=rate[0],
                spread=rate[1],
                measured_source=f"{small.description}; slope from a batch of {small.batch} to {large.batch}{times}",
            )
            best[name] = max(found, best.get(name, found), key=lambda c: c.value)
    return tuple(best[name] for name in sorted(best) if _differs(best[name], device))


def _differs(found: KindCeiling, device: Device) -> bool:
    """Whether a ceiling differs from that of its dtype by more than the errors of both."""
    general = [c.spread or 0.0 for c in device.compute if (c.dtype, c.threads) == (found.dtype, found.threads)]
    error = math.hypot(found.spread or 0.0, *general)
    return abs(math.log(found.value / device.peak(found.dtype, found.threads))) > error


def _by_label(probe: KindProbe) -> Mapping[str, Timed]:
    """The kernels of a probe by label; of several with one label the last, since the others prepare its input."""
    return {label(kernel): (kernel, seconds, spread) for kernel, seconds, spread in probe.results()}


def _rate(small: Timed, large: Timed, device: Device, threads: int) -> tuple[float, float] | None:
    """Eq. (1) (flop/s) with its spread; None where memory may bind, or the slope is too noisy."""
    (kernel, t1, s1), (bigger, t2, s2) = small, large
    t1, t2 = t1 / threads, t2 / threads  # as if `threads` threads shared the work
    traffic = _traffic_time(bigger, device, threads) - _traffic_time(kernel, device, threads)
    spread = math.hypot(t1 * s1, t2 * s2) / max(t2 - t1, 1e-12)
    if spread > _NOISY or t2 - t1 <= _CLEAR * max(traffic, 0.0):
        return None
    return (bigger.cost.flops - kernel.cost.flops) / (t2 - t1), spread


def _traffic_time(kernel: Kernel, device: Device, threads: int) -> float:
    """Seconds that the kernel's traffic takes, from the cache levels that hold it."""
    cost = kernel.cost
    weights, read, written = np.array([[cost.bytes_weights], [cost.bytes_activations], [cost.bytes_written]], float)
    return float(level_time(weights, read, written, np.zeros(1), device, threads)[0])
