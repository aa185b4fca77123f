"""Delta debugging: a small part of a list that still fails.

Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input, IEEE Transactions on
Software Engineering 28(2), 2002, algorithm ddmin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

Item = TypeVar("Item")


def minimize(items: Sequence[Item], fails: Callable[[list[Item]], bool]) -> list[Item]:
    """A part of `items`, in their order, that fails and of which no item alone can be left out.

    `items` as a whole fail. A part is tried once.
    """
    left = list(items)
    known: dict[tuple[int, ...], bool] = {}
    number = {id(item): k for k, item in enumerate(left)}

    def failing(part: list[Item]) -> bool:
        key = tuple(number[id(item)] for item in part)
        if key not in known:
            known[key] = bool(part) and fails(part)
        return known[key]

    pieces = 2
    while len(left) >= 2:
        cuts = [len(left) * k // pieces for k in range(pieces + 1)]
        bounds = list(pairwise(cuts))
        parts = [left[a:b] for a, b in bounds]
        rests = [left[:a] + left[b:] for a, b in bounds] if pieces > 2 else []
        if (part := next(filter(failing, parts), None)) is not None:
            left, pieces = part, 2
        elif (rest := next(filter(failing, rests), None)) is not None:
            left, pieces = rest, max(pieces - 1, 2)
        elif pieces < len(left):
            pieces = min(2 * pieces, len(left))
        else:
            break
    return left
