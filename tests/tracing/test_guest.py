"""A trace leaves modules, arguments, random states and other threads as they were, and sees through wrappers."""

from __future__ import annotations

import functools
import gc
import json
import random
import subprocess
import sys
import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import hwcost
from hwcost.tracing.leftovers import LeftoverWarning
from hwcost.tracing.shadow import Shadow

X = torch.randn(2, 3, 8, 8)


class Net(nn.Module):
    """Keeps everything it can: activations in attributes, lists, objects and hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.5)
        self.last: Any = None
        self.all: list[Any] = []
        self.state = State()
        self.conv.register_forward_hook(lambda module, args, out: self.all.append(out))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        self.last = self.drop(self.norm(self.conv(x)))
        self.state.tensors["last"] = self.last
        self.conv.register_forward_pre_hook(lambda module, args: None)
        return self.last

    forward = encode


class State:
    def __init__(self) -> None:
        self.tensors: dict[str, Any] = {}


NET = Net()


def encode(x: torch.Tensor) -> torch.Tensor:
    return NET.encode(x)


@torch.compile
def product(x: torch.Tensor) -> torch.Tensor:
    return x @ x.transpose(-1, -2)


def _shadows() -> int:
    gc.collect()
    return sum(type(thing) is Shadow for thing in gc.get_objects())


# -- modules in disguise ---------------------------------------------------------------------------------------


def _closure(net: Net) -> Callable[..., Any]:
    return lambda x: net.encode(x)


def _object(net: Net) -> Callable[..., Any]:
    class Pipeline:
        def __init__(self) -> None:
            self.net = net

        def __call__(self, x: torch.Tensor) -> Any:
            return self.net(x)

    return Pipeline()


@pytest.mark.parametrize(
    "disguise",
    [
        lambda net: net.encode,
        lambda net: net.forward,
        lambda net: functools.partial(net.encode),
        lambda net: functools.partial(Net.encode, net),
        _closure,
        _object,
        lambda net: lambda x, net=net: net(x),
        torch.compile,
        lambda net: torch.compile(net.encode),
        nn.DataParallel,
        torch.optim.swa_utils.AveragedModel,
    ],
)
def test_a_module_in_disguise_is_traced_as_itself(disguise: Callable[[Net], Any]) -> None:
    net = Net()
    alone = hwcost.trace(net, (X,))
    graph = hwcost.trace(disguise(net), (X,))
    assert graph == alone
    assert graph.params == sum(p.numel() for p in net.parameters())
    assert list(graph.blocks(1)) == ["conv", "norm", "drop"]
    assert net.training


def test_a_function_that_uses_a_global_module_is_traced_as_that_module() -> None:
    assert hwcost.trace(encode, (X,)) == hwcost.trace(lambda x: encode(x), (X,)) == hwcost.trace(NET, (X,))
    assert NET.last is None
    assert NET.training


def test_blocks_of_several_modules_begin_with_their_names() -> None:
    first, second = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4))
    graph = hwcost.trace(lambda x: second(first(x)), (torch.ones(1, 4),))
    assert set(graph.blocks(2)) == {"first", "second.0"}
    assert graph.params == 40


def test_compiled_parts_are_followed_as_written() -> None:
    class Parts(nn.Module):
        def __init__(self, change: Callable[[nn.Module], nn.Module]) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(16, 16), change(nn.Linear(16, 16))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x).relu())  # type: ignore[no-any-return]

    def compiled_in_place(module: nn.Module) -> nn.Module:
        module.compile()
        return module

    x = torch.randn(2, 8, 16)
    alone = hwcost.trace(Parts(lambda module: module), (x,))
    assert hwcost.trace(Parts(torch.compile), (x,)) == alone
    assert hwcost.trace(Parts(compiled_in_place), (x,)) == alone
    assert hwcost.trace(product, (x,)).cost.macs == 2 * 8 * 8 * 16
    assert hwcost.trace(lambda x: product(x), (x,)).cost.macs == 2 * 8 * 8 * 16


def test_a_function_that_was_traced_is_compiled_later_all_the_same() -> None:
    graphs = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(lambda x: x.sin() + 1, backend=backend)
    hwcost.trace(compiled, (torch.ones(3),))
    assert not graphs
    compiled(torch.ones(3))
    assert len(graphs) == 1


@pytest.mark.filterwarnings("ignore")
def test_a_scripted_module_is_traced_in_eval_mode() -> None:
    net, inputs = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8)), (torch.zeros(2, 4),)
    alone, scripted = hwcost.trace(net, inputs), torch.jit.script(net)
    for module in (scripted, nn.Sequential(scripted)):
        graph = hwcost.trace(module, inputs)
        assert (graph.cost, graph.params) == (alone.cost, alone.params)
    assert all(module.training for module in scripted.modules())
    recorded = hwcost.trace(torch.jit.trace(net.eval(), inputs), inputs)
    assert (recorded.cost.macs, recorded.params) == (alone.cost.macs, alone.params)


# -- nothing is left -------------------------------------------------------------------------------------------


def test_a_module_is_as_before() -> None:
    net = Net()
    before = {name: dict(module.__dict__) for name, module in net.named_modules()}
    hooks = len(net.conv._forward_pre_hooks)
    hwcost.trace(net, (X,))
    assert {name: dict(module.__dict__) for name, module in net.named_modules()} == before
    assert (net.all, net.state.tensors, net.last) == ([], {}, None)
    assert len(net.conv._forward_pre_hooks) == hooks
    assert not _shadows()


class Cache:
    def __init__(self) -> None:
        self.layers = [torch.ones(2, 3)]
        self.seen: dict[str, Any] = {}


def test_arguments_that_hold_tensors_are_as_before_and_count_as_inputs() -> None:
    def forward(x: torch.Tensor, cache: Cache, options: dict[str, Any], *, more: OrderedDict[str, Any]) -> Any:
        cache.layers.append(torch.cat([cache.layers[0], x]))
        cache.seen["x"] = x
        options["x"] = x
        more["y"] = more["x"] + x
        return cache.layers[-1]

    cache, options, more = Cache(), {"list": [torch.ones(1)]}, OrderedDict(x=torch.ones(2, 3))
    graph = hwcost.trace(forward, (torch.ones(2, 3), cache, options), {"more": more})
    assert [spec.shape for spec in graph.inputs] == [(2, 3), (2, 3), (1,), (2, 3)]
    assert graph.cost.bytes_weights == 0
    assert len(cache.layers) == 1
    assert type(cache.layers[0]) is torch.Tensor
    assert (cache.seen, list(options), list(more)) == ({}, ["list"], ["x"])


@functools.lru_cache
def _mask(n: int) -> torch.Tensor:
    mask = torch.zeros(n, n)
    mask[: n // 2, n // 2 :] = -100.0
    return mask


class Window(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) @ self.linear(x).transpose(-1, -2) + _mask(x.shape[1])


def test_what_a_forward_caches_is_a_real_tensor_that_trains() -> None:
    _mask.cache_clear()
    net, x = Window(), torch.randn(2, 10, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second = hwcost.trace(net, (x,)), hwcost.trace(net, (x,))
    assert first == second
    expected = torch.zeros(10, 10)
    expected[:5, 5:] = -100.0
    cached = _mask(10)
    assert type(cached) is torch.Tensor
    assert torch.equal(cached, expected)
    assert not vars(cached)
    assert not cached.is_inference()
    net(x).sum().backward()
    assert not _shadows()


def test_values_of_constants_are_read() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        n = x.shape[1]
        mask = (torch.arange(n)[:, None] >= torch.arange(n)).unsqueeze(0).expand(4, -1, -1)
        total = int(mask.sum())
        return x * total if mask.any() and not mask.all() else x @ x

    graph = hwcost.trace(forward, (torch.empty(1, 300, 300, device="meta"),))
    assert graph.cost.macs == 0
    assert graph.ops[-1].spec.kind == "mul"


def test_a_constant_into_which_an_activation_is_written_cannot_be_read() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        buffer = torch.zeros(3)
        buffer[0] = x.sum()
        return x * max(buffer.tolist())

    with pytest.raises(hwcost.TraceError, match="values"):
        hwcost.trace(forward, (torch.empty(3, device="meta"),))
    assert "computed with the values" in hwcost.trace(forward, (torch.ones(3),)).notes[0]


KEPT: list[Any] = []


def test_what_a_forward_leaves_in_a_global_is_told_by_name() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        sys.modules[__name__].KEPT.append(x.relu())  # type: ignore[attr-defined]
        return x

    sys.modules.setdefault(__name__, sys.modules.get(__name__) or _this())
    with pytest.warns(LeftoverWarning, match="KEPT"):
        hwcost.trace(forward, (torch.ones(3),))
    KEPT.clear()


def _this() -> Any:
    module = type(sys)(__name__)
    module.__dict__.update(globals())
    return module


def test_random_states_and_settings_of_the_process_are_as_before() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        torch.set_default_dtype(torch.float64)
        x = functional.dropout(x + random.random() + np.random.rand(), 0.5, training=True)
        return x * (1 if torch.rand(1) < 0.5 else 2)

    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    hwcost.trace(forward, (torch.ones(3),))
    if threading.active_count() == 1:
        assert torch.equal(torch.get_rng_state(), state[0])
        assert random.getstate() == state[1]
        assert (np.random.get_state()[1] == state[2]).all()
    torch.set_default_dtype(torch.float32)


def test_draws_for_values_come_from_no_generator_of_the_process() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        noise = [
            torch.rand(3),
            torch.randn(3),
            torch.randperm(3) * 1.0,
            torch.rand_like(x),
            torch.randint(5, (3,)) * 1.0,
        ]
        noise += [torch.empty(3).normal_(), functional.dropout(x, 0.5, training=True), torch.bernoulli(x / 2)]
        return x * len([n for n in noise if n.sum() > 1e9])

    state, stop = torch.get_rng_state(), threading.Event()
    thread = threading.Thread(target=stop.wait)  # with another thread, no state may be put back
    thread.start()
    try:
        graph = hwcost.trace(forward, (torch.ones(3),))
        assert torch.equal(torch.get_rng_state(), state)
        assert hwcost.trace(forward, (torch.ones(3),)) == graph
    finally:
        stop.set()
        thread.join()


# -- other threads ---------------------------------------------------------------------------------------------

SEEN: dict[str, Any] = {}


def test_a_trace_changes_nothing_that_another_thread_sees() -> None:
    """A forward of the same module, in the middle of the trace, in another thread."""
    net, seen = Net(), SEEN
    seen.clear()

    def look() -> None:
        seen, net = SEEN, SEEN.pop("net")()
        seen["training"] = net.training
        seen["attributes"] = type(net.last)
        seen["collects"] = gc.isenabled()
        seen["fast path"] = torch.backends.mha.get_fastpath_enabled()
        seen["hooks"] = len(nn.modules.module._global_forward_hooks)
        seen["mode"] = torch.utils._python_dispatch.is_in_torch_dispatch_mode()
        seen["inference"] = torch.is_inference_mode_enabled()
        seen["runs"] = type(net.norm(net.conv(X)))

    def forward(x: torch.Tensor) -> torch.Tensor:
        out = net.encode(x)
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        return out

    seen["net"] = weakref.ref(net)  # which a trace does not look through
    hwcost.trace(forward, (X,))
    assert seen == {
        "training": True, "attributes": type(None), "collects": True, "fast path": True, "hooks": 0, "mode": False,
        "inference": False, "runs": torch.Tensor,
    }  # fmt: skip


def test_a_trace_inside_a_forward_that_is_traced() -> None:
    SEEN.clear()

    def forward(x: torch.Tensor) -> torch.Tensor:
        SEEN["macs"] = hwcost.trace(nn.Linear(4, 4), (torch.empty(2, 4, device="meta"),)).cost.macs
        return x @ x

    assert hwcost.trace(forward, (torch.ones(3, 3),)).cost.macs == 27
    assert SEEN == {"macs": 32}


def test_threads_and_forked_processes_give_the_answers_of_one_thread() -> None:
    """The first uses in a process, by eight threads, beside two trainings that must not notice."""
    script = Path(__file__).parents[1] / "bench" / "bench_threads.py"
    command = [sys.executable, str(script), "--seconds", "3", "--networks", "24"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    done = json.loads(found.stdout)
    assert done["answers"] >= 24
    assert done["training steps"] > 0
