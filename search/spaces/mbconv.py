"""`mbconv`: the mobile space of Once-for-All (H. Cai et al., ICLR 2020) on the skeleton of MobileNetV3-Large.

Five stages after the stem and a first fixed block; each stage has a depth of 2 to 4 inverted bottlenecks,
each bottleneck its own kernel size (3, 5, 7) and expansion (3, 4, 6); the resolution is searched as well.
Widths, strides, activations and squeeze-excite are those of MobileNetV3-Large (A. Howard et al.,
ICCV 2019, table 1).
"""

from __future__ import annotations

from functools import partial

from torch import nn

from hwcost.search.spaces.base import Block, Decision, Params, Site, Space
from hwcost.search.spaces.blocks import Residual, SqueezeExcite, conv_norm

RESOLUTIONS = (128, 160, 176, 192, 224)
DEPTHS, KERNELS, EXPANSIONS = (2, 3, 4), (3, 5, 7), (3, 4, 6)
STEM = 16
WIDTHS = (24, 40, 80, 112, 160)
STRIDES = (2, 2, 2, 1, 2)
SE = (False, True, False, True, True)
HARD_SWISH = (False, False, True, True, True)
LAST, FEATURES = 960, 1280


class MBConv(Space):
    """The space `mbconv`; see the module."""

    name = "mbconv"

    def __init__(self, classes: int = 1000) -> None:
        self.classes = classes
        stages = range(len(WIDTHS))
        self.decisions = (Decision("resolution", RESOLUTIONS), *(d for s in stages for d in _stage(s)))
        self.sites = (
            Site("stem", ("resolution",), _stem),
            Site("first", ("resolution",), _first),
            *(_site(s, j) for s in stages for j in range(max(DEPTHS))),
            Site("head", ("resolution",), partial(_head, classes)),
        )

    def input_shape(self, params: Params) -> tuple[int, ...]:
        """[1, 3, resolution, resolution]."""
        return (1, 3, params["resolution"], params["resolution"])


def _stage(s: int) -> list[Decision]:
    decisions = [Decision(f"depth.{s}", DEPTHS)]
    for j in range(max(DEPTHS)):
        exists = None if j < min(DEPTHS) else (f"depth.{s}", tuple(d for d in DEPTHS if d > j))
        decisions += [Decision(f"kernel.{s}.{j}", KERNELS, exists), Decision(f"expansion.{s}.{j}", EXPANSIONS, exists)]
    return decisions


def _site(s: int, j: int) -> Site:
    exists = (f"depth.{s}",) if j >= min(DEPTHS) else ()
    decisions = ("resolution", *exists, f"kernel.{s}.{j}", f"expansion.{s}.{j}")
    return Site(f"stages.{s}.{j}", decisions, partial(_block, s, j))


def _side(resolution: int, s: int) -> int:
    """Side of the map that stage s writes; s = -1: what the first stage reads."""
    for stride in (2, *STRIDES[: s + 1]):
        resolution = -(-resolution // stride)
    return resolution


def _stem(p: Params) -> Block:
    shape = (1, 3, p["resolution"], p["resolution"])
    return Block("stem", f"stem {shape}", _build_stem, shape)


def _build_stem() -> nn.Module:
    return nn.Sequential(*conv_norm(3, STEM, 3, 2), nn.Hardswish())


def _first(p: Params) -> Block:
    side = _side(p["resolution"], -1)
    return Block("first", f"separable {side}", _build_first, (1, STEM, side, side))


def _build_first() -> nn.Module:
    body = nn.Sequential(*conv_norm(STEM, STEM, 3, groups=STEM), nn.ReLU(), *conv_norm(STEM, STEM, 1))
    return Residual(body, skip=True)


def _block(s: int, j: int, p: Params) -> Block | None:
    if j >= min(DEPTHS) and p[f"depth.{s}"] <= j:
        return None
    c_in = WIDTHS[s] if j else (STEM, *WIDTHS)[s]
    stride = STRIDES[s] if j == 0 else 1
    side = _side(p["resolution"], s - 1 if j == 0 else s)
    kernel, expansion = p[f"kernel.{s}.{j}"], p[f"expansion.{s}.{j}"]
    shape = (1, c_in, side, side)
    key = f"mbconv {shape} {WIDTHS[s]} k{kernel} e{expansion} s{stride} se{SE[s]} hs{HARD_SWISH[s]}"
    build = partial(build_block, c_in, WIDTHS[s], kernel, c_in * expansion, stride, SE[s], HARD_SWISH[s])
    return Block(f"stages.{s}.{j}", key, build, shape)


def build_block(c_in: int, c_out: int, kernel: int, hidden: int, stride: int, se: bool, hard_swish: bool) -> nn.Module:
    """An inverted bottleneck: [n, c_in, h, w] -> [n, c_out, h/stride, w/stride]."""
    act = nn.Hardswish if hard_swish else nn.ReLU
    body = [*conv_norm(c_in, hidden, 1), act(), *conv_norm(hidden, hidden, kernel, stride, hidden)]
    if se:
        body.append(SqueezeExcite(hidden, _multiple_of_8(hidden / 4), nn.Hardsigmoid))
    body += [act(), *conv_norm(hidden, c_out, 1)]
    return Residual(nn.Sequential(*body), skip=stride == 1 and c_in == c_out)


def _multiple_of_8(channels: float) -> int:
    return max(8, int(channels + 4) // 8 * 8)


def _head(classes: int, p: Params) -> Block:
    side = _side(p["resolution"], len(WIDTHS) - 1)
    return Block("head", f"head {side} {classes}", partial(_Head, classes), (1, WIDTHS[-1], side, side))


class _Head(nn.Sequential):
    def __init__(self, classes: int) -> None:
        wide = [*conv_norm(WIDTHS[-1], LAST, 1), nn.Hardswish(), nn.AdaptiveAvgPool2d(1)]
        classify = [nn.Flatten(), nn.Linear(LAST, FEATURES), nn.Hardswish(), nn.Linear(FEATURES, classes)]
        super().__init__(*wide, *classify)
