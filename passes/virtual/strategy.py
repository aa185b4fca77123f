"""Which tensors are virtual: exact where that is feasible, else the global greedy of the paper.

    latency    least cycles, among plans that need no more memory at once than if nothing is virtual
               and that cost at no size much more cycles
    memory     least bytes that exist at once, then least bytes written by movement, then cycles

Components of the opportunity graph are decided one after another. A small one by branch and bound
over all its plans, each kernel's price for any of its choices being known; a large one by the
greedy of VTC (arXiv 2604.09558, section 5.3): the choice that saves most, again and again. The
problem is NP-hard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from math import inf
from typing import Any

import numpy as np

from .opportunity import Graph

Price = Callable[[int, frozenset[int]], Any]
"""The cycles of a node that reads some virtual tensors: a number, or an array of them over the
sizes of free dims; infinite, the number, if no rule takes it."""

Value = tuple[float, ...]
"""What a plan costs, to be compared: the least is best."""

MAX_PRICES, MAX_NODES = 128, 4096
"""Kernels that are priced, and plans that are looked at in part, for an exact decision."""

MUCH = 1.1
"""No plan may be this much dearer, at any size, than if nothing were virtual."""

WRITTEN = 0.02
"""What it counts to write a tensor, beside cycles: so much of the kernel that does and of those who
read it. Prices know no better which is faster, and it takes memory."""

NOT_POSSIBLE: Value = (inf,)


@dataclass(frozen=True)
class Plan:
    """The virtual tensors of a component, and the value of what results."""

    virtual: frozenset[int]
    value: Value
    exact: bool


@dataclass
class Problem:
    """The choices of one component, where `decided` are the virtual tensors of the others.

    Prices over sizes count relative to what all kernels cost at each size if nothing is virtual, by
    `weights`, so that large sizes count no more than small ones.
    """

    graph: Graph
    component: frozenset[int]
    price: Price
    memory: bool = False
    decided: frozenset[int] = frozenset()
    weights: np.ndarray = field(default_factory=lambda: np.ones(1))
    known: dict[tuple[int, frozenset[int]], Any] = field(default_factory=dict)

    @cached_property
    def kernels(self) -> tuple[int, ...]:
        return self.graph.kernels(self.component)

    @cached_property
    def limit(self) -> int:
        return self.graph.peak(frozenset())

    @cached_property
    def written(self) -> np.ndarray:
        """The cycles of all kernels, at every size, if nothing is virtual."""
        total = sum(self.amounts(place, frozenset()) for place in self.kernels)
        return np.broadcast_to(np.maximum(total, 1.0), self.weights.shape)

    @cached_property
    def scale(self) -> np.ndarray:
        """What to multiply prices over sizes with, to add them up: for one size it is 1.

        What results are cycles as at a middling size.
        """
        middling = np.median(self.written[self.weights > 0])
        return self.weights * middling / self.written

    @property
    def prices(self) -> int:
        """How many kernels an exact decision has to price."""
        return sum(2 ** len(self.graph.above[k]) for k in self.kernels)

    def cycles(self, virtual: frozenset[int]) -> float:
        """All kernels of the component."""
        return sum(self.kernel(k, virtual) for k in self.kernels)

    def kernel(self, place: int, virtual: frozenset[int]) -> float:
        """One kernel: a mean over the sizes, relative to what is the case if nothing is virtual."""
        amounts = self.amounts(place, virtual)
        return inf if np.all(amounts == inf) else float((self.scale * amounts).sum())

    def amounts(self, place: int, virtual: frozenset[int]) -> Any:
        """One kernel at every size; nothing if it is virtual itself."""
        if place in virtual:
            return 0.0
        taken = self.graph.taken(place, virtual)
        if (place, taken) not in self.known:
            self.known[place, taken] = self.price(place, taken)
        return self.known[place, taken]

    def much_dearer(self, virtual: frozenset[int]) -> bool:
        """Whether a plan is, at some size, much dearer than if nothing were virtual."""
        total = sum(self.amounts(place, virtual) for place in self.kernels)
        return bool(np.any(total > MUCH * self.written))

    def options(self, place: int) -> tuple[frozenset[int], list[tuple[frozenset[int], float]]]:
        """The choices that one kernel depends on, and its price for each way to make them."""
        own = {place} if place in self.component else set()
        scope = self.graph.above[place] | own
        return scope, [(virtual, self.kernel(place, virtual)) for virtual in _subsets(scope)]

    def value(self, virtual: frozenset[int]) -> Value:
        """Of a complete plan."""
        cycles = self.cycles(virtual)
        if cycles == inf:
            return NOT_POSSIBLE
        everything = self.decided | virtual
        peak = self.graph.peak(everything)
        if self.memory:
            return (peak, self.graph.written(everything), cycles)
        fits = peak <= self.limit and not self.much_dearer(virtual)
        written = sum(self.stake(place) for place in sorted(self.component - virtual))
        return (cycles + WRITTEN * written,) if fits else NOT_POSSIBLE

    def stake(self, place: int) -> float:
        """What a kernel and those that read its tensor cost if nothing is virtual."""
        alone = (place, *self.graph.readers[place])
        return sum(self.kernel(k, frozenset()) for k in alone)


def decide(
    graph: Graph, price: Price, memory: bool = False, weights: np.ndarray | None = None
) -> list[tuple[Problem, Plan]]:
    """The plan of every component, in order; each knows those before it.

    `weights`, which add up to 1, say how much each of the sizes counts that prices are over.
    """
    counted = np.ones(1) if weights is None else weights
    found: list[tuple[Problem, Plan]] = []
    decided: frozenset[int] = frozenset()
    for component in graph.components:
        problem = Problem(graph, component, price, memory, decided, counted)
        plan = exact(problem) or greedy(problem)
        decided |= plan.virtual
        found.append((problem, plan))
    return found


def virtual_in(decided: Iterable[tuple[Problem, Plan]]) -> frozenset[int]:
    """The virtual tensors of all components."""
    return frozenset().union(*(plan.virtual for _, plan in decided))


def exact(problem: Problem) -> Plan | None:
    """The best plan, by branch and bound; None if that would take too long.

    No plan in which some choices are made takes fewer cycles than all kernels would if each could
    have the rest of its choices made for itself.
    """
    if problem.prices > MAX_PRICES:
        return None
    order = sorted(problem.component)
    options = [problem.options(place) for place in problem.kernels]
    best: Plan | None = None
    todo = [(0, frozenset[int]())]
    for _ in range(MAX_NODES):
        if not todo:
            return best
        made, virtual = todo.pop()
        if made == len(order):
            value = problem.value(virtual)
            if value != NOT_POSSIBLE and (best is None or value < best.value):
                best = Plan(virtual, value, True)
            continue
        chosen = frozenset(order[:made])
        least = sum(
            min((c for some, c in each if some & chosen == virtual & scope), default=inf)
            for scope, each in options
        )
        worse = best is not None and not problem.memory and (least,) >= best.value
        if least < inf and not worse:
            todo += [(made + 1, virtual), (made + 1, virtual | {order[made]})]
    return None


def greedy(problem: Problem) -> Plan:
    """The plan that results from the best single choice, made again and again while one helps."""
    virtual, value = frozenset[int](), problem.value(frozenset())
    while left := sorted(problem.component - virtual):
        best, choice = min((problem.value(virtual | {one}), one) for one in left)
        if best > value:
            break
        virtual, value = virtual | {choice}, best
    return Plan(virtual, value, False)


def _subsets(places: Set[int]) -> Iterator[frozenset[int]]:
    for count in range(len(places) + 1):
        yield from map(frozenset, combinations(sorted(places), count))
