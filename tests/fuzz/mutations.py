"""Mutations of bytes, of JSON values and of texts, all from a seeded generator."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

Rng = np.random.Generator

NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**30, 10**400, 0.5, -0.0, 1e-320, 1e308, float("nan"),
    float("inf"), float("-inf"), "", "x", "\0", "\x1b[31mred\x1b[0m", "[red]bold[/]", "\u202e", "\ud800", "=1+1",
    "../..", "a" * 10_000, [], {}, [[]], [None], [1, 2, 3], {"a": 1}, [[[[1]]]], list(range(1000)),
)  # fmt: skip
TOKENS = (
    b"NaN", b"Infinity", b"-1", b"1e999", b"9" * 5000, b"[" * 20_000, b'{"a":' * 5000, b"null", b"true", b"\x00",
    b"\xef\xbb\xbf", b"\xff\xfe", b"\x1b[2J", b"\r\n", b'"', b"'", b",", b"=", b"\\u0000", b"\\", b"0", b"e", b"-",
    b"_",
)  # fmt: skip


def damaged(content: bytes, rng: Rng, place: float, tokens: tuple[bytes, ...] = ()) -> bytes:
    """The content after one to three changes, of which the first is made at `place`, from 0 (start) to 1 (end)."""
    found = bytearray(content)
    for number in range(int(rng.integers(1, 4))):
        at = int((place if number == 0 else rng.random()) * max(len(found) - 1, 0))
        _change(found, at, rng, tokens)
    return bytes(found)


def _change(found: bytearray, at: int, rng: Rng, tokens: tuple[bytes, ...]) -> None:
    length = int(rng.choice([1, 1, 2, 4, 8, 64, 1024]))
    noise = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
    changes: list[Callable[[], Any]] = [
        lambda: found.__setitem__(
            slice(at, at + 1), bytes([found[at] ^ (1 << int(rng.integers(8)))]) if found else b""
        ),
        lambda: found.__setitem__(slice(at, at + length), noise[: max(len(found) - at, 0)]),
        lambda: found.__setitem__(slice(at, at + length), bytes(min(length, max(len(found) - at, 0)))),
        lambda: found.__delitem__(slice(at, at + length)),
        lambda: found.__setitem__(slice(at, at), noise),
        lambda: found.__setitem__(slice(at, at), found[at : at + length]),
        lambda: found.__delitem__(slice(at, None)),
    ]
    if tokens:
        token = tokens[int(rng.integers(len(tokens)))]
        changes += [
            lambda: found.__setitem__(slice(at, at), token),
            lambda: found.__setitem__(slice(at, at + 1), token),
        ]
    # A bit that flips is what a disk or a network does; the other changes are rarer.
    weights = np.array([6.0, *[1.0] * (len(changes) - 1)])
    changes[int(rng.choice(len(changes), p=weights / weights.sum()))]()


def changed_value(document: Any, rng: Rng) -> Any:
    """A copy of a JSON document in which one value, at a random depth, is another one or is missing."""
    copy = json.loads(json.dumps(document))
    node, holder, key = copy, None, None
    while isinstance(node, (dict, list)) and node and (holder is None or rng.random() < 0.8):
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        holder, key = node, keys[int(rng.integers(len(keys)))]
        node = holder[key]
    if holder is None:
        return NASTY[int(rng.integers(len(NASTY)))]
    if rng.random() < 0.15:
        del holder[key]
    else:
        holder[key] = NASTY[int(rng.integers(len(NASTY)))]
    return copy
