"""How long counting takes: hwcost against the public counters, each one's error beside its time.

    make bench        (or: python tests/bench/bench_counting.py [--rounds 5])

Ten networks, round-robin; every repetition counts a module that no counter has seen (a copy, made
outside the clock), so that nobody wins by not counting. hwcost follows the whole forward each time, but a
process remembers what it learned of an op's signature (kind, shapes, dtypes, parameters); so it is listed twice:
"hwcost" as a user's second network of that kind meets it, "hwcost, first" with everything forgotten before each
repetition. Each counter runs in the fastest way that it supports: on meta tensors where it can. The
time is CPU time (all run on one thread; what else the machine does must not choose the winner), the minimum over
rounds. The reference is the published number of multiply-adds.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.util
import io
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

# Published multiply-adds (torchvision 0.29 model metadata), at 224 x 224
PUBLISHED = {
    "resnet18": 1.814e9, "resnet50": 4.089e9, "mobilenet_v2": 0.301e9, "mobilenet_v3_large": 0.217e9,
    "efficientnet_b0": 0.386e9, "densenet121": 2.834e9, "regnet_y_400mf": 0.402e9, "convnext_tiny": 4.456e9,
    "vit_b_16": 17.564e9, "swin_t": 4.491e9,
}  # fmt: skip
RIGHT = 0.002  # a counter gets a network right within the printed digits


def by_hwcost(module: nn.Module, x: torch.Tensor) -> float:
    import hwcost

    return hwcost.trace(module, (x,)).cost.macs


def by_hwcost_first(module: nn.Module, x: torch.Tensor) -> float:
    from hwcost.rules.registry import cost_of
    from hwcost.tracing.signatures import forget

    forget()
    cost_of.cache_clear()
    return by_hwcost(module, x)


def by_flop_counter(module: nn.Module, x: torch.Tensor) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(x)
    return counter.get_total_flops() / 2


def by_flop_counter_math(module: nn.Module, x: torch.Tensor) -> float:
    """With gradients and plain attention, so that no fused path hides its products."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(x)
    return counter.get_total_flops() / 2


def by_fvcore(module: nn.Module, x: torch.Tensor) -> float:
    from fvcore.nn import FlopCountAnalysis

    return float(FlopCountAnalysis(module, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False).total())


def by_ptflops(module: nn.Module, x: torch.Tensor) -> float:
    from ptflops import get_model_complexity_info

    macs, _ = get_model_complexity_info(
        module, tuple(x.shape[1:]), as_strings=False, print_per_layer_stat=False, verbose=False, backend="aten"
    )
    return float(macs)


def by_torchinfo(module: nn.Module, x: torch.Tensor) -> float:
    from torchinfo import summary

    return float(summary(module, input_data=(x,), verbose=0, device=x.device).total_mult_adds)


def by_calflops(module: nn.Module, x: torch.Tensor) -> float:
    from calflops import calculate_flops

    _, macs, _ = calculate_flops(module, args=[x], print_results=False, print_detailed=False, output_as_string=False)
    return float(macs)


def by_thop(module: nn.Module, x: torch.Tensor) -> float:
    from thop import profile

    return float(profile(module, (x,), verbose=False)[0])


# name -> (counter, the package it needs, whether it counts on meta)
COUNTERS: dict[str, tuple[Callable[[nn.Module, torch.Tensor], float], str, bool]] = {
    "hwcost": (by_hwcost, "hwcost", True),
    "hwcost, first": (by_hwcost_first, "hwcost", True),
    "FlopCounterMode": (by_flop_counter, "torch", True),
    "FlopCounterMode, CPU": (by_flop_counter, "torch", False),
    "FlopCounterMode, math": (by_flop_counter_math, "torch", True),
    "fvcore": (by_fvcore, "fvcore", False),
    "ptflops": (by_ptflops, "ptflops", False),
    "torchinfo": (by_torchinfo, "torchinfo", True),
    "calflops": (by_calflops, "calflops", True),
    "thop": (by_thop, "thop", False),
}


def clocked(
    counter: Callable[[nn.Module, torch.Tensor], float], module: nn.Module, x: torch.Tensor
) -> tuple[float, float]:
    """(seconds of CPU, macs) of counting a module once."""
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.process_time()
        macs = counter(module, x)
        return time.process_time() - start, macs


def measure(rounds: int) -> dict[str, dict[str, tuple[float, float]]]:
    """counter -> network -> (best seconds, macs)."""
    models: Any = importlib.import_module("torchvision.models")
    best: dict[str, dict[str, tuple[float, float]]] = {name: {} for name in COUNTERS}
    for network in PUBLISHED:
        real: nn.Module = models.get_model(network, weights=None).eval()
        for r in range(rounds):
            for name, (counter, package, on_meta) in COUNTERS.items():
                if importlib.util.find_spec(package) is None:
                    continue
                fresh = copy.deepcopy(real).to("meta" if on_meta else "cpu")
                x = torch.zeros(1, 3, 224, 224, device="meta" if on_meta else "cpu")
                try:
                    seconds, macs = clocked(counter, fresh, x)
                except Exception as error:
                    print(f"{name} on {network}: {type(error).__name__}: {error}", file=sys.stderr)
                    seconds, macs = float("nan"), float("nan")
                before = best[name].get(network, (float("inf"), macs))[0]
                best[name][network] = (min(seconds, before) if r else seconds, macs)
    return best


def report(best: dict[str, dict[str, tuple[float, float]]]) -> None:
    """One line a network, then the ratios that count, with signatures remembered and with all forgotten."""
    print(f"{'network':20}" + "".join(f"{name:>26}" for name in COUNTERS))
    for network, published in PUBLISHED.items():
        cells = []
        for name in COUNTERS:
            seconds, macs = best[name].get(network, (float("nan"), float("nan")))
            cells.append(f"{seconds * 1e3:9.1f} ms {macs / published - 1:+8.1%}")
        print(f"{network:20}" + "".join(f"{cell:>26}" for cell in cells))
    for network, published in PUBLISHED.items():
        own, first = (best[name][network][0] for name in ("hwcost", "hwcost, first"))
        right = {
            n: t[network][0]
            for n, t in best.items()
            if not n.startswith("hwcost") and network in t and abs(t[network][1] / published - 1) < RIGHT
        }
        rival = min(right, key=lambda n: right[n], default="")
        fvcore = best["fvcore"].get(network, (float("nan"), 0.0))[0]
        if rival:
            ratios = f"{right[rival] / own:5.1f} x ({right[rival] / first:.1f} x at first)"
            print(f"{network:20} {ratios} faster than {rival}, the fastest right one; ", end="")
        else:
            print(f"{network:20} no other is right; ", end="")
        print(f"{fvcore / own:5.1f} x ({fvcore / first:.1f} x at first) faster than fvcore")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if importlib.util.find_spec("torchvision") is None:
        sys.exit("bench_counting needs torchvision, for the networks; the zoo environment has it")
    report(measure(parser.parse_args().rounds))
