"""Forwards that do more than compute: mark stretches, ask about masks, set globals, need what is not there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hwcost


@pytest.fixture
def library() -> Iterator[torch.library.Library]:
    made = torch.library.Library("hwcost_edges", "DEF")
    yield made
    made._destroy()


def test_marks_for_a_profiler_are_no_ops_of_the_network() -> None:
    def forward(x: Tensor) -> Tensor:
        with torch.profiler.record_function("stretch"):
            return x @ x

    for _ in range(2):
        graph = hwcost.trace(forward, torch.zeros(3, 3))
        assert [op.name for op in graph.ops] == ["aten.matmul.default"]
    assert hwcost.trace(nn.DataParallel(nn.Linear(3, 3)), torch.zeros(3, 3)).cost.macs == 27


def test_an_encoder_that_asks_about_its_padding_counts_padding_as_tokens() -> None:
    """It would leave padded tokens out of a run, if its mask has them all at the end, which depends on values."""
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    x, mask = torch.zeros(2, 10, 32), torch.zeros(2, 10, dtype=torch.bool)
    graph = hwcost.trace(nn.TransformerEncoder(layer, 2), x, {"src_key_padding_mask": mask})
    assert graph.status == "complete"
    assert graph.cost.macs == 2 * hwcost.trace(layer, x).cost.macs
    assert "depends on values" in graph.notes[0]


def test_what_a_forward_sets_for_the_process_is_put_back() -> None:
    def settings() -> list[Any]:
        return [
            torch.get_default_dtype(),
            torch.get_float32_matmul_precision(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_num_threads(),
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.enabled,
            torch.is_grad_enabled(),
        ]

    def forward(x: Tensor, fail: bool) -> Tensor:
        torch.set_default_dtype(torch.float64)
        torch.set_float32_matmul_precision("medium")
        torch.use_deterministic_algorithms(mode=True)
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
        torch.backends.cudnn.enabled = not torch.backends.cudnn.enabled
        torch.set_grad_enabled(False)
        assert not fail
        return x

    before = settings()
    hwcost.trace(forward, torch.zeros(1), {"fail": False})
    assert settings() == before
    with pytest.raises(hwcost.TraceError):
        hwcost.trace(forward, torch.zeros(1), {"fail": True})
    assert settings() == before


@pytest.mark.parametrize("module", [3, None, nn.ReLU])
def test_what_is_no_network_is_refused(module: Any) -> None:
    with pytest.raises(hwcost.TraceError, match=r"follows an nn\.Module or a function, but got .*Give an instance"):
        hwcost.trace(module, torch.zeros(1))


@pytest.mark.parametrize("inputs", [None, 3, {"x": torch.zeros(1)}])
def test_inputs_are_a_tensor_or_a_sequence(inputs: Any) -> None:
    with pytest.raises(hwcost.TraceError, match=r"a tensor or a tuple of arguments, but got \w+\. Give trace\("):
        hwcost.trace(nn.ReLU(), inputs)


def test_an_axis_that_is_not_there_is_refused() -> None:
    with pytest.raises(hwcost.TraceError, match=r"softmax.* refused its arguments: dim must lie in \[-2, 1\], .* 2\. "):
        hwcost.trace(nn.Softmax(2), torch.zeros(3, 4))


def test_an_op_for_another_device_asks_for_its_shape(library: torch.library.Library) -> None:
    library.define("elsewhere(Tensor x) -> Tensor")
    library.impl("elsewhere", lambda x: x.clone(), "CUDA")
    with pytest.raises(hwcost.TraceError, match=r"elsewhere.* in the root module has no kernel .*register_fake"):
        hwcost.trace(lambda x: torch.ops.hwcost_edges.elsewhere(x), torch.zeros(3))


def test_a_forward_that_takes_gradients_is_told_what_to_do() -> None:
    class Gradient(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.autograd.grad((x * x).sum(), x)[0]

    with pytest.raises(hwcost.TraceError, match=r"0 takes gradients after aten\.sum.*Trace its forward alone"):
        hwcost.trace(nn.Sequential(Gradient()), torch.zeros(3, requires_grad=True))


class Named(nn.Module):
    """Takes the layer that a number names."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({"layer_0": nn.Linear(4, 4), "layer_1": nn.Linear(4, 8)})

    def forward(self, x: Tensor, which: Tensor) -> Tensor:
        out: Tensor = self.layers[f"layer_{which.argmax()}"](x)
        return out


@pytest.mark.parametrize("which", [torch.tensor([0, 1]), torch.tensor([0.0, 1.0])])
def test_a_name_made_from_a_value_reads_it(which: Tensor) -> None:
    graph = hwcost.trace(Named(), (torch.zeros(2, 4), which))
    assert graph.cost.macs == 2 * 4 * 8
    assert "read" in graph.notes[0]
    with pytest.raises(hwcost.TraceError, match="reads a value that shapes alone do not determine"):
        hwcost.trace(Named().to("meta"), (torch.zeros(2, 4), torch.zeros(2, device="meta")))


def test_a_weight_is_never_reshaped() -> None:
    class Reshapes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.zeros(4, 8))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.get_buffer("table").t_()

    module = Reshapes()
    with pytest.raises(hwcost.TraceError, match=r"t_.* in the root module refused.*buffer or constant is reshaped"):
        hwcost.trace(module, torch.zeros(2, 8))
    assert module.get_buffer("table").shape == (4, 8)
