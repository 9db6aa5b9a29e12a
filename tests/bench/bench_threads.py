"""Tracing and estimating in many threads beside trainings, and in forked processes, against the same done alone.

    python tests/bench/bench_threads.py --seconds 60

Eight threads of a fresh process trace and estimate small networks, all of them for the first time, while two others
train. Every graph and estimate must equal that of a process that does nothing else, and every loss of the trainings,
which draw random numbers from the process's generators, must be that of the same training alone. Processes forked
meanwhile must give the same answers. Prints the counts; the exit code is 1 where anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import count

import numpy as np
import torch
from torch import nn
from torch.nn import functional

TRACERS, CHILDREN = 8, 2


class Masked(nn.Module):
    """Attention with a mask that follows from the length alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.drop = nn.Linear(width, 3 * width), nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        mask = torch.ones(x.shape[1], x.shape[1], device=x.device).tril().bool()
        self.seen = x
        return self.drop(x + functional.scaled_dot_product_attention(q, k, v, attn_mask=mask))


def network(number: int) -> tuple[nn.Module, torch.Tensor]:
    """The network of that number, and an input."""
    choose = random.Random(number)
    width, depth = choose.choice([8, 12, 16, 24, 32]), choose.randint(1, 4)
    kind = choose.choice(["conv", "token", "encoder"])
    if kind == "conv":
        blocks: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1)]
        for _ in range(depth):
            groups = choose.choice([1, width])
            blocks += [nn.Conv2d(width, width, choose.choice([1, 3]), groups=groups), nn.BatchNorm2d(width)]
            blocks += [choose.choice([nn.ReLU, nn.SiLU, nn.GELU])(), nn.Dropout(0.2)]
        return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5)), torch.zeros(
            choose.randint(1, 3), 3, 16, 16
        )
    x = torch.zeros(choose.randint(1, 3), choose.randint(4, 12), width)
    if kind == "token":
        return nn.Sequential(*[nn.Sequential(Masked(width), nn.LayerNorm(width)) for _ in range(depth)]), x
    layer = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True)
    return nn.TransformerEncoder(layer, depth, enable_nested_tensor=False), x


def answer(given: tuple[nn.Module, torch.Tensor], model: object) -> str:
    """A digest of all that hwcost says of a network."""
    import hwcost

    module, x = given
    graph = hwcost.trace(module, (x,))
    estimate = model.estimate(module, (x,))  # type: ignore[attr-defined]
    said = repr((graph, graph.by_parts, estimate.latency.hex(), estimate.low.hex(), estimate.high.hex()))
    return hashlib.sha256(said.encode()).hexdigest()


def shipped() -> object:
    """The model that comes with hwcost for torch on one thread."""
    import hwcost

    return hwcost.CostModel.load("default")


def train(draw: Callable[[torch.Tensor], torch.Tensor], go_on: Callable[[int], bool]) -> list[str]:
    """The losses of a training, as text without rounding; `draw` is its dropout."""
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.empty(a, b).normal_(0, 0.1, generator=generator) for a, b in ((8, 32), (32, 1)))
    weights = [w.requires_grad_() for w in (first, second)]
    data = torch.empty(64, 8).normal_(generator=generator)
    losses = []
    for step in count():
        if not go_on(step):
            return losses
        loss = (draw((data @ weights[0]).relu()) @ weights[1] - data[:, :1]).square().mean()
        losses.append(loss.item().hex())
        for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            with torch.no_grad():
                weight -= 0.1 * slope
    raise AssertionError


def from_process(x: torch.Tensor) -> torch.Tensor:
    """Dropout that draws from all generators of the process."""
    return functional.dropout(x, 0.1 + 0.2 * random.random() + 0.1 * float(np.random.rand()))


def from_own(generator: torch.Generator) -> Callable[[torch.Tensor], torch.Tensor]:
    """Dropout that draws from a generator of its own."""
    return lambda x: x * torch.empty_like(x).bernoulli_(0.8, generator=generator) / 0.8


def seed() -> None:
    """Put the generators of the process at their start."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


def child(given: list[tuple[nn.Module, torch.Tensor]], expected: list[str], model: object) -> None:
    """What a forked process does; its exit code is the number of answers that differ."""
    os._exit(min(sum(answer(each, model) != said for each, said in zip(given, expected, strict=True)), 100))


def alone(networks: int) -> list[str]:
    """The answers of a process that does nothing else."""
    command = [sys.executable, __file__, "--networks", str(networks), "--alone"]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return list(json.loads(found.stdout))


def company(seconds: float, networks: int) -> Counter[str]:
    """Run everything at once; returns what was done, and what differed."""
    expected = alone(networks)
    given = [network(n) for n in range(networks)]  # before the trainings, since making weights draws numbers
    done: Counter[str] = Counter()
    end = time.monotonic() + seconds
    failures: list[BaseException] = []
    losses: dict[str, list[str]] = {}
    numbers, ready = count(), threading.Barrier(TRACERS + 2)
    first: list[object] = []

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                ready.wait()
                work()
            except BaseException as error:
                failures.append(error)

        return run

    def tracing() -> None:
        model = shipped()
        first.append(model)
        model = first[0]  # all share one
        while time.monotonic() < end or done["answers"] < networks:
            number = next(numbers) % networks
            done["answers"] += 1
            done["different answers"] += answer(given[number], model) != expected[number]

    def training(name: str, draw: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], None]:
        def run() -> None:
            losses[name] = train(draw, lambda _: time.monotonic() < end)

        return run

    seed()
    work = [guarded(tracing) for _ in range(TRACERS)]
    work += [guarded(training("process", from_process)), guarded(training("own", from_own(torch.Generator())))]
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    fork = multiprocessing.get_context("fork") if hasattr(os, "fork") else None
    while fork is not None and time.monotonic() < end:
        time.sleep(seconds / 8)
        if first:
            few = slice(None, None, max(networks // 10, 1))
            args = (given[few], expected[few], first[0])
            children = [fork.Process(target=child, args=args) for _ in range(CHILDREN)]
            for process in children:
                process.start()
            for process in children:
                process.join(120)
                done["forked processes"] += 1
                done["forked processes that differ"] += process.exitcode != 0
                if process.exitcode is None:
                    process.kill()
    for thread in threads:
        thread.join()
    for error in failures:
        print(f"raised {type(error).__name__}: {error}", file=sys.stderr)
    done["raised"] = len(failures)
    seed()
    for name, draw in (("process", from_process), ("own", from_own(torch.Generator()))):
        again = train(draw, lambda step, name=name: step < len(losses.get(name, ())))
        done["training steps"] += len(again)
        done["different losses"] += sum(a != b for a, b in zip(again, losses.get(name, ()), strict=True))
    return done


def main() -> None:
    """Run and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--networks", type=int, default=200)
    parser.add_argument("--alone", action="store_true", help="print the answers as JSON, computed one after the other")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.alone:
        model = shipped()
        print(json.dumps([answer(network(n), model) for n in range(options.networks)]))
        return
    done = company(options.seconds, options.networks)
    print(json.dumps(done))
    sys.exit(any(done[name] for name in done if "differ" in name or name == "raised"))


if __name__ == "__main__":
    main()
