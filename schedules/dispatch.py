"""Variants of a kernel for sizes that are known at run time only: which to keep, and the choice.

All candidates are priced over the whole range of the unknown sizes; kept are the fewest whose best
price is within 3 % of the best of all in the mean over the range. No size is measured: prices are
piecewise linear, so that they are compared where they bend (`bends`), on a scale of powers of two.
The same price, as arithmetic of the kernel, chooses among those that are kept when it runs (Vortex,
arXiv 2409.01075, section 5: analysis at run time), in a few tens of instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

ENVELOPE = 1.03
"""How much dearer than the best of all candidates the best of the variants may be."""

FAR = 1 << 14
"""From this size on prices are as good as proportional to it."""

Variant = TypeVar("Variant")


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
) -> list[Variant]:
    """The fewest candidates, as far as greed finds them, whose best price is near that of all.

    ``price(candidate)`` has its price at every point; the mean over points is the geometric one.
    The one that is best alone comes first.
    """
    prices = np.array([price(candidate) for candidate in candidates], dtype=float) + 1.0
    excess = np.log(prices / prices.min(axis=0))
    kept = [int(excess.mean(axis=1).argmin())]
    while excess[kept].min(axis=0).mean() > np.log(within):
        with_each = np.minimum(excess, excess[kept].min(axis=0)).mean(axis=1)
        kept.append(int(with_each.argmin()))
    return [candidates[number] for number in kept]
