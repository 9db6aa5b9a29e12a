"""Designed networks with the structure of published ones: stages of blocks that halve the map and widen, or a stack of
transformer layers, with sizes and block kinds drawn at random.

The block kinds are those of the literature (residual, bottleneck, inverted, separable, dense, fire, inception, shuffle,
multi-branch, ConvNeXt, window attention). Kind, width, depth, kernel, activation and order are all drawn, so that a
published network comes out only by chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import nn

from hwcost.spaces.designed.attention import Attention
from hwcost.spaces.designed.draws import Rng, log_uniform, pick
from hwcost.spaces.designed.modules import (
    ChannelsFirst,
    ChannelsLast,
    ClassToken,
    Concatenated,
    Embedded,
    Grid,
    Mean,
    Parted,
    Residual,
    RootMeanSquare,
    Rotated,
    Shape,
    Shuffled,
    Split,
    SqueezeExcite,
    Summed,
    Transposed,
)

Layer = nn.Module
_ACTIVATIONS: tuple[Callable[[], Layer], ...] = (
    nn.ReLU,
    nn.ReLU,
    nn.ReLU6,
    nn.SiLU,
    nn.GELU,
    nn.Hardswish,
    nn.LeakyReLU,
)


@dataclass(frozen=True, slots=True)
class Style:
    """What the blocks of one network share."""

    rng: Rng
    act: Callable[[], Layer]  # makes an activation function
    kernel: int
    expansion: int  # of inverted bottlenecks
    excite: bool  # whether blocks have squeeze-excite
    into: bool  # whether activations and sums work in place where no other op reads the input


def stages(rng: Rng) -> tuple[list[Layer], Shape]:
    """Layers of a staged convolutional network, in order, and the shape of its input."""
    batch = 1 if rng.random() < 0.8 else int(pick(rng, 2, 4, 8))
    size = int(pick(rng, 64, 96, 128, 160, 192, 224, 224, 224, 256, 288))
    style = _style(rng)
    c = 8 * int(pick(rng, 1, 2, 3, 4, 4, 5, 6, 8, 8, 8, 12, 16))
    layers = _stem(style, c)
    for _ in range(4):
        kind = _BLOCKS[int(rng.choice(len(_BLOCKS), p=_WEIGHTS))]
        out = 8 * max(1, round(c * float(pick(rng, 1, 1.25, 1.5, 2, 2)) / 8))
        stride = int(pick(rng, 1, 2, 2, 2))
        layers += _stage(style, kind, c, out, stride)
        c = out
    return [*layers, *_head(style, c)], (batch, 3, size, size)


def last_stages(rng: Rng) -> tuple[list[Layer], Shape]:
    """The last layers of a network, and the shape of their input: many channels on a small map, so that most of the
    traffic is weights."""
    style = _style(rng)
    size = int(pick(rng, 4, 6, 7, 7, 8, 10, 12, 14, 14, 16, 20, 28))
    first = c = 32 * round(log_uniform(rng, 8, 32))
    layers: list[Layer] = []
    for _ in range(2):
        kind = pick(rng, _plain, _basic, _bottleneck, _multi, _BLOCKS[int(rng.choice(len(_BLOCKS), p=_WEIGHTS))])
        out = c if rng.random() < 0.6 else 32 * round(log_uniform(rng, 8, 32))
        layers += _stage(style, kind, c, out, int(pick(rng, 1, 1, 2)))
        c = out
    layers += _head(style, c)
    batch = 1 if rng.random() < 0.8 else int(pick(rng, 2, 4))
    return layers, (batch, first, size, size)


def _style(rng: Rng) -> Style:
    into = bool(rng.random() < 0.5)
    act = pick(rng, *_ACTIVATIONS)
    return Style(
        rng=rng,
        act=act if not into or act is nn.GELU else partial(act, inplace=True),  # GELU has no form in place
        kernel=int(pick(rng, 3, 3, 5, 7)),
        expansion=int(pick(rng, 2, 3, 4, 6)),
        excite=bool(rng.random() < 0.4),
        into=into,
    )


def _stage(style: Style, kind: Callable[..., Layer], c: int, out: int, stride: int) -> list[Layer]:
    """Blocks of one kind, the first of which changes the shape."""
    count = int(pick(style.rng, 1, 2, 3, 5))
    return [kind(style, c if number == 0 else out, out, stride if number == 0 else 1) for number in range(count)]


def signals(rng: Rng) -> tuple[list[Layer], Shape]:
    """One-dimensional convolutions along a signal, as those that make tokens of sound (arXiv:2006.11477), and the
    signal's shape."""
    c = int(pick(rng, 1, 1, 2, 8, 40, 64, 128, 256))
    size = round(log_uniform(rng, 64, 16000))
    shape = (1 if rng.random() < 0.7 else int(pick(rng, 2, 4)), c, size)
    layers: list[Layer] = []
    for _ in range(int(pick(rng, 3, 4, 5, 6))):
        kernel = int(pick(rng, 1, 2, 3, 3, 5, 8, 10))
        stride = int(pick(rng, 1, 1, 2, 2, 4, 5))
        out = c if rng.random() < 0.3 else 8 * round(log_uniform(rng, 2, 64))
        groups = c if out == c and rng.random() < 0.4 else 1
        padding = kernel // 2 if rng.random() < 0.5 else 0
        size = (size + 2 * padding - kernel) // stride + 1
        if size < 2:
            break
        norm = pick(rng, nn.Identity, nn.Identity, nn.BatchNorm1d, partial(nn.GroupNorm, out))
        after = [] if norm is nn.Identity else [norm(out)]
        conv = nn.Conv1d(c, out, kernel, stride, padding, groups=groups, bias=bool(rng.random() < 0.5))
        layers.append(nn.Sequential(conv, *after, pick(rng, nn.GELU, nn.GELU, nn.ReLU, nn.SiLU)()))
        c = out
    return layers, shape


def transformer(rng: Rng) -> tuple[list[Layer], Shape]:
    """Layers of a transformer, on an image's patches or on tokens, and the shape of its input."""
    d = int(pick(rng, 128, 192, 192, 256, 320, 384, 384, 512, 768))
    shape: Shape
    layers: list[Layer] = []
    if rng.random() < 0.5:
        size, patch = int(pick(rng, 128, 192, 224, 224, 256)), int(pick(rng, 8, 14, 16, 16, 32))
        shape = (1, 3, size, size)
        tokens = (size // patch) ** 2
        layers = [nn.Conv2d(3, d, patch, patch), nn.Flatten(2), Transposed()]
        if rng.random() < 0.6:
            layers.append(ClassToken(d, add=True))
            tokens += 1
    else:
        tokens = round(log_uniform(rng, 8, 512))
        shape = (1, tokens, d)
        if rng.random() < 0.7:
            words = round(log_uniform(rng, 1000, 60000))
            shape = (1, tokens)
            layers = [Embedded(words, tokens, d)]
    make = _layer_style(rng, d, tokens)
    for _ in range(int(pick(rng, 1, 2, 3))):
        layers += make()
    end = [ClassToken(d, add=False)] if rng.random() < 0.2 and tokens > 1 else [Mean(1, keep=False)]
    return [*layers, nn.LayerNorm(d), *end, nn.Linear(d, int(pick(rng, 10, 100, 1000)))], shape


def _layer_style(rng: Rng, d: int, tokens: int) -> Callable[[], list[Layer]]:
    """A function that makes one more transformer layer; all layers of a network are drawn alike."""
    heads = d // int(rng.choice([s for s in (16, 32, 64, 64, 128) if d % s == 0]))
    fused = bool(rng.random() < 0.7)
    bias = tokens if rng.random() < 0.25 else 0
    table = bool(rng.random() < 0.5)
    drop = [nn.Dropout()] if rng.random() < 0.5 else []
    hidden = int(d * float(pick(rng, 2, 8 / 3, 4, 4))) // 8 * 8
    act = pick(rng, nn.GELU, nn.GELU, nn.ReLU, nn.SiLU)
    before = rng.random() < 0.75  # whether norms stand before attention and feed-forward, or after
    norm = RootMeanSquare if rng.random() < 0.2 else nn.LayerNorm
    gated = rng.random() < 0.25
    rotated = rng.random() < 0.2
    packed = rng.random() < 0.6

    def mix() -> Layer:
        attention = Attention(d, heads, fused=fused, bias=bias, packed=packed, table=table)
        return nn.Sequential(*([Rotated(tokens, d)] if rotated else []), attention, *drop)

    def feed() -> Layer:
        if gated:
            return nn.Sequential(nn.Linear(d, 2 * hidden), Split(act(), gate=True, dim=-1), nn.Linear(hidden, d))
        return nn.Sequential(nn.Linear(d, hidden), act(), *drop, nn.Linear(hidden, d), *drop)

    def layer() -> list[Layer]:
        if before:
            return [Residual(nn.Sequential(norm(d), mix())), Residual(nn.Sequential(norm(d), feed()))]
        return [Residual(mix()), norm(d), Residual(feed()), norm(d)]

    return layer


# -- parts ------------------------------------------------------------------------------------------


def _conv(i: int, o: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[Layer]:
    return [nn.Conv2d(i, o, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(o)]


def _stem(s: Style, c: int) -> list[Layer]:
    form = s.rng.random()
    if form < 0.15:  # patches, as in ConvNeXt
        return [nn.Conv2d(3, c, 4, 4), ChannelsLast(nn.LayerNorm(c))]
    if form < 0.35:
        return [*_conv(3, c // 2, 3, 2), s.act(), *_conv(c // 2, c, 3, int(pick(s.rng, 1, 2))), s.act()]
    if form < 0.42:  # at full size
        return [*_conv(3, c, 3), s.act()]
    layers = [*_conv(3, c, int(pick(s.rng, 3, 3, 5, 7)), 2), s.act()]
    return [*layers, nn.MaxPool2d(3, 2, 1)] if s.rng.random() < 0.5 else layers


def _head(s: Style, c: int) -> list[Layer]:
    layers: list[Layer] = []
    if s.rng.random() < 0.4:
        wide = 8 * round(c * float(pick(s.rng, 2, 3, 4)) / 8)
        layers, c = [*_conv(c, wide), s.act()], wide
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if s.rng.random() < 0.6 else [Mean(2, 3, keep=False)]
    return [*layers, *pool, nn.Linear(c, int(pick(s.rng, 10, 100, 1000, 1000)))]


def _joined(s: Style, body: list[Layer], i: int, o: int, stride: int) -> Layer:
    """The body plus its input, or plus a projection of its input where the shapes differ."""
    if stride == 1 and i == o:
        return Residual(nn.Sequential(*body), into=s.into)
    return Summed([nn.Sequential(*body), nn.Sequential(*_conv(i, o, 1, stride))])


def _gate(s: Style, c: int) -> list[Layer]:
    return [SqueezeExcite(c, max(8, c // int(pick(s.rng, 4, 8, 16))))] if s.excite else []


# -- blocks: (style, channels in, channels out, stride) -----------------------------------------------


def _plain(s: Style, i: int, o: int, stride: int) -> Layer:
    """Pooling or a stride, then a convolution, as in VGG."""
    if stride == 2 and s.rng.random() < 0.5:
        return nn.Sequential(nn.MaxPool2d(2, 2), *_conv(i, o, 3), s.act())
    return nn.Sequential(*_conv(i, o, 3, stride), s.act())


def _basic(s: Style, i: int, o: int, stride: int) -> Layer:
    """Two convolutions with a skip, as in ResNet-18."""
    body = [*_conv(i, o, 3, stride), s.act(), *_conv(o, o, 3), *_gate(s, o)]
    return nn.Sequential(_joined(s, body, i, o, stride), s.act())


def _bottleneck(s: Style, i: int, o: int, stride: int) -> Layer:
    """1x1, 3x3 and 1x1 convolutions with a skip, as in ResNet-50, or with groups as in ResNeXt."""
    inner = max(8, o // int(pick(s.rng, 1, 2, 4)) // 8 * 8)
    width = int(s.rng.choice([g for g in (8, 16, 24, 32, 64) if inner % g == 0]))
    groups = inner // width if s.rng.random() < 0.35 else 1
    body = [*_conv(i, inner), s.act(), *_conv(inner, inner, 3, stride, groups), s.act(), *_gate(s, inner)]
    return nn.Sequential(_joined(s, [*body, *_conv(inner, o)], i, o, stride), s.act())


def _inverted(s: Style, i: int, o: int, stride: int) -> Layer:
    """Expand, depthwise, project, with a skip where shapes allow it, as in MobileNetV2."""
    hidden = 8 * max(1, round(i * s.expansion / 8))
    kernel = int(pick(s.rng, 3, 5, s.kernel))
    body = [*_conv(i, hidden), s.act(), *_conv(hidden, hidden, kernel, stride, hidden), s.act(), *_gate(s, hidden)]
    body += _conv(hidden, o)
    return Residual(nn.Sequential(*body)) if stride == 1 and i == o else nn.Sequential(*body)


def _separable(s: Style, i: int, o: int, stride: int) -> Layer:
    """A depthwise convolution, then one over all channels, as in MobileNet."""
    inner = 2 * i if s.rng.random() < 0.2 else i
    return nn.Sequential(*_conv(i, inner, s.kernel, stride, i), s.act(), *_conv(inner, o), s.act())


def _down(i: int, o: int, stride: int) -> list[Layer]:
    """A strided convolution where the shape changes, nothing where it stays."""
    return [] if stride == 1 and i == o else [nn.Conv2d(i, o, stride, stride)]


def _convnext(s: Style, i: int, o: int, stride: int) -> Layer:
    """A depthwise convolution and a feed-forward on channels, as in ConvNeXt."""
    hidden = o * int(pick(s.rng, 2, 3, 4))
    mlp = nn.Sequential(nn.LayerNorm(o), nn.Linear(o, hidden), nn.GELU(), nn.Linear(hidden, o))
    body = [nn.Conv2d(o, o, int(pick(s.rng, 5, 7, 7)), padding="same", groups=o), ChannelsLast(mlp)]
    return nn.Sequential(*_down(i, o, stride), Residual(nn.Sequential(*body)))


def _dense(s: Style, i: int, o: int, stride: int) -> Layer:
    """Convolutions whose outputs are appended to their inputs, as in DenseNet."""
    growth = int(pick(s.rng, 8, 16, 24, 32))
    layers: list[Layer] = []
    for number in range(int(pick(s.rng, 1, 2, 3))):
        c = i + number * growth
        new = [
            nn.BatchNorm2d(c),
            s.act(),
            *_conv(c, 4 * growth),
            s.act(),
            nn.Conv2d(4 * growth, growth, 3, 1, 1, bias=False),
        ]
        layers.append(Concatenated([nn.Identity(), nn.Sequential(*new)]))
        last = c + growth
    down = [nn.AvgPool2d(2, 2)] if stride == 2 else []
    return nn.Sequential(*layers, nn.BatchNorm2d(last), s.act(), nn.Conv2d(last, o, 1, bias=False), *down)


def _fire(s: Style, i: int, o: int, stride: int) -> Layer:
    """Fewer channels, then 1x1 and 3x3 convolutions of them side by side, as in SqueezeNet."""
    squeeze, half = max(8, o // 8), o // 2
    wide = [
        nn.Sequential(nn.Conv2d(squeeze, half, 1), s.act()),
        nn.Sequential(nn.Conv2d(squeeze, o - half, 3, 1, 1), s.act()),
    ]
    down = [nn.MaxPool2d(3, 2, ceil_mode=bool(s.rng.random() < 0.5))] if stride == 2 else []
    return nn.Sequential(*down, nn.Conv2d(i, squeeze, 1), s.act(), Concatenated(wide))


def _inception(s: Style, i: int, o: int, stride: int) -> Layer:
    """Branches of several kernel sizes and a pooling, concatenated, as in Inception; `long` ones are 1x7 and 7x1."""
    parts = [max(8, o // 4), max(8, o // 8), max(8, o // 8)]
    rest = max(8, o - sum(parts))
    long = s.rng.random() < 0.5
    large = (
        [nn.Conv2d(parts[1], rest, (1, 7), padding=(0, 3)), nn.Conv2d(rest, rest, (7, 1), padding=(3, 0))]
        if long
        else [nn.Conv2d(parts[1], rest, 5, padding=2)]
    )
    made: list[Layer] = [
        nn.Sequential(*_conv(i, parts[0]), s.act()),
        nn.Sequential(*_conv(i, parts[1]), s.act(), *large, s.act()),
        nn.Sequential(nn.MaxPool2d(3, 1, 1) if long else nn.AvgPool2d(3, 1, 1), *_conv(i, parts[2]), s.act()),
    ]
    down = [nn.MaxPool2d(3, 2, 1)] if stride == 2 else []
    return nn.Sequential(*down, Concatenated(made), *_conv(parts[0] + rest + parts[2], o), s.act())


def _shuffle(s: Style, i: int, o: int, stride: int) -> Layer:
    """Half of the channels through a branch, then all interleaved, as in ShuffleNetV2."""
    down = [] if stride == 1 and i == o else [*_conv(i, i, 3, stride, i), *_conv(i, o), s.act()]
    half = o // 2
    branch = [*_conv(half, half), s.act(), *_conv(half, half, 3, 1, half), *_conv(half, half), s.act()]
    return nn.Sequential(*down, Split(nn.Sequential(*branch), gate=False, dim=1), Shuffled(2))


def _multi(s: Style, i: int, o: int, stride: int) -> Layer:
    if s.rng.random() < 0.6:
        return _summed(s, i, o, stride, 1)
    return nn.Sequential(_summed(s, i, i, stride, i), _summed(s, i, o, 1, 1))  # depthwise, then over all channels


def _summed(s: Style, i: int, o: int, stride: int, groups: int) -> Layer:
    """The sum of convolutions of several kernel sizes, each normalised, and of the normalised input where shapes allow
    it (arXiv:2101.03697)."""
    windows = (3, 1) if groups == 1 else (int(pick(s.rng, 3, 5, 7)), *pick(s.rng, (1,), (3,), (3, 1)))
    branches: list[Layer] = [nn.Sequential(*_conv(i, o, window, stride, groups)) for window in windows]
    if stride == 1 and i == o:
        branches.append(nn.BatchNorm2d(i))
    return nn.Sequential(Summed(branches), s.act())


def _attend(s: Style, i: int, o: int, stride: int) -> Layer:
    """Attention over windows of the map, or over all of it, and a feed-forward."""
    heads = o // int(s.rng.choice([g for g in (8, 16, 32) if o % g == 0]))
    hidden = o * int(pick(s.rng, 2, 4))
    window = int(pick(s.rng, 7, 8, 7, 0))
    fused, packed = bool(s.rng.random() < 0.6), bool(s.rng.random() < 0.6)
    mix = Residual(nn.Sequential(nn.LayerNorm(o), Attention(o, heads, fused=fused, packed=packed)))
    feed = Residual(nn.Sequential(nn.LayerNorm(o), nn.Linear(o, hidden), nn.GELU(), nn.Linear(hidden, o)))
    return nn.Sequential(*_down(i, o, stride), Grid(nn.Sequential(mix, feed), window, int(pick(s.rng, 0, 0, 3))))


def _local(s: Style, i: int, o: int, stride: int) -> Layer:
    """A feed-forward on the channels of a map, with a depthwise convolution inside (arXiv:2105.15203)."""
    hidden = o * int(pick(s.rng, 2, 4, 4, 8))
    look = ChannelsFirst(nn.Conv2d(hidden, hidden, int(pick(s.rng, 3, 3, 3, 5)), padding="same", groups=hidden))
    body = nn.Sequential(nn.LayerNorm(o), nn.Linear(o, hidden), look, s.act(), nn.Linear(hidden, o))
    return nn.Sequential(*_down(i, o, stride), Residual(ChannelsLast(body)))


def _parted(s: Style, i: int, o: int, stride: int) -> Layer:
    """Depthwise convolutions whose kernel size differs between parts of the channels (arXiv:1907.09595,
    arXiv:2303.16900), then a convolution over all channels."""
    count = int(pick(s.rng, 2, 3, 4))
    sizes = [i - (count - 1) * (i // count), *[i // count] * (count - 1)]
    windows = [pick(s.rng, (3, 3), (3, 3), (5, 5), (7, 7), (1, 11), (11, 1)) for _ in sizes]
    bodies = [nn.Conv2d(c, c, w, padding="same", groups=c, bias=False) for c, w in zip(sizes, windows, strict=True)]
    some: list[Layer] = [nn.Identity(), *bodies[1:]] if s.rng.random() < 0.4 else [*bodies]
    return nn.Sequential(Parted(some, sizes), nn.BatchNorm2d(i), s.act(), *_conv(i, o, stride, stride), s.act())


_BLOCKS = (
    _plain, _basic, _bottleneck, _inverted, _separable, _convnext, _dense, _fire, _inception, _shuffle, _multi, _attend,
    _local, _parted,
)  # fmt: skip
_WEIGHTS = np.array([8, 10, 15, 16, 7, 7, 6, 3, 5, 5, 6, 6, 3, 3]) / 100
