"""Variants of a kernel for sizes that are known at run time only: which to keep, and the choice.

All candidates are priced over the whole range of the unknown sizes; kept are the fewest whose best
price is within 3 % of the best of all in the mean over the range, and nowhere far off. No size is
measured: prices are piecewise linear, so that they are compared where they bend (`bends`), on a
scale of powers of two. The same price, as arithmetic of the kernel, chooses among those that are
kept when it runs (Vortex, arXiv 2409.01075, section 5: analysis at run time), in a few tens of
instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import combinations
from math import inf
from typing import TypeVar

import numpy as np

ENVELOPE = 1.03
"""How much dearer than the best of all candidates the best of the variants may be."""

FAR = 1 << 14
"""From this size on prices are as good as proportional to it."""

WORST = 1.25
"""How much dearer it may be at any one point."""

WORST_HEIGHT = 1.12
"""The same for heights of tiles, each of which is little code."""

MOST_EXCESS = 10.0
"""Logarithm of how much dearer than the best something is that cannot be."""

Variant = TypeVar("Variant")
Heights = tuple[tuple[int, int], ...]


def bends(steps: Iterable[int], low: int = 0, high: int | None = None) -> list[int]:
    """Sizes in low .. high where prices bend that go by steps of so many.

    They are the last of a step and the first of the next, the fewer the larger they are.
    """
    top = FAR if high is None else min(high, FAR)
    found = {low, 1, top}
    for step in set(steps):
        multiples = [step * n for n in range(1, 9)]
        while multiples[-1] < FAR:
            multiples.append(multiples[-1] * 2)
        found |= {size + more for size in multiples for more in (0, 1)}
    return sorted(size for size in found if max(low, 1) <= size <= max(top, 1))


def grid(dims: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """Every combination of the sizes, as one flat array for each dim."""
    return [axis.ravel() for axis in np.meshgrid(*map(np.asarray, dims), indexing="ij")]


def fewest(
    candidates: Sequence[Variant],
    price: Callable[[Variant], np.ndarray],
    within: float = ENVELOPE,
    worst: float = WORST,
    first: int | None = None,
) -> list[Variant]:
    """The fewest candidates, as far as greed finds them, whose best price is near that of all.

    ``price(candidate)`` has its price at every point, infinite where it cannot be; the mean over
    points is the geometric one. The best one alone comes first, or the `first`-th of all.
    """
    prices = np.array([price(candidate) for candidate in candidates], dtype=float) + 1.0
    excess = np.minimum(np.log(prices / prices.min(axis=0)), MOST_EXCESS)
    kept = [int(excess.mean(axis=1).argmin()) if first is None else first]
    while True:
        envelope = excess[kept].min(axis=0)
        if envelope.mean() > np.log(within):
            loss = np.minimum(excess, envelope).mean(axis=1)
        elif envelope.max() > np.log(worst):
            loss = np.minimum(excess, envelope)[:, envelope.argmax()]
        else:
            return [candidates[number] for number in kept]
        kept.append(int(loss.argmin()))


def mixture(
    among: Sequence[int],
    price: Callable[[int], float],
    low: int = 0,
    high: int | None = None,
    worst: float = WORST_HEIGHT,
) -> Heights:
    """Which of some heights tiles have of which one run mixes several: (height, its price).

    The highest, the lowest, and those that bring the price of any number of rows near that of all
    heights with the least code, which is as much as they have rows together. Where the lowest has
    more than one row, the last tile may go on past the rows.
    """
    every = tuple((height, round(price(height))) for height in sorted(among, reverse=True))
    return every if len(every) == 1 else _least_code(every, low, high, worst)


@cache
def _least_code(every: Heights, low: int, high: int | None, worst: float) -> Heights:
    """A rule asks for every candidate of a kernel: what cannot be is left as soon as it shows."""
    top, *middle, lowest = every
    best = _costs(every)
    limits = [
        cost * worst if low <= rows and (high is None or rows <= high) else inf
        for rows, cost in enumerate(best)
    ]
    sizes = _sizes(top[0], low, high)
    whole = np.maximum(sizes // top[0] - 1, 0)
    rest = sizes - whole * top[0]

    def near(kept: Heights) -> bool:
        costs = _costs(kept, limits)
        if len(costs) < len(best):
            return False
        found, least = (whole * top[1] + np.array(some)[rest] for some in (costs, best))
        excess = found / least
        return bool(np.log(excess).mean() <= np.log(ENVELOPE) and excess.max() <= worst)

    sets = [
        (top, *some, lowest) for n in range(len(middle) + 1) for some in combinations(middle, n)
    ]
    return next(kept for kept in sorted(sets, key=_rows_of_code) if near(kept))


@cache
def _sizes(top: int, low: int, high: int | None) -> np.ndarray:
    return np.array(bends(range(1, 2 * top), low, high))


def _costs(heights: Heights, limits: Sequence[float] = ()) -> list[int]:
    """What the cheapest mixture of 0, 1, .. rows costs, up to where it is beyond a limit."""
    best = [0]
    for rows in range(1, 2 * heights[0][0]):
        cost = min(best[max(rows - height, 0)] + own for height, own in _fitting(heights, rows))
        if limits and cost > limits[rows]:
            break
        best.append(cost)
    return best


def _fitting(heights: Heights, rows: int) -> Heights:
    """What the last of `rows` rows may be in: any, if the lowest one has several rows."""
    return heights if heights[-1][0] > 1 else tuple(one for one in heights if one[0] <= rows)


def _rows_of_code(heights: Heights) -> int:
    return sum(height for height, _ in heights)


@cache
def mixed(heights: Heights) -> tuple[tuple[int, ...], ...]:
    """How many tiles of each height the cheapest mixture has of 0, 1, .. rows.

    It ends before twice the highest: so many rows and more begin with a tile of that height.
    """
    best: list[tuple[float, tuple[int, ...]]] = [(0.0, (0,) * len(heights))]
    for rows in range(1, 2 * heights[0][0]):
        ways = []
        for height, price in _fitting(heights, rows):
            n = heights.index((height, price))
            cost, counts = best[max(rows - height, 0)]
            more = (*counts[:n], counts[n] + 1, *counts[n + 1 :])
            ways.append((cost + price, more))
        best.append(min(ways, key=lambda way: way[0]))
    return tuple(counts for _, counts in best)
