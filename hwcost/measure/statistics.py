"""From the times of rounds to a latency with its spread.

The value of a round is the least of its runs. The latency is the k-th smallest round value x_(k) of n, with

    k = ceil(n / 10),                                                      (1)

the least of up to ten rounds, the second least of up to twenty: what the machine does when nothing is in the way.
Interference can only add time, so low order statistics are the most repeatable ones.

What the rounds say of its error comes from the bootstrap over rounds, which for an order statistic has a closed form
(Maritz and Jarrett, JASA 73, 1978): of m draws with replacement, the k-th smallest is at most x_(j) with probability

    P_j = P(Binomial(m, j / n) >= k),    m = n - 1,                        (2)

where m is n - 1 instead of n because n draws from few rounds would vary too little. h is the smallest number such that
x_(k) (1 ± h) holds 90 % of that distribution.

The rounds of one campaign cannot say how the machine differs between campaigns, nor how slow it was in all of them. So
the spread is

    sqrt(h^2 + d^2 + b^2),    d = 1.5 %,     b = 1 - 1 / p.                (3)

d is the drift, from pairs of campaigns over the 30 networks of tests/bench/bench_clock.py. The latencies of a campaign
move together, so what counts is the number of pairs. In a first ten pairs 1.25 % covered nine of ten differences; in
six later ones 89 % of all, but in the worst of these pairs only 21 of 30, where 1.5 % covers 93 %. In two pairs that
were measured after 1.5 % was chosen it covered 24 and 30 of 30.

p is the pace (`hwcost.measure.pace`) of the round that x_(k) is from: 1 where one of its runs was calm. Runs during
which the CPU was p times slower than it can be took between 1 and p times as long as they need, so the latency lies
between x_(k) / p and x_(k). Without this term, rounds on a machine that is never calm agree and are all too long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hwcost.measure.types import Timing

Array = NDArray[np.float64]

COVERAGE = 0.9  # of every interval in the package
Z = 1.645  # half-width of the interval of that coverage around the mean of a normal variable, in standard deviations
DRIFT = 0.015  # d of eq. (3)
LOW = 0.1  # the low quantile, eq. (1)


def low_rank(rounds: int) -> int:
    """k of eq. (1), counted from 1."""
    return max(1, math.ceil(LOW * rounds))


@lru_cache(maxsize=256)
def bootstrap_weights(rounds: int) -> Array:
    """Probability that the bootstrap gives the j-th smallest value, P_j - P_(j-1) of eq. (2), for each j; [rounds]."""
    k = low_rank(rounds)
    at_most = np.array([_binomial_tail(rounds - 1, j / rounds, k) for j in range(rounds + 1)])
    return np.diff(at_most)


def _binomial_tail(n: int, p: float, k: int) -> float:
    """P(Binomial(n, p) >= k)."""
    return 1.0 - sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k))


def latency_and_spread(values: Array) -> tuple[Array, Array]:
    """Low quantile, eq. (1), and relative half-width h of its 90 % interval, eq. (2).

    Args:
        values: round values (s), [rounds, ...].

    Returns:
        Both of the shape of one round; h is infinite where there is only one round.
    """
    ordered = np.sort(values, axis=0)
    rounds = len(ordered)
    low: Array = ordered[low_rank(rounds) - 1]
    if rounds == 1:
        return low, np.full_like(low, math.inf)
    # The interval around `low` takes in the nearest value, then the next, until it holds 90 % of the distribution.
    off = np.abs(ordered - low)
    order = np.argsort(off, axis=0, kind="stable")
    weights = np.broadcast_to(bootstrap_weights(rounds).reshape(-1, *[1] * (off.ndim - 1)), off.shape)
    reached = np.cumsum(np.take_along_axis(weights, order, axis=0), axis=0) >= COVERAGE - 1e-12
    first = np.argmax(reached, axis=0)[None]
    half: Array = np.take_along_axis(np.take_along_axis(off, order, axis=0), first, axis=0)[0]
    return low, np.divide(half, low, out=np.full_like(low, math.inf), where=low > 0)


def summarise(
    rounds: Sequence[Array],
    disturbed: Sequence[bool],
    *,
    all_runs: Sequence[Array] | None = None,
    paces: Sequence[float] | None = None,
    target: float = math.inf,
) -> list[Timing]:
    """Timings of what was timed together: one network, or all kernels of a network.

    Disturbed rounds count in the median and the 95th percentile, which describe what a user of this machine meets.
    They do not count in the latency, unless more than half of the rounds were disturbed.

    Args:
        rounds: for each round the times (s) of its runs, [runs, things]; a thing is the network or a kernel.
        disturbed: for each round whether it was disturbed.
        all_runs: the times, as in `rounds`, of which median and 95th percentile are taken; `rounds` by default.
        paces: for each round p of eq. (3); 1 by default.
        target: the spread asked for; a timing whose spread is larger is flagged "unstable".

    Returns:
        One timing for each of the things.
    """
    mostly = sum(disturbed) * 2 > len(rounds)
    used = [i for i, bad in enumerate(disturbed) if mostly or not bad]
    values = np.stack([rounds[i].min(axis=0) for i in used])
    low, spread = latency_and_spread(values)
    slowed = np.array([1.0 if paces is None else paces[i] for i in used])
    source = np.argsort(values, axis=0, kind="stable")[low_rank(len(used)) - 1]
    spread = np.sqrt(spread**2 + DRIFT**2 + (1 - 1 / slowed[source]) ** 2)  # eq. (3)
    every = np.concatenate(list(rounds if all_runs is None else all_runs))
    median, p95 = np.quantile(every, [0.5, 0.95], axis=0)
    common = ("disturbed",) if mostly else ()
    return [
        Timing(
            latency=float(low[i]),
            median=float(median[i]),
            p95=float(p95[i]),
            spread=float(spread[i]),
            rounds=len(used),
            flags=common + (("unstable",) if spread[i] > target else ()),
        )
        for i in range(low.shape[0])
    ]
