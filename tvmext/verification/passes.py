"""The first pass of a compilation that changes results, by binary search.

With the first k passes, and of the others those that a library needs, a model compiles for every k.
Results are right for k = 0, unless a pass is at fault that is never left out, and wrong for all; so
there is a k at which they turn wrong. A k that does not compile is left out of the search: then
several passes are left, one of which it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from .report import PassChange

Differs = Callable[[int], bool | None]
"""Whether results are wrong with the first k passes; None if that cannot be told."""


def first_change(names: Sequence[str], needed: Collection[str], differs: Differs) -> PassChange:
    """Which of the passes called `names` it is; `needed` are those that are never left out."""
    points = [0, *(k for k in range(1, len(names) + 1) if names[k - 1] not in needed)]
    known: dict[int, bool | None] = {}

    def wrong(place: int) -> bool | None:
        if place not in known:
            known[place] = differs(points[place])
        return known[place]

    low, high = 0, len(points) - 1
    if not wrong(high):
        return PassChange((), len(names), len(known), _NOT_AGAIN)
    if wrong(low):
        return PassChange((), len(names), len(known), _FROM_THE_START)
    while high - low > 1:
        middle = (low + high) // 2
        near = sorted(range(low + 1, high), key=lambda place: abs(place - middle))
        found = next((place for place in near if wrong(place) is not None), None)
        if found is None:
            break
        low, high = (low, found) if wrong(found) else (found, high)
    between = tuple(names[points[place] - 1] for place in range(low + 1, high + 1))
    return PassChange(between, len(names), len(known), place=points[high])


_NOT_AGAIN = (
    "compiled anew, with nothing donated, its outputs agree: the library comes from another "
    "version or other options, or the difference comes from updating an input in place"
)
_FROM_THE_START = (
    "outputs differ already where every pass is left out that can be: the model is read wrongly, "
    "or an operator is lowered wrongly (LegalizeOps)"
)
