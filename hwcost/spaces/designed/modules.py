"""Modules of which designed networks are made.

A map is [n, c, h, w]: batch, channels, height, width. Tokens are [n, t, d]: batch, tokens, width. A *map module* takes
maps, a *token module* takes tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]
_TOKENS = 4096  # at most, where attention is over a whole map


class Residual(nn.Module):
    """x + f(x), written into a new tensor or, with `into`, over f(x)."""

    def __init__(self, body: nn.Module, *, into: bool = False) -> None:
        super().__init__()
        self.body, self.into = body, into

    def forward(self, x: Tensor) -> Tensor:
        """[...] -> [...]."""
        y: Tensor = self.body(x)
        return y.add_(x) if self.into else x + y


class Concatenated(nn.Module):
    """Branches of the same input, concatenated along `dim`."""

    def __init__(self, branches: Sequence[nn.Module], dim: int = 1) -> None:
        super().__init__()
        self.branches, self.dim = nn.ModuleList(branches), dim

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, ...] -> [n, more c, ...]."""
        return torch.cat([branch(x) for branch in self.branches], self.dim)


class SqueezeExcite(nn.Module):
    """Channels multiplied by a gate that is computed from the mean of the map (arXiv:1709.01507)."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.gate = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.ReLU(), nn.Conv2d(inner, channels, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] -> [n, c, h, w]."""
        y: Tensor = x * self.gate(self.pool(x))
        return y


class Transposed(nn.Module):
    """[n, d, t] -> [n, t, d]."""

    def forward(self, x: Tensor) -> Tensor:
        """A view."""
        return x.transpose(1, 2)


class Arithmetic(nn.Module):
    """An elementwise op of x with a copy of itself, with a number, or with one value for each channel.

    `form`: "add", "sub" or "mul" with the copy, "scale" by a number, "channel" by the values.
    """

    def __init__(self, form: str, shape: Shape) -> None:
        super().__init__()
        self.form = form
        self.values = nn.Parameter(torch.empty(shape[1], 1, 1) if len(shape) == 4 else torch.empty(1, 1, shape[2]))

    def forward(self, x: Tensor) -> Tensor:
        """[...] -> [...]."""
        if self.form == "scale":
            return x * 0.5
        if self.form == "channel":
            return x * self.values
        other = x.flip(0) if x.shape[0] > 1 else x.clone()
        return x + other if self.form == "add" else x - other if self.form == "sub" else x * other


class Shuffled(nn.Module):
    """Channels of several groups interleaved, as in ShuffleNet (arXiv:1707.01083)."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] -> [n, c, h, w]."""
        n, c, h, w = x.shape
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class ChannelsLast(nn.Module):
    """A module on the channels of a map as the last dimension: [n, c, h, w] permuted to [n, h, w, c] and back."""

    there, back = (0, 2, 3, 1), (0, 3, 1, 2)

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] -> [n, c', h, w]."""
        y: Tensor = self.body(x.permute(self.there)).permute(self.back)
        return y


class ChannelsFirst(ChannelsLast):
    """A map module on a map whose channels are last: [n, h, w, c] permuted to [n, c, h, w] and back."""

    there, back = ChannelsLast.back, ChannelsLast.there


class Parted(nn.Module):
    """Channels split into parts of `sizes`, each part given to a module of its own, the results concatenated."""

    def __init__(self, bodies: Sequence[nn.Module], sizes: Sequence[int]) -> None:
        super().__init__()
        self.bodies, self.sizes = nn.ModuleList(bodies), list(sizes)

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] -> [n, c, h, w]."""
        parts = x.split(self.sizes, 1)
        return torch.cat([body(part) for body, part in zip(self.bodies, parts, strict=True)], 1)


class Windows(nn.Module):
    """A map rolled by `shift` and cut into windows of `size` x `size`, each a sequence of tokens (arXiv:2103.14030)."""

    def __init__(self, size: int, shift: int) -> None:
        super().__init__()
        self.size, self.shift = size, shift

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] -> [n (h / size) (w / size), size^2, c]."""
        n, c, h, w = x.shape
        x = x.permute(0, 2, 3, 1)
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        x = x.reshape(n, h // self.size, self.size, w // self.size, self.size, c)
        return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, self.size**2, c)


class Split(nn.Module):
    """Dimension `dim` split in two halves: `body` is applied to the first half, which then multiplies the second
    (`gate`) or is concatenated behind it."""

    def __init__(self, body: nn.Module, *, gate: bool, dim: int) -> None:
        super().__init__()
        self.body, self.gate, self.dim = body, gate, dim

    def forward(self, x: Tensor) -> Tensor:
        """[...] -> [...], with half the size along `dim` where one half gates the other."""
        first, second = x.chunk(2, self.dim)
        first = self.body(first)
        return first * second if self.gate else torch.cat([second, first], self.dim)


class Mean(nn.Module):
    """The mean over some dimensions."""

    def __init__(self, *dims: int, keep: bool) -> None:
        super().__init__()
        self.dims, self.keep = dims, keep

    def forward(self, x: Tensor) -> Tensor:
        """[...] -> [...] with these dimensions of size 1 (`keep`) or removed."""
        return x.mean(self.dims, keepdim=self.keep)


class ClassToken(nn.Module):
    """A learned token put before the others (`add`), or the first token removed."""

    def __init__(self, width: int, *, add: bool) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.empty(1, 1, width)) if add else None

    def forward(self, x: Tensor) -> Tensor:
        """[n, t, d] -> [n, t + 1, d] or [n, t - 1, d]."""
        if self.token is None:
            return x[:, 1:]
        return torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)


class Embedded(nn.Module):
    """Embeddings of words plus embeddings of their positions, as language models begin."""

    def __init__(self, words: int, tokens: int, d: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, d), nn.Embedding(tokens, d)
        self.register_buffer("order", torch.arange(tokens, device="cpu"), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[n, t] of any numbers, from which indices of words are made -> [n, t, d]."""
        word = (x * 1e3).long().remainder(self.words.num_embeddings)
        y: Tensor = self.words(word) + self.places(self.order)
        return y


class Summed(nn.Module):
    """The sum of several branches."""

    def __init__(self, branches: list[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """[...] -> [...]."""
        first, *others = self.branches
        y: Tensor = first(x)
        for branch in others:
            y = y + branch(x)
        return y


class Grid(nn.Module):
    """A token module on windows of `size` x `size` of a square map, which is rolled by `shift` before and back after.

    The whole map is one window where `size` is 0 or does not divide the height. If that were more than `_TOKENS`
    tokens, windows of another size are taken, where one from 4 to 8 divides the height.
    """

    def __init__(self, body: nn.Module, size: int, shift: int) -> None:
        super().__init__()
        self.body, self.size, self.shift = body, size, shift

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] -> [n, c, h, w]."""
        n, c, h, w = x.shape
        s, shift = self.size, self.shift
        if h * w > _TOKENS and not (s and h % s == 0):
            s = next((k for k in (8, 7, 6, 5, 4) if h % k == 0), 0)
        if not s or h % s or h == s:
            y: Tensor = self.body(x.flatten(2).transpose(1, 2))
            return y.transpose(1, 2).reshape(n, c, h, w)
        x = x.permute(0, 2, 3, 1)
        x = torch.roll(x, (-shift, -shift), (1, 2)) if shift else x
        x = x.reshape(n, h // s, s, w // s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, s * s, c)
        x = self.body(x).reshape(n, h // s, w // s, s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        x = torch.roll(x, (shift, shift), (1, 2)) if shift else x
        return x.permute(0, 3, 1, 2).contiguous()


class RootMeanSquare(nn.Module):
    """Normalisation by the root mean square, written as elementwise ops as language models do (arXiv:1910.07467)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        """[n, t, d] -> [n, t, d]."""
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Rotated(nn.Module):
    """Rotary position encoding of tokens (arXiv:2104.09864)."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.cos, self.sin = nn.Parameter(torch.empty(tokens, width)), nn.Parameter(torch.empty(tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        """[n, t, d] -> [n, t, d]."""
        first, second = x.chunk(2, -1)
        return x * self.cos + torch.cat([-second, first], -1) * self.sin


class Reordered(nn.Module):
    """A copy into another order: `dim` is split into `groups`, the dimensions are permuted by `perm`, and the result is
    reshaped to the shape of the input."""

    def __init__(self, groups: int, perm: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.groups, self.perm, self.dim = groups, perm, dim

    def forward(self, x: Tensor) -> Tensor:
        """[...] -> [...]."""
        groups: Tensor = x.unflatten(self.dim, (self.groups, -1))
        return groups.permute(self.perm).reshape(x.shape)


class Recurrent(nn.Module):
    """A recurrent layer over tokens, in both directions (`both`) or in one."""

    def __init__(self, make: type[nn.LSTM] | type[nn.GRU], width: int, hidden: int, *, both: bool) -> None:
        super().__init__()
        self.layer = make(width, hidden, batch_first=True, bidirectional=both)

    def forward(self, x: Tensor) -> Tensor:
        """[n, t, d] -> [n, t, hidden] or [n, t, 2 hidden]."""
        y: Tensor = self.layer(x)[0]
        return y


class AddedProduct(nn.Module):
    """A linear layer as one `addmm`, with weights [in, out], as in GPT-2."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(width, out)), nn.Parameter(torch.empty(out))

    def forward(self, x: Tensor) -> Tensor:
        """[n, t, d] -> [n, t, out]."""
        y: Tensor = torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], -1)
        return y


def height_of(tokens: int) -> int:
    """Height of the most nearly square map that has exactly this many tokens; 1 for a prime number of them."""
    return max(h for h in range(1, math.isqrt(tokens) + 1) if tokens % h == 0)


class OnMap(nn.Module):
    """A map module on tokens: [n, t, d] viewed as [n, d, h, w], with channels last in memory, and back."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """[n, t, d] -> [n, t, d]."""
        n, t, d = x.shape
        height = height_of(t)
        y: Tensor = self.body(x.transpose(1, 2).view(n, d, height, t // height))
        return y.flatten(2).transpose(1, 2)


class AcrossTokens(nn.Module):
    """A module on the transposed tokens, [n, d, t], so that it mixes tokens instead of channels (arXiv:2105.01601)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """[n, t, d] -> [n, t, d]."""
        y: Tensor = self.body(x.transpose(1, 2)).transpose(1, 2)
        return y


class Selective(nn.Module):
    """Two branches, summed with weights for each channel that are computed from the mean of both (arXiv:1903.06586)."""

    def __init__(self, branches: Sequence[nn.Module], channels: int, inner: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.gate = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.ReLU(), nn.Conv2d(inner, 2 * channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] -> [n, c, h, w]."""
        each = torch.stack([branch(x) for branch in self.branches], dim=1)
        n, k, c = each.shape[:3]
        weights = self.gate(each.sum(1).mean((2, 3), keepdim=True)).view(n, k, c, 1, 1).softmax(dim=1)
        y: Tensor = (each * weights).sum(dim=1)
        return y
