"""Which tensors share memory, from their sizes and lifetimes alone.

Two tensors that exist at the same time do not overlap; any others may. What is placed late has to
fit into gaps, so the largest tensors come first. After Pisarchyk and Lee, Efficient
Memory Management for Deep Neural Net Inference (arXiv 2001.03288), sections 4.2 and 5.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Life:
    """A tensor of `size` bytes that exists from step `first` to step `last`, both included."""

    size: int
    first: int
    last: int

    def meets(self, other: Life) -> bool:
        """Whether both exist at some step."""
        return self.first <= other.last and other.first <= self.last


def offsets(lives: Sequence[Life], alignment: int) -> tuple[list[int], int]:
    """For each tensor where it begins in one piece of memory, and how large that is, in bytes.

    Of two orders, the largest first or the one that exists longest, the one that takes less.
    """
    orders = _largest_first(lives), _longest_first(lives)
    return min((_packed(lives, order, alignment) for order in orders), key=lambda found: found[1])


def _packed(lives: Sequence[Life], order: Sequence[int], alignment: int) -> tuple[list[int], int]:
    """Each tensor goes to the smallest gap between those placed before that it fits in."""
    found = [0] * len(lives)
    placed: list[tuple[int, int, Life]] = []
    for k in order:
        life = lives[k]
        size = -(-life.size // alignment) * alignment
        busy = sorted((begin, end) for begin, end, other in placed if life.meets(other))
        gaps, free = [], 0
        for begin, end in busy:
            if begin - free >= size:
                gaps.append((begin - free, free))
            free = max(free, end)
        found[k] = min(gaps)[1] if gaps else free
        placed.append((found[k], found[k] + size, life))
    return found, max((begin + life.size for begin, _, life in placed), default=0)


def shared(lives: Sequence[Life]) -> list[list[int]]:
    """Groups of tensors, by position, of which no two meet: each is one piece of memory.

    A tensor joins the group that grows least, which is the smallest since all are large enough.
    Whatever the sizes turn out to be, a group takes no more than its tensors would one by one.
    """
    groups: list[list[int]] = []
    for k in _largest_first(lives):
        free = [g for g in groups if not any(lives[k].meets(lives[other]) for other in g)]
        if free:
            min(free, key=lambda group: lives[group[0]].size).append(k)
        else:
            groups.append([k])
    return groups


def _largest_first(lives: Sequence[Life]) -> list[int]:
    return sorted(range(len(lives)), key=lambda k: (-lives[k].size, lives[k].first))


def _longest_first(lives: Sequence[Life]) -> list[int]:
    return sorted(range(len(lives)), key=lambda k: (lives[k].first - lives[k].last, -lives[k].size))
