"""`mbconv`: the mobile space of Once-for-All (H. Cai et al., ICLR 2020) on the skeleton of MobileNetV3-Large.

Five stages after the stem and a first fixed block; each stage has a depth of 2 to 4 inverted bottlenecks,
each bottleneck its own kernel size (3, 5, 7) and expansion (3, 4, 6); the resolution is searched as well.
Widths, strides, activations and squeeze-excite are those of MobileNetV3-Large (A. Howard et al.,
ICCV 2019, table 1).

With `widths`, the channels of the stem and of each stage are decisions too: the paper's channels times the width
multipliers, rounded to multiples of 8 as in the paper (down by at most 10 %). The channels of the head are those of the
last stage times the paper's ratios: 960 = 6 * 160 and 1280 = 8 * 160.
"""

from __future__ import annotations

import math
from functools import partial

from torch import nn

from hwcost.spaces.base import Block, Decision, Form, Params, Site, Space, SpaceError
from hwcost.spaces.layers import Residual, SqueezeExcite, conv_norm
from hwcost.spaces.registry import register_space

RESOLUTIONS = (128, 160, 176, 192, 224)
DEPTHS, KERNELS, EXPANSIONS = (2, 3, 4), (3, 5, 7), (3, 4, 6)
STEM = 16
WIDTHS = (24, 40, 80, 112, 160)
STRIDES = (2, 2, 2, 1, 2)
SE = (False, True, False, True, True)
HARD_SWISH = (False, False, True, True, True)
LAST, FEATURES = 6, 8  # channels of the head's two layers, as multiples of those of the last stage
_MULTIPLIERS = (0.1, 10.0)  # least and most
_SIDES = (32, 4096)  # least and most resolution (pixels)
_STEM_WIDTH = "width.stem"


@register_space
class MBConv(Space):
    """The space `mbconv`; see the module.

    Args:
        widths: multipliers as text, "0.5,1,1.5" or "0.5:1.5:0.05"; without it the paper's widths are fixed.
        resolutions: sides as text, "128,160"; without it those of the module.
        classes: of the classifier.

    Raises:
        SpaceError: a multiplier outside 0.1..10, a side outside 32..4096, or text that is no list.
    """

    name = "mbconv"

    def __init__(self, widths: str = "", resolutions: str = "", classes: int = 1000) -> None:
        self.classes = classes
        settings = {"widths": widths, "resolutions": resolutions}
        query = "&".join(f"{name}={text.replace(' ', '')}" for name, text in settings.items() if text)
        self.name = f"mbconv?{query}" if query else "mbconv"
        sides = tuple(int(r) for r in numbers(resolutions, "resolutions", *_SIDES)) if resolutions else RESOLUTIONS
        stages = range(len(WIDTHS))
        self.decisions = (
            Decision("resolution", sides),
            *_width_decisions(numbers(widths, "widths", *_MULTIPLIERS) if widths else ()),
            *(d for s in stages for d in _stage(s)),
        )
        scaled = bool(widths)
        stem, last = ((_STEM_WIDTH,), (f"width.{len(WIDTHS) - 1}",)) if scaled else ((), ())
        self.sites = (
            Site("stem", ("resolution", *stem), _stem),
            Site("first", ("resolution", *stem), _first),
            *(_site(s, j, scaled) for s in stages for j in range(max(DEPTHS))),
            Site("head", ("resolution", *last), partial(_head, classes)),
        )

    def input_shape(self, params: Params) -> tuple[int, ...]:
        """[1, 3, resolution, resolution]."""
        return (1, 3, params["resolution"], params["resolution"])


def numbers(text: str, what: str, low: float, high: float) -> tuple[float, ...]:
    """Numbers of "0.5,1" or "start:stop:step" (the stop included).

    Raises:
        SpaceError: text that is neither, or a number outside [low, high].
    """
    try:
        if ":" in text:
            start, stop, step = (float(part) for part in text.split(":"))
            count = math.floor((stop - start) / step + 1e-9) + 1
            found = [round(start + i * step, 9) for i in range(count)] if 0 < count <= 100_000 else []
        else:
            found = [float(part) for part in text.split(",")]
    except (ValueError, ZeroDivisionError):
        found = []
    if not found or not all(low <= number <= high for number in found):
        raise SpaceError(
            f"{what} must be like 1,2 or start:stop:step with numbers in {low:g}..{high:g}, but got {text!r}"
        )
    return tuple(dict.fromkeys(found))


def make_divisible(channels: float) -> int:
    """The nearest multiple of 8, at least 8, and never more than 10 % below (A. Howard et al., their code)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _width_decisions(multipliers: tuple[float, ...]) -> list[Decision]:
    """Channels of the stem and of the stages; multipliers that round to the same channels are one choice."""
    if not multipliers:
        return []
    base = {_STEM_WIDTH: STEM} | {f"width.{s}": width for s, width in enumerate(WIDTHS)}
    return [Decision(n, tuple(sorted({make_divisible(m * width) for m in multipliers}))) for n, width in base.items()]


def _stage(s: int) -> list[Decision]:
    decisions = [Decision(f"depth.{s}", DEPTHS)]
    for j in range(max(DEPTHS)):
        exists = None if j < min(DEPTHS) else (f"depth.{s}", tuple(d for d in DEPTHS if d > j))
        decisions += [Decision(f"kernel.{s}.{j}", KERNELS, exists), Decision(f"expansion.{s}.{j}", EXPANSIONS, exists)]
    return decisions


def _site(s: int, j: int, scaled: bool) -> Site:
    exists = (f"depth.{s}",) if j >= min(DEPTHS) else ()
    widths = (*(() if j else (_before(s),)), f"width.{s}") if scaled else ()
    decisions = ("resolution", *exists, *widths, f"kernel.{s}.{j}", f"expansion.{s}.{j}")
    return Site(f"stages.{s}.{j}", decisions, partial(_block, s, j))


def _before(s: int) -> str:
    return f"width.{s - 1}" if s else _STEM_WIDTH


def _side(resolution: int, s: int) -> int:
    """Side of the map that stage s writes; for s = -1 that of the map which the first stage reads."""
    for stride in (2, *STRIDES[: s + 1]):
        resolution = -(-resolution // stride)
    return resolution


def _stem(p: Params) -> Block:
    shape, width = (1, 3, p["resolution"], p["resolution"]), p.get(_STEM_WIDTH, STEM)
    return Block.of("stem", f"stem {shape} {width}", shape, Form(_make_stem, ()), (width, p["resolution"]))


def _make_stem(sizes: tuple[int, int]) -> tuple[nn.Module, tuple[int, ...]]:
    width, side = sizes
    return nn.Sequential(*conv_norm(3, width, 3, 2), nn.Hardswish()), (1, 3, side, side)


def _first(p: Params) -> Block:
    width, side = p.get(_STEM_WIDTH, STEM), _side(p["resolution"], -1)
    shape = (1, width, side, side)
    return Block.of("first", f"separable {shape}", shape, Form(_make_first, ()), (width, side))


def _make_first(sizes: tuple[int, int]) -> tuple[nn.Module, tuple[int, ...]]:
    width, side = sizes
    body = nn.Sequential(*conv_norm(width, width, 3, groups=width), nn.ReLU(), *conv_norm(width, width, 1))
    return Residual(body, skip=True), (1, width, side, side)


def _block(s: int, j: int, p: Params) -> Block | None:
    if j >= min(DEPTHS) and p[f"depth.{s}"] <= j:
        return None
    c_out = p.get(f"width.{s}", WIDTHS[s])
    c_in = c_out if j else p.get(_before(s), (STEM, *WIDTHS)[s])
    stride = STRIDES[s] if j == 0 else 1
    side = _side(p["resolution"], s - 1 if j == 0 else s)
    kernel, expansion = p[f"kernel.{s}.{j}"], p[f"expansion.{s}.{j}"]
    shape, hidden = (1, c_in, side, side), c_in * expansion
    key = f"mbconv {shape} {c_out} k{kernel} e{expansion} s{stride} se{SE[s]} hs{HARD_SWISH[s]}"
    skip = stride == 1 and c_in == c_out
    form = Form(_make_block, (kernel, stride, SE[s], HARD_SWISH[s], skip))
    squeezed = (make_divisible(hidden / 4),) if SE[s] else ()
    sizes = (side, hidden, c_in, *(() if skip else (c_out,)), *squeezed)
    return Block.of(f"stages.{s}.{j}", key, shape, form, sizes)


def _make_block(
    sizes: tuple[int, ...], kernel: int, stride: int, se: bool, hard_swish: bool, skip: bool
) -> tuple[nn.Module, tuple[int, ...]]:
    """An inverted bottleneck: [n, c_in, h, w] -> [n, c_out, h/stride, w/stride]; and the shape of its input.

    `sizes` are side, expanded channels, channels in, channels out unless `skip`, and squeezed channels if `se`.
    """
    side, hidden, c_in, *rest = sizes
    c_out = c_in if skip else rest[0]
    act = nn.Hardswish if hard_swish else nn.ReLU
    body = [*conv_norm(c_in, hidden, 1), act(), *conv_norm(hidden, hidden, kernel, stride, hidden)]
    if se:
        body.append(SqueezeExcite(hidden, rest[-1], nn.Hardsigmoid))
    body += [act(), *conv_norm(hidden, c_out, 1)]
    return Residual(nn.Sequential(*body), skip=skip), (1, c_in, side, side)


def _head(classes: int, p: Params) -> Block:
    last = len(WIDTHS) - 1
    width, side = p.get(f"width.{last}", WIDTHS[last]), _side(p["resolution"], last)
    shape = (1, width, side, side)
    form = Form(_make_head, (classes,))
    return Block.of("head", f"head {shape} {classes}", shape, form, (width, LAST * width, FEATURES * width, side))


def _make_head(sizes: tuple[int, ...], classes: int) -> tuple[nn.Module, tuple[int, ...]]:
    width, last, features, side = sizes
    wide = [*conv_norm(width, last, 1), nn.Hardswish(), nn.AdaptiveAvgPool2d(1)]
    classify = [nn.Flatten(), nn.Linear(last, features), nn.Hardswish(), nn.Linear(features, classes)]
    return nn.Sequential(*wide, *classify), (1, width, side, side)
