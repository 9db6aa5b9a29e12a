"""hwcost.trace: what it sees, what it leaves alone, what it says when it cannot go on."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils._python_dispatch import TorchDispatchMode

import hwcost
from hwcost.cost import Cost
from hwcost.graph import FUSED_ATTENTION


class ConvNet(nn.Module):
    """Convolution, batch norm, in-place ReLU, pooling, a linear head."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(x).mean((2, 3)))
        return out


class Attention(nn.Module):
    """Fused attention, whose CPU kernel writes another layout than the plain one."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.norm = nn.Linear(32, 96), nn.LayerNorm(32)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2) + x


class Encoder(nn.Module):
    """torch's own layers, which choose a fused path by the device of their weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.lstm = nn.LSTM(32, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.lstm(self.layer(x))[0]
        return out


NETWORKS: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "convolutional": (ConvNet, (2, 3, 16, 16)),
    "attention": (Attention, (2, 10, 32)),
    "encoder": (Encoder, (2, 10, 32)),
}


class Watch(TorchDispatchMode):
    """Names of the calls that a real run dispatches."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


# -- what it sees ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_trace_makes_the_calls_of_a_real_run(name: str, device: str) -> None:
    make, shape = NETWORKS[name]
    module = make().eval()
    watch, x = Watch(), torch.zeros(shape)
    with torch.inference_mode(), watch:
        module(x)
    graph = hwcost.trace(module.to(device), torch.zeros(shape, device=device))
    assert [op.name for op in graph.ops] == watch.names


def test_channels_last_gives_the_same_work_in_its_own_layout() -> None:
    plain = hwcost.trace(ConvNet(), torch.zeros(1, 3, 16, 16))
    module = ConvNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    last = hwcost.trace(module, torch.zeros(1, 3, 16, 16).to(memory_format=torch.channels_last))
    assert last.cost == plain.cost
    assert last.ops[0].spec.outputs[0].layout == "channels_last"


def test_half_precision_halves_the_bytes() -> None:
    whole = hwcost.trace(ConvNet(), torch.zeros(1, 3, 16, 16)).cost
    half = hwcost.trace(ConvNet().half(), torch.zeros(1, 3, 16, 16, dtype=torch.float16)).cost
    assert (half.macs, 2 * half.bytes) == (whole.macs, whole.bytes)


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, *, scale: Tensor, extra: dict[str, Tensor]) -> dict[str, Any]:
        return {"out": (self.linear(x) * scale, extra["bias"] + x), "x": x}


def test_keyword_inputs_and_nested_outputs() -> None:
    x = torch.zeros(2, 4)
    graph = hwcost.trace(Keywords(), (x,), {"scale": torch.ones(4), "extra": {"bias": torch.ones(4)}})
    assert len(graph.inputs) == 3
    assert len(graph.output_values) == 3
    assert graph.output_values[2] == graph.input_values[0]  # handed through
    assert -1 not in graph.output_values


def test_a_function_counts_what_it_captures_as_weights() -> None:
    weight = torch.zeros(8, 4)
    graph = hwcost.trace(lambda x: F.linear(x, weight), torch.zeros(2, 4))
    assert graph.cost.bytes_weights == 8 * 4 * 4
    assert graph.weight_bytes == 8 * 4 * 4
    assert graph.params == 0  # no nn.Parameter among them


def test_tied_weights_are_counted_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(50, 8), nn.Linear(8, 50, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: Tensor) -> Tensor:
            out: Tensor = self.head(self.embed(ids))
            return out

    graph = hwcost.trace(Tied(), torch.zeros(1, 5, dtype=torch.int64))
    assert graph.params == 50 * 8
    assert graph.weight_bytes == 50 * 8 * 4
    embedding = graph.ops[0]
    assert embedding.cost.bytes_weights == 5 * 8 * 4  # the rows asked for


def test_dropout_and_batch_statistics_count_in_training_only() -> None:
    module = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5))
    x = torch.zeros(2, 3, 8, 8)
    inference, training = hwcost.trace(module, x), hwcost.trace(module, x, training=True)
    assert inference.cost.other_flops == 2 * x.numel()  # scale, shift
    assert training.cost.other_flops == (8 + 2) * x.numel() + 1  # statistics; a mask; one more batch seen
    assert module.training


def test_roles_of_bytes() -> None:
    graph = hwcost.trace(nn.Linear(64, 128), torch.zeros(16, 64))
    assert graph.cost.bytes_weights == (64 * 128 + 128) * 4
    assert graph.cost.bytes_activations == 16 * 64 * 4
    assert graph.cost.bytes_written == 16 * 128 * 4


def test_views_are_free_broadcasts_and_repeats_count_once_and_in_place_ops_write_what_they_read() -> None:
    x = torch.zeros(4, 8)

    def bytes_of(function: Any, *inputs: Tensor) -> tuple[int, int]:
        cost = hwcost.trace(function, inputs).cost
        return cost.bytes_activations, cost.bytes_written

    assert bytes_of(lambda x: x.t().reshape(8, 4).transpose(0, 1), x) == (0, 0)
    assert bytes_of(lambda x: x.t().reshape(32), x) == (128, 128)  # this one has to copy
    assert bytes_of(lambda x, b: x + b.expand(4, 8), x, torch.zeros(1, 8)) == (128 + 32, 128)
    assert bytes_of(lambda x: x * x, x) == (128, 128)
    assert bytes_of(lambda x: x.relu_(), x) == (128, 128)


# -- values that a forward reads -------------------------------------------------------------------


def test_values_of_constants_parameters_and_integer_inputs_are_known() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("steps", torch.tensor([1, 2]))

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            for rate in torch.linspace(0, 1, 3).tolist():
                x = x + rate
            if bool((self.steps > 1).any()) and not torch.all(lengths == 3):
                x = x[: int(lengths.max())]
            return x

    graph = hwcost.trace(Reads(), (torch.zeros(9, 2), torch.tensor([3, 5])))
    assert graph.ops[-1].spec.outputs[0].shape == (5, 2)
    assert any("reads values" in note for note in graph.notes)


class Depends(nn.Module):
    """Goes one of two ways, by a sum of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x) if x.sum() > 0 else x
        return out


def test_other_values_are_computed_where_there_are_data_and_the_graph_says_so() -> None:
    ones, zeros = hwcost.trace(Depends(), torch.ones(2, 4)), hwcost.trace(Depends(), torch.zeros(2, 4))
    assert (ones.cost.macs, zeros.cost.macs) == (2 * 4 * 4, 0)
    assert "computed with the values of the example inputs" in ones.notes[0]


def test_without_data_a_value_cannot_be_read_and_the_error_says_where_and_what_to_do() -> None:
    with pytest.raises(hwcost.TraceError, match=r"aten\.\w+.* reads a value .*with data so that it can be computed"):
        hwcost.trace(Depends(), torch.ones(2, 4, device="meta"))


def test_sizes_that_depend_on_values_are_taken_as_if_all_were_selected() -> None:
    graph = hwcost.trace(lambda x: (x[x > 0], (x > 0).nonzero()), torch.zeros(3, 4))
    assert [op.spec.outputs[0].shape for op in graph.ops if op.spec.kind in ("index", "nonzero")] == [(12,), (12, 2)]
    assert len(graph.notes) == 2


# -- what it leaves alone --------------------------------------------------------------------------


class Careless(nn.Module):
    """Writes into itself, draws random numbers, and may raise."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.register_buffer("count", torch.zeros(2))
        self.seen: list[Tensor] = []
        self.fail = False

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        self.last = x
        self.count += 1
        self.register_buffer("late", torch.rand(3))
        random.random()
        x = self.norm(self.linear(x)) + torch.rand(4)
        if self.fail:
            raise RuntimeError("on purpose")
        return x


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_nothing_is_left_behind(fail: bool, training: bool) -> None:
    module = Careless()
    module.fail = fail
    module.norm.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    attributes = [dict(m.__dict__) for m in module.modules()]
    modes = [m.training for m in module.modules()]
    hooks = torch.nn.modules.module._global_forward_hooks, torch.nn.modules.module._global_forward_pre_hooks
    torch.manual_seed(3), random.seed(3)
    expected = torch.rand(2).tolist(), random.random()
    torch.manual_seed(3), random.seed(3)

    try:
        hwcost.trace(module, torch.zeros(2, 4), training=training)
    except hwcost.TraceError as error:
        assert fail, error  # noqa: PT017 - it need not raise

    assert (torch.rand(2).tolist(), random.random()) == expected
    assert [m.training for m in module.modules()] == modes
    assert [dict(m.__dict__) for m in module.modules()] == attributes
    assert module.state_dict().keys() == before.keys()
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in before.items())
    assert module.seen == []
    assert not any(hooks)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_scripted_module_which_keeps_its_mode_elsewhere() -> None:
    module = torch.jit.script(nn.Sequential(nn.Linear(4, 8), nn.ReLU()))
    before = dict(vars(module))
    graph = hwcost.trace(module, (torch.empty(2, 4),))
    assert (graph.cost.macs, graph.params, graph.status) == (64, 40, "complete")
    assert vars(module) == before
    assert module.training


def test_a_module_on_meta_stays_on_meta() -> None:
    with torch.device("meta"):
        module = ConvNet()
    parameters = list(module.parameters())
    hwcost.trace(module, torch.zeros(1, 3, 8, 8, device="meta"))
    assert all(a is b for a, b in zip(parameters, module.parameters(), strict=True))
    assert all(type(p) is nn.Parameter for p in module.parameters())


# -- what it says ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(1, 3, 16), r"conv2d.*in features\.0 refused its arguments.*Check the shape and dtype"),
        (torch.zeros(1, 4, 16, 16), r"conv2d.*in features\.0 refused its arguments"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.int64), r"features\.0 refused its arguments.*one dtype.*float32.*int64"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.float16), r"features\.0 refused its arguments.*one dtype"),
    ],
)
def test_wrong_inputs_name_the_op_and_the_module(x: Tensor, message: str) -> None:
    with pytest.raises(hwcost.TraceError, match=message) as caught:
        hwcost.trace(ConvNet(), x)
    assert "\n" not in str(caught.value)


def test_a_forward_that_raises_is_not_blamed_on_the_shapes() -> None:
    class Raises(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyError("missing")

    with pytest.raises(hwcost.TraceError, match=r"the forward of 0 raised KeyError.*missing.*runs.*in eager mode"):
        hwcost.trace(nn.Sequential(Raises()), torch.zeros(1))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_module_that_needs_a_gpu_says_so() -> None:
    class Gpu(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.cuda()

    with pytest.raises(hwcost.TraceError, match="0 needs a GPU"):
        hwcost.trace(nn.Sequential(Gpu()), torch.zeros(1))


def test_lazy_parameters_are_refused() -> None:
    with pytest.raises(hwcost.TraceError, match=r"LazyLinear has parameters without a shape.*run the module once"):
        hwcost.trace(nn.LazyLinear(3), torch.zeros(1, 2))


def test_an_op_without_a_rule_is_reported_and_refused_under_strict() -> None:
    library = torch.library.Library("hwcost_test", "DEF")
    library.define("mystery(Tensor x) -> Tensor")
    library.impl("mystery", lambda x: x.clone(), "CPU")  # and no meta kernel

    class Mystery(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = torch.ops.hwcost_test.mystery(x)
            return out

    module, x = nn.Sequential(nn.ReLU(), Mystery()), torch.zeros(3, 4)
    graph = hwcost.trace(module, x)
    assert graph.status == "partial"
    assert graph.uncounted == (("hwcost_test.mystery.default", 1, "1"),)
    assert graph.ops[1].cost == Cost(bytes_activations=48, bytes_written=48)
    assert any("running it on zeros" in note for note in graph.notes)
    with pytest.raises(hwcost.UnknownOp, match=r"hwcost_test.mystery.default \(1 call, first in 1\).*hwcost.rule\("):
        hwcost.trace(module, x, strict=True)
    library._destroy()


# -- torch's fused attention layers --------------------------------------------------------------


def _layer() -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)


class Itself(nn.Module):
    """Self-attention, which may take the fast path."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.attention(x, x, x)[0]
        return out


@pytest.mark.parametrize(
    "module",
    [
        _layer(),
        nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True, activation="gelu"),
        nn.TransformerEncoder(_layer(), 2),
        Itself(),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_fused_attention_is_traced_by_its_parts_too(module: nn.Module, device: str) -> None:
    x = torch.zeros(2, 10, 32, device=device)
    graph = hwcost.trace(module, x)
    assert {op.spec.kind for op in graph.ops} & FUSED_ATTENTION
    assert torch.backends.mha.get_fastpath_enabled()
    parts = graph.by_parts
    assert parts is not None
    assert not {op.spec.kind for op in parts.ops} & FUSED_ATTENTION
    assert {"linear", "softmax"} & {op.spec.kind for op in parts.ops}
    assert parts.by_parts is None
    assert parts.status == graph.status == "complete"
    assert (parts.cost.macs, parts.params, parts.weight_bytes) == (graph.cost.macs, graph.params, graph.weight_bytes)


def test_a_mask_over_padding_leaves_the_macs_of_both_forms_equal() -> None:
    encoder = nn.TransformerEncoder(_layer(), 2)
    mask = torch.zeros(2, 10, dtype=torch.bool)
    graph = hwcost.trace(encoder, torch.zeros(2, 10, 32), {"src_key_padding_mask": mask})
    assert graph.by_parts is not None
    assert graph.by_parts.cost.macs == graph.cost.macs


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("module", [nn.Linear(32, 4), Attention(), nn.LSTM(32, 8)])
def test_other_networks_have_one_form(module: nn.Module, training: bool) -> None:
    assert hwcost.trace(module, torch.zeros(2, 10, 32), training=training).by_parts is None
    assert hwcost.trace(_layer(), torch.zeros(2, 10, 32), training=True).by_parts is None


def test_a_user_who_turns_the_fast_path_off_has_one_form() -> None:
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        graph = hwcost.trace(_layer(), torch.zeros(2, 10, 32))
        assert not torch.backends.mha.get_fastpath_enabled()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert not {op.spec.kind for op in graph.ops} & FUSED_ATTENTION
    assert graph.by_parts is None


def test_threads_that_trace_together_do_not_see_each_other_turn_the_fast_path_off() -> None:
    modules = [_layer() for _ in range(24)]
    with ThreadPoolExecutor(8) as pool:
        graphs = list(pool.map(lambda module: hwcost.trace(module, torch.zeros(2, 10, 32)), modules))
    assert {tuple(op.spec.kind for op in graph.ops) for graph in graphs} == {("_transformer_encoder_layer_fwd",)}
    assert all(graph.by_parts == graphs[0].by_parts for graph in graphs)
    assert torch.backends.mha.get_fastpath_enabled()
