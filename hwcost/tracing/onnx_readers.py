"""How nodes of an ONNX graph are read that become one op, where its kind or parameters depend on their attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hwcost.graph import Param
from hwcost.tracing.onnx_nodes import KINDS, REDUCTIONS, NodeView, Operand, Part, axes_of, named, part, reads, view

# -- convolutions and pools ----------------------------------------------------------------------------


def window(node: NodeView) -> dict[str, Param]:
    """Stride, padding, dilation and groups of a convolution or pool; those that do nothing are left out.

    Of padding that differs at both ends, that at the beginning is given.
    """
    axes, out = axes_of(node), node.output(0)
    settings = node.settings
    stride, dilation = (_sides(settings.get(name), axes) for name in ("strides", "dilations"))
    pads = settings.get("pads")
    padding = tuple(pads[:axes]) if isinstance(pads, tuple) else (0,) * axes
    first, kernel = node.input(0), settings.get("kernel_shape")
    if str(settings.get("auto_pad", "")).startswith("SAME") and first and out and isinstance(kernel, tuple):
        sizes = zip(first.spec.shape[2:], out.spec.shape[2:], stride, dilation, kernel, strict=True)
        total = [max((o - 1) * s + d * (int(str(k)) - 1) + 1 - i, 0) for i, o, s, d, k in sizes]
        padding = tuple(n // 2 if settings["auto_pad"] == "SAME_UPPER" else n - n // 2 for n in total)
    found: dict[str, Param] = {"stride": stride, "padding": padding, "dilation": dilation}
    plain = {"stride": (1,) * axes, "padding": (0,) * axes, "dilation": (1,) * axes}
    found = {name: value for name, value in found.items() if value != plain[name]}
    return found | ({"groups": settings["group"]} if settings.get("group", 1) != 1 else {})


def _sides(value: Param, axes: int) -> tuple[int, ...]:
    return tuple(int(str(n)) for n in value) if isinstance(value, tuple) else (1,) * axes


@reads("MaxPool", "AveragePool", "QLinearAveragePool")
def _pool(node: NodeView) -> Sequence[Part]:
    kind = f"{'max' if node.op_type == 'MaxPool' else 'avg'}_pool{axes_of(node)}d"
    params = {"kernel_size": node.settings.get("kernel_shape"), "stride": (1,) * axes_of(node)} | window(node)
    if node.settings.get("ceil_mode"):
        params["ceil_mode"] = True
    if kind.startswith("avg") and not node.settings.get("count_include_pad") and "padding" in params:
        params["count_include_pad"] = False
    if node.op_type == "MaxPool" and node.output(1) is not None:
        kind += "_with_indices"
    return [part(kind, [("self", node.input(0))], node.outputs, params)]


@reads("GlobalAveragePool", "GlobalMaxPool", "QLinearGlobalAveragePool")
def _global_pool(node: NodeView) -> Sequence[Part]:
    kind = f"adaptive_{'max' if 'Max' in node.op_type else 'avg'}_pool{axes_of(node)}d"
    return [part(kind, [("self", node.input(0))], node.outputs, {"output_size": (1,) * axes_of(node)})]


@reads("Resize", "Upsample")
def _resize(node: NodeView) -> Sequence[Part]:
    mode, axes = str(node.settings.get("mode", "nearest")), axes_of(node)
    names = {"nearest": "nearest", "cubic": "bicubic"}
    name = names.get(mode, {1: "linear", 2: "bilinear", 3: "trilinear"}.get(axes, "bilinear"))
    kind = f"upsample_{name}{axes if 1 <= axes <= 3 else 2}d"
    scales = node.input(2 if node.op_type == "Resize" and node.opset > 10 else 1)
    scaled = (scales is not None and scales.spec.numel > 0) or node.settings.get("scales") is not None
    out = node.output(0)
    size = {} if scaled or out is None else {"output_size": out.spec.shape[2:]}
    unknown = [("other", o) for o in node.inputs[1:] if o is not None and not o.spec.weight]
    return [part(kind, [("input", node.input(0)), *unknown], node.outputs, size)]


@reads("GridSample")
def _grid_sample(node: NodeView) -> Sequence[Part]:
    modes = {"linear": 0, "bilinear": 0, "nearest": 1, "cubic": 2, "bicubic": 2}
    mode = modes.get(str(node.settings.get("mode", "linear")), 0)
    return [part("grid_sampler", named(node), node.outputs, {"interpolation_mode": mode})]


@reads("LRN")
def _local_response_norm(node: NodeView) -> Sequence[Part]:
    return [part("onnx.LRN", [("self", node.input(0))], node.outputs, {"size": node.settings.get("size", 1)})]


@reads("RoiAlign")
def _roi_align(node: NodeView) -> Sequence[Part]:
    names = ("input", "rois", "batch_indices")
    params = {"sampling_ratio": node.settings.get("sampling_ratio", 0)}
    return [part("torchvision.roi_align", list(zip(names, node.inputs, strict=False)), node.outputs, params)]


# -- norms ---------------------------------------------------------------------------------------------


@reads("BatchNormalization")
def _batch_norm(node: NodeView) -> Sequence[Part]:
    """In training, where the node says so, or in older opsets where it outputs statistics."""
    outputs = sum(o is not None for o in node.outputs)
    trains = bool(node.settings.get("training_mode")) if node.opset >= 14 else outputs > 1
    return [part("batch_norm", named(node), node.outputs, {"training": True} if trains else {})]


@reads("InstanceNormalization")
def _instance_norm(node: NodeView) -> Sequence[Part]:
    return [part("instance_norm", named(node), node.outputs, {"use_input_stats": True})]


@reads("GroupNormalization")
def _group_norm(node: NodeView) -> Sequence[Part]:
    return [part("group_norm", named(node), node.outputs, {"num_groups": node.settings.get("num_groups", 1)})]


# -- elementwise ---------------------------------------------------------------------------------------


@reads("Gelu", "FastGelu", "BiasGelu")
def _gelu(node: NodeView) -> Sequence[Part]:
    tanh = node.op_type == "FastGelu" or node.settings.get("approximate") == "tanh"
    params = {"approximate": "tanh"} if tanh else {}
    return biased(node, "gelu", params)


@reads("BiasAdd", "BiasSoftmax")
def _biased(node: NodeView) -> Sequence[Part]:
    if node.op_type == "BiasSoftmax":
        return biased(node, "softmax", {"dim": -1})
    return sums(node.inputs, node.output(0))


def sums(terms: Sequence[Operand | None], out: Operand | None) -> list[Part]:
    """Additions of terms one after the other; those that are None are left out. One term alone takes none."""
    there = [t for t in terms if t is not None]
    made, total = list[Part](), there[0]
    for i, term in enumerate(there[1:], start=1):
        after = out if i == len(there) - 1 and out is not None else total.like(f"sum{i}")
        made.append(part("add", [("self", total), ("other", term)], [after]))
        total = after
    return made


def biased(node: NodeView, kind: str, params: Mapping[str, Param]) -> Sequence[Part]:
    """An op of that kind, of the first input or, where there is a second one, of the sum of both."""
    x, bias = node.input(0), node.input(1)
    if x is None or bias is None:
        return [part(kind, [("self", x)], node.outputs[:1], params)]
    total = x.like("sum")
    return [
        part("add", [("self", x), ("other", bias)], [total]),
        part(kind, [("self", total)], node.outputs[:1], params),
    ]


@reads("Sum", "Max", "Min", "Mean")
def _of_many(node: NodeView) -> Sequence[Part]:
    """An elementwise op of any number of operands; of one it is that operand."""
    operands = [o for o in node.inputs if o is not None]
    if len(operands) == 1:
        return [view(node)]
    kind = {"Sum": "add", "Max": "maximum", "Min": "minimum"}.get(node.op_type, "")
    if len(operands) > 2 or not kind:
        kind = f"onnx.{node.op_type}"
    return [part(kind, [("other" if i else "self", o) for i, o in enumerate(operands)], node.outputs)]


@reads("Clip")
def _clip(node: NodeView) -> Sequence[Part]:
    bounds = {name: node.given(name, i) for i, name in enumerate(("min", "max"), start=1)}
    unknown = [("other", o) for o in node.inputs[1:] if o is not None and o.value is None]
    params = {name: value for name, value in bounds.items() if isinstance(value, (int, float))}
    return [part("clamp", [("self", node.input(0)), *unknown], node.outputs, params)]


@reads("Cast", "CastLike")
def _cast(node: NodeView) -> Sequence[Part]:
    x, out = node.input(0), node.output(0)
    if x is not None and out is not None and x.spec.dtype == out.spec.dtype:
        return [view(node)]
    return [part("_to_copy", [("self", x)], node.outputs)]


@reads("Expand")
def _expand(node: NodeView) -> Sequence[Part]:
    x, out = node.input(0), node.output(0)
    if x is not None and out is not None and x.spec.shape == out.spec.shape:
        return [view(node)]
    return [part("expand_copy", named(node), node.outputs)]


@reads("Dropout")
def _dropout(node: NodeView) -> Sequence[Part]:
    """Nothing in inference, but for a mask that somebody reads, which is filled."""
    trains = node.given("is_test", 99) == 0 if node.opset < 7 else bool(node.given("training_mode", 2))
    if node.output(1) is None and not trains:
        return [view(node)]
    if trains:
        return [part("dropout", [("input", node.input(0))], node.outputs, {"train": True})]
    return [view(node), part("full", [], [node.output(1)])]


@reads("Softmax", "LogSoftmax", "Concat")
def _along_axis(node: NodeView) -> Sequence[Part]:
    kind = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Concat": "cat"}[node.op_type]
    name = "tensors" if kind == "cat" else "self"
    return [part(kind, [(name, o) for o in node.inputs], node.outputs, {"dim": node.settings.get("axis", -1)})]


# -- moving data ---------------------------------------------------------------------------------------


@reads("Shape", "Size")
def _shape(node: NodeView) -> Sequence[Part]:
    return [part("size", [], node.outputs)]


@reads("Transpose")
def _transpose(node: NodeView) -> Sequence[Part]:
    x = node.input(0)
    rank = len(x.spec.shape) if x is not None else 0
    perm = node.settings.get("perm")
    return [part("permute_copy", [("self", x)], node.outputs, {"dims": perm or tuple(reversed(range(rank)))})]


@reads("Gather")
def _gather(node: NodeView) -> Sequence[Part]:
    table, axis = node.input(0), node.settings.get("axis", 0)
    if table is not None and table.spec.weight and axis == 0 and len(table.spec.shape) == 2:
        return [part("embedding", [("weight", table), ("indices", node.input(1))], node.outputs)]
    return [part("index_select", [("self", table), ("index", node.input(1))], node.outputs, {"dim": axis})]


@reads("ScatterND", "ScatterElements", "Scatter")
def _scatter(node: NodeView) -> Sequence[Part]:
    """A write into a part of the data, which a runtime does in place; not where the data is a weight."""
    data, indices, updates = (node.input(i) for i in range(3))
    reduction = node.settings.get("reduction", "none")
    in_place: dict[str, Param] = {} if data is None or data.spec.weight else {"in_place": True}
    if node.op_type == "ScatterND":
        params = in_place | ({} if reduction in ("none", None) else {"accumulate": True})
        operands = [("self", data), ("indices", indices), ("values", updates)]
        return [part("index_put", operands, node.outputs, params, view=bool(in_place))]
    params = in_place | ({} if reduction in ("none", None) else {"reduce": reduction})
    operands = [("self", data), ("index", indices), ("src", updates)]
    return [part("scatter", operands, node.outputs, params, view=bool(in_place))]


@reads("Pad")
def _pad(node: NodeView) -> Sequence[Part]:
    """The parameter `pad` is that of torch: before and after, last axis first."""
    x, mode = node.input(0), str(node.settings.get("mode", "constant"))
    pads, axes = node.given("pads", 1), node.given("axes", 3)
    if pads is None:
        pads = node.settings.get("paddings")
    if x is None or pads is None:
        return [part("pad", [("self", x), *(("other", o) for o in node.inputs[1:2])], node.outputs)]
    rank = len(x.spec.shape)
    axes = [a % rank for a in axes] if axes is not None else list(range(rank))
    ends = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        ends[axis] = (pads[i], pads[i + len(axes)])
    params: dict[str, Param] = {"pad": tuple(n for pair in reversed(ends) for n in pair)}
    if mode == "constant":
        value = node.given("value", 2)
        params |= {} if value is None else {"value": float(value[0] if isinstance(value, list) else value)}
    else:
        params["mode"] = {"edge": "replicate", "wrap": "circular"}.get(mode, mode)
    return [part("pad", [("self", x)], node.outputs, params)]


@reads("Trilu")
def _trilu(node: NodeView) -> Sequence[Part]:
    return [part("triu" if node.settings.get("upper", 1) else "tril", [("self", node.input(0))], node.outputs)]


@reads(*REDUCTIONS)
def _reduce(node: NodeView) -> Sequence[Part]:
    """Over all axes where none is named, unless the node says that this means none."""
    axes = node.given("axes", 1)
    if not axes and node.settings.get("noop_with_empty_axes"):
        return [view(node)]
    if isinstance(axes, int):
        axes = (axes,)
    return [part(REDUCTIONS[node.op_type], named(node), node.outputs, {"dim": tuple(axes)} if axes else {})]


# -- products ------------------------------------------------------------------------------------------


@reads("Einsum")
def _einsum(node: NodeView) -> Sequence[Part]:
    operands = [("operands", o) for o in node.inputs]
    return [part("einsum", operands, node.outputs, {"equation": node.settings.get("equation")})]


@reads("Gemm", "FusedGemm")
def _gemm(node: NodeView) -> Sequence[Part]:
    """A linear layer where the weight is stored as torch stores it."""
    a, b, c = (node.input(i) for i in range(3))
    turned = {name: value for name, value in node.settings.items() if name in ("transA", "transB") and value}
    factors = [node.settings.get(name, 1.0) for name in ("alpha", "beta")]
    out = node.output(0)
    inner = out.like("product") if out is not None and node.settings.get("activation") else out
    plain = turned == {"transB": 1} and factors == [1.0, 1.0] and b is not None and b.spec.weight
    if plain and c is not None and out is not None and c.spec.shape == out.spec.shape[-1:]:
        product = part("linear", [("input", a), ("weight", b), ("bias", c)], [inner])
    else:
        product = part("onnx.Gemm", [("mat1", a), ("mat2", b), ("self", c)], [inner], turned)
    return [product] if inner is out or inner is None else [product, *activated(node, inner)]


def activated(node: NodeView, inner: Operand) -> Sequence[Part]:
    """The activation that is fused into a node, of the value `inner` inside it; nothing where there is none."""
    name = str(node.settings.get("activation") or "")
    if not name:
        return []
    kind = {"Clip": "clamp", "Gelu": "gelu"}.get(name) or KINDS.get(name, f"onnx.{name}")
    return [part(kind, [("self", inner)], node.outputs[:1])]
