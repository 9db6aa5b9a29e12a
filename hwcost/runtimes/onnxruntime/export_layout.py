"""How ops that move data are written in an ONNX export: transpositions, slices, concatenations, resizing."""

from __future__ import annotations

import math

from hwcost.graph import Op
from hwcost.runtimes.onnxruntime.export import Export, constant, exports, pair, whole
from hwcost.runtimes.onnxruntime.mutable_graph import Step, Value


@exports("transpose", "permute", "permute_copy", "t", "swapaxes", "movedim", "numpy_T", "mT")
def _transpose(e: Export, op: Op, reads: list[Value]) -> None:
    spec, rank = op.spec, len(reads[0].shape)
    axes = list(range(rank))
    if spec.kind.startswith("permute"):
        axes = [whole(a) % rank for a in pair(spec.param("dims"), 1)]
    elif spec.kind == "numpy_T":
        axes.reverse()
    elif rank > 1:
        names = ("dim0", "dim1") if spec.kind == "transpose" else ("axis0", "axis1")
        a, b = (whole(spec.param(name, default)) % rank for name, default in zip(names, (-2, -1), strict=True))
        axes[a], axes[b] = b, a
    if axes == sorted(axes):
        e.values[op.writes[0]] = reads[0]
    else:
        e.write(op, "Transpose", reads[:1], perm=tuple(axes))


@exports("unbind", "split", "split_with_sizes", "chunk", "tensor_split")
def _split(e: Export, op: Op, reads: list[Value]) -> None:
    x, rank = reads[0], len(reads[0].shape)
    axis = whole(op.spec.param("dim", 0)) % rank
    if len(op.writes) == 1 and op.spec.kind != "unbind":
        e.values[op.writes[0]] = x
        return
    if op.spec.kind == "unbind":
        shapes = [tuple(1 if i == axis else n for i, n in enumerate(x.shape)) for _ in op.writes]
    else:
        shapes = [t.shape for t in op.spec.outputs]
    parts = [Value(shape, x.dtype) for shape in shapes]
    sizes = constant((len(parts),), "int64", tuple(s[axis] for s in shapes))
    e.sketch.put(Step("Split", [x, sizes], parts, op.module, {"axis": axis}))
    for index, part in enumerate(parts):
        if op.spec.kind == "unbind":
            e.write(op, "Squeeze", [part], index, axes=(axis,))
        else:
            e.values[op.writes[index]] = part


_ENDLESS = 1 << 31  # an end of a slice above this means up to the end of the axis


@exports("slice")
def _slice(e: Export, op: Op, reads: list[Value]) -> None:
    x, shape = reads[0], op.spec.outputs[0].shape
    end = op.spec.param("end")
    if shape == x.shape and (end is None or whole(end) > _ENDLESS):  # with another end the export keeps the node
        e.values[op.writes[0]] = x
        return
    axis = whole(op.spec.param("dim", 0)) % len(shape)
    bounds = [constant((1,), "int64", op.spec.param(name)) for name in ("start", "end")]
    bounds += [constant((1,), "int64", axis), constant((1,), "int64", op.spec.param("step", 1))]
    e.write(op, "Slice", [x, *bounds], axes=(axis,), start=op.spec.param("start"), end=op.spec.param("end"),
            step=op.spec.param("step", 1))  # fmt: skip


@exports("flip")
def _flip(e: Export, op: Op, reads: list[Value]) -> None:
    dims = pair(op.spec.param("dims"), 1)
    e.write(op, "Slice", [reads[0], *(constant((len(dims),), "int64", (i, dims)) for i in range(4))], axes=dims)


@exports("roll")
def _roll(e: Export, op: Op, reads: list[Value]) -> None:
    x, shifts, dims = reads[0], pair(op.spec.param("shifts"), 1), pair(op.spec.param("dims"), 1)
    for number, (shift, dim) in enumerate(zip(shifts, dims, strict=True)):
        size = x.shape[dim]
        cut = whole(shift) % size
        parts = []
        for start, length in ((size - cut, cut), (0, size - cut)):
            shape = tuple(length if i == dim % len(x.shape) else n for i, n in enumerate(x.shape))
            bounds = [constant((1,), "int64", (start, length, i)) for i in range(3)]
            parts.append(e.sketch.add("Slice", [x, *bounds], shape, op.module, axes=(dim,), start=start, step=1))
        if number == len(dims) - 1:
            e.write(op, "Concat", parts, axis=dim)
        else:
            x = e.sketch.add("Concat", parts, x.shape, op.module, axis=dim)


@exports("select")
def _select(e: Export, op: Op, reads: list[Value]) -> None:
    x = reads[0]
    axis = whole(op.spec.param("dim", 0)) % len(x.shape)
    index = whole(op.spec.param("index", 0))
    number = index % x.shape[axis] if x.shape[axis] else index
    e.write(op, "Gather", [x, constant((), "int64", number)], axis=axis, at=number)


@exports("embedding", "index_select")
def _gather(e: Export, op: Op, reads: list[Value]) -> None:
    axis = whole(op.spec.param("dim", 0))
    e.write(op, "Gather", reads[:2], axis=axis % max(len(reads[0].shape), 1))


@exports("gather")
def _gather_elements(e: Export, op: Op, reads: list[Value]) -> None:
    e.write(op, "GatherElements", reads)


@exports("cat", "concat", "stack")
def _concat(e: Export, op: Op, reads: list[Value]) -> None:
    axis = whole(op.spec.param("dim", 0))
    if op.spec.kind == "stack":
        out = op.spec.outputs[0].shape
        place = axis % len(out)
        shape = (*out[:place], 1, *out[place + 1 :])
        reads = [e.sketch.add("Unsqueeze", [v], shape, op.module, axes=(place,)) for v in reads]
    filled = [v for v in reads if math.prod(v.shape)]
    e.write(op, "Concat", filled, axis=axis)


@exports("expand", "expand_as", "broadcast_to")
def _expand(e: Export, op: Op, reads: list[Value]) -> None:
    x, shape = reads[0], op.spec.outputs[0].shape
    if x.shape == shape:
        e.values[op.writes[0]] = x
    else:
        e.write(op, "Expand", [x, constant((len(shape),), "int64", shape)])


@exports("squeeze", "unsqueeze")
def _squeeze(e: Export, op: Op, reads: list[Value]) -> None:
    before, after = reads[0].shape, op.spec.outputs[0].shape
    rank = max(len(before), len(after))
    dims = op.spec.param("dim")
    kind = op.spec.kind.capitalize()
    if len(before) == len(after):
        e.values[op.writes[0]] = reads[0]
        return
    axes = range(rank) if dims is None else sorted(whole(d) % rank for d in pair(dims, 1))
    longer = before if kind == "Squeeze" else after
    e.write(op, kind, reads[:1], axes=tuple(a for a in axes if longer[a] == 1))


@exports("pad", "constant_pad_nd")
def _pad(e: Export, op: Op, reads: list[Value]) -> None:
    x = reads[0]
    pads = pair(op.spec.param("pad"), 1)
    mode = str(op.spec.param("mode", "constant"))
    given = op.spec.kind == "constant_pad_nd" or op.spec.param("value") is not None
    number = [constant((), x.dtype)] if mode == "constant" and given else []
    e.write(op, "Pad", [x, constant((2 * len(x.shape),), "int64", pads), *number], pads=pads, mode=mode)


@exports("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d")
def _resize(e: Export, op: Op, reads: list[Value]) -> None:
    before, after = reads[0].shape, op.spec.outputs[0].shape
    mode = "nearest" if "nearest" in op.spec.kind else "linear" if "bilinear" in op.spec.kind else "cubic"
    scaled = op.spec.param("output_size") is None
    factors = tuple(b / a for a, b in zip(before, after, strict=True))
    wanted = constant((4,), "float32" if scaled else "int64", factors)
    e.write(op, "Resize", [reads[0], wanted], mode=mode.encode(), factors=factors, scaled=scaled,
            corners=bool(op.spec.param("align_corners")))  # fmt: skip


@exports("pixel_shuffle")
def _depth_to_space(e: Export, op: Op, reads: list[Value]) -> None:
    e.write(op, "DepthToSpace", reads[:1])
