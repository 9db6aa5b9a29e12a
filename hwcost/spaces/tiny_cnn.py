"""`tiny-cnn`: small convolutional networks for grey images of ten classes, made to be searched on a laptop.

Three stages of residual blocks follow a strided stem. For each stage the search decides depth, width,
kernel size, expansion, whether the spatial convolution is ordinary or depthwise, and squeeze-excite;
for the whole network, the resolution. A block with an ordinary convolution is the "fused" inverted
bottleneck (k x k expands, 1 x 1 projects; S. Gupta, M. Tan, 2019), one with a depthwise convolution the
usual one (1 x 1 expands, k x k depthwise, 1 x 1 projects; M. Sandler et al., CVPR 2018). The first has many flops and
little traffic, the second few flops and much traffic.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from hwcost.spaces.base import Block, Decision, Params, Site, Space
from hwcost.spaces.layers import Classifier, Residual, SqueezeExcite, conv_norm
from hwcost.spaces.registry import register_space

CLASSES = 10
STEM = 16  # channels
RESOLUTIONS = (64, 80, 96)
DEPTHS = (1, 2, 3)
WIDTHS = ((16, 24, 32), (24, 40, 64), (32, 64, 96))  # channels of each stage
_PER_BLOCK = ("kernel", "expansion", "conv", "se")  # decisions that all blocks of a stage share


@register_space
class TinyCNN(Space):
    """The space `tiny-cnn`; see the module."""

    name = "tiny-cnn"

    def __init__(self) -> None:
        self.decisions = (Decision("resolution", RESOLUTIONS), *(d for s in range(len(WIDTHS)) for d in _stage(s)))
        self.sites = (
            Site("stem", ("resolution",), _stem),
            *(_site(s, j) for s in range(len(WIDTHS)) for j in range(max(DEPTHS))),
            Site("head", ("resolution", f"width.{len(WIDTHS) - 1}"), _head),
        )

    def input_shape(self, params: Params) -> tuple[int, ...]:
        """[1, 1, resolution, resolution]."""
        return (1, 1, params["resolution"], params["resolution"])


def _stage(s: int) -> tuple[Decision, ...]:
    return (
        Decision(f"depth.{s}", DEPTHS),
        Decision(f"width.{s}", WIDTHS[s]),
        Decision(f"kernel.{s}", (3, 5)),
        Decision(f"expansion.{s}", (1, 3)),
        Decision(f"conv.{s}", ("ordinary", "depthwise")),
        Decision(f"se.{s}", (False, True)),
    )


def _site(s: int, j: int) -> Site:
    """Block j of stage s. The first depends on the width of the stage before, others exist only at some depths."""
    before = () if s == 0 else (f"width.{s - 1}",)
    exists = (f"depth.{s}",) if j else before
    decisions = ("resolution", *exists, f"width.{s}", *(f"{what}.{s}" for what in _PER_BLOCK))
    return Site(f"stages.{s}.{j}", decisions, partial(_block, s, j))


def _side(resolution: int, s: int) -> int:
    """Side of the map that stage s writes: the stem halves it, and so does every stage but the first."""
    for _ in range(s + 1):
        resolution = (resolution + 1) // 2
    return resolution


def _stem(p: Params) -> Block:
    shape = (1, 1, p["resolution"], p["resolution"])
    return Block("stem", f"stem {shape} {STEM}", _build_stem, shape)


def _head(p: Params) -> Block:
    last = len(WIDTHS) - 1
    side, width = _side(p["resolution"], last), p[f"width.{last}"]
    shape = (1, width, side, side)
    return Block("head", f"head {shape} {CLASSES}", partial(Classifier, width, CLASSES), shape)


def _block(s: int, j: int, p: Params) -> Block | None:
    if j and p[f"depth.{s}"] <= j:
        return None
    width = p[f"width.{s}"]
    c_in = width if j else p[f"width.{s - 1}"] if s else STEM
    stride = 2 if s and j == 0 else 1
    side = _side(p["resolution"], s - 1 if stride == 2 else s)
    kernel, expansion, conv, se = (p[f"{what}.{s}"] for what in _PER_BLOCK)
    shape = (1, c_in, side, side)
    key = f"{conv} {shape} {width} k{kernel} e{expansion} s{stride}{' se' if se else ''}"
    return Block(f"stages.{s}.{j}", key, partial(build_block, c_in, width, kernel, expansion, conv, se, stride), shape)


def _build_stem() -> nn.Module:
    return nn.Sequential(*conv_norm(1, STEM, 3, 2), nn.ReLU())


def build_block(c_in: int, c_out: int, kernel: int, expansion: int, conv: str, se: bool, stride: int) -> nn.Module:
    """An inverted bottleneck, fused where `conv` is "ordinary": [n, c_in, h, w] -> [n, c_out, h/stride, w/stride]."""
    hidden = c_in * expansion
    body: list[nn.Module] = []
    if conv == "depthwise":
        body += [*conv_norm(c_in, hidden, 1), nn.ReLU(), *conv_norm(hidden, hidden, kernel, stride, hidden), nn.ReLU()]
    else:
        body += [*conv_norm(c_in, hidden, kernel, stride), nn.ReLU()]
    if se:
        body.append(SqueezeExcite(hidden, max(hidden // 4, 8)))
    body += conv_norm(hidden, c_out, 1)
    return Residual(nn.Sequential(*body), skip=stride == 1 and c_in == c_out)
