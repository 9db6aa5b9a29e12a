"""Attention in the variants of published networks; tokens are [n, t, d]: batch, tokens, width."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom


class Attention(nn.Module):
    """Self-attention.

    Args:
        width: d.
        heads: number of heads, which divides d.
        fused: by `scaled_dot_product_attention`; otherwise by matrix products and a softmax.
        bias: number of tokens where a bias [heads, t, keys] is added to the scores, 0 for no bias.
        reduce: every `reduce`-th token gives a key and a value; 1 where packed.
        packed: one matrix makes queries, keys and values; otherwise one makes queries and another keys and values.
        table: the bias, if any, is gathered from a table of relative positions.
        talking: the scores of the heads are mixed before and after the softmax (arXiv:2003.02436); not where fused.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        fused: bool,
        bias: int = 0,
        reduce: int = 1,
        packed: bool = False,
        table: bool = False,
        talking: bool = False,
    ) -> None:
        super().__init__()
        first = 3 * width if packed else width
        self.q, self.out = nn.Linear(width, first), nn.Linear(width, width)
        self.kv = None if packed else nn.Linear(width, 2 * width)
        self.heads, self.fused, self.reduce = heads, fused, reduce
        keys = -(-bias // reduce)
        shape = (bias + keys, heads) if table else (heads, bias, keys)
        self.bias = nn.Parameter(torch.empty(shape)) if bias else None
        self.index: Tensor | None
        self.register_buffer("index", torch.zeros(bias * keys, dtype=torch.int64) if bias and table else None)
        self.mix = nn.ModuleList(nn.Linear(heads, heads) for _ in range(2)) if talking and not fused else None

    def forward(self, x: Tensor) -> Tensor:
        """[n, t, d] -> [n, t, d]."""
        n, t, d = x.shape
        q, k, v = self._parts(x)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=self._bias(t))
        else:
            scores = (q * (d // self.heads) ** -0.5) @ k.transpose(-2, -1)
            bias = self._bias(t)
            scores = scores if bias is None else scores + bias
            y = (scores.softmax(dim=-1) if self.mix is None else self._mixed(scores)) @ v
        out: Tensor = self.out(y.transpose(1, 2).reshape(n, t, d))
        return out

    def _bias(self, tokens: int) -> Tensor | None:
        if self.index is None or self.bias is None:
            return self.bias
        return self.bias[self.index].view(tokens, -1, self.heads).permute(2, 0, 1).contiguous().unsqueeze(0)

    def _mixed(self, scores: Tensor) -> Tensor:
        assert self.mix is not None
        before, after = self.mix
        scores = before(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).softmax(dim=-1)
        mixed: Tensor = after(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return mixed

    def _parts(self, x: Tensor) -> tuple[Tensor, ...]:
        n, t, d = x.shape
        size = d // self.heads
        if self.kv is None:
            qkv: Tensor = self.q(x).reshape(n, t, 3, self.heads, size).permute(2, 0, 3, 1, 4)
            return tuple(qkv.unbind(0))
        q = self.q(x).reshape(n, t, self.heads, size).transpose(1, 2)
        kv = self.kv(x[:, :: self.reduce]).reshape(n, -1, 2, self.heads, size).permute(2, 0, 3, 1, 4)
        return q, *kv.unbind(0)


class BlockAttention(nn.Module):
    """Self-attention within blocks of tokens, all blocks in one op on tensors of five dimensions (arXiv:2105.12723)."""

    def __init__(self, width: int, heads: int, blocks: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads, self.blocks = heads, blocks

    def forward(self, x: Tensor) -> Tensor:
        """[n, t, d] -> [n, t, d]; the blocks divide t."""
        n, t, d = x.shape
        parts = self.qkv(x.view(n, self.blocks, -1, d))
        parts = parts.reshape(n, self.blocks, -1, 3, self.heads, d // self.heads).permute(3, 0, 4, 1, 2, 5)
        y = F.scaled_dot_product_attention(*parts.unbind(0))
        out: Tensor = self.out(y.permute(0, 2, 3, 1, 4).reshape(n, t, d))
        return out


class LinearAttention(nn.Module):
    """Attention whose cost is linear in the number of tokens.

    Either keys and values are multiplied first (arXiv:1812.01243), or, with `channels`, attention is between channels
    instead of tokens (arXiv:2106.09681).
    """

    def __init__(self, width: int, heads: int, *, channels: bool) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads, self.channels = heads, channels

    def forward(self, x: Tensor) -> Tensor:
        """[n, t, d] -> [n, t, d]."""
        n, t, d = x.shape
        parts = self.qkv(x).reshape(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)
        if self.channels:
            q, k = F.normalize(q.transpose(-2, -1), dim=-1), F.normalize(k.transpose(-2, -1), dim=-1)
            y = ((q @ k.transpose(-2, -1)).softmax(dim=-1) @ v.transpose(-2, -1)).transpose(-2, -1)
        else:
            y = q @ (k.softmax(dim=2).transpose(-2, -1) @ v)
        out: Tensor = self.out(y.transpose(1, 2).reshape(n, t, d))
        return out
