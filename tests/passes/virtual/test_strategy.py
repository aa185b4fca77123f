"""The opportunity graph and its plans, on graphs without tensors: prices are given."""

from __future__ import annotations

from itertools import combinations
from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvmext.passes.virtual import strategy
from tvmext.passes.virtual.opportunity import Graph, Node
from tvmext.passes.virtual.strategy import (
    WRITTEN,
    Plan,
    Price,
    Problem,
    decide,
    greedy,
    virtual_in,
)


@st.composite
def priced_graphs(draw: st.DrawFn) -> tuple[Graph, Price]:
    """Up to nine kernels, some of which move data, and what each costs with what it reads."""
    nodes: list[Node] = []
    for place in range(draw(st.integers(1, 9))):
        reads = draw(st.lists(st.integers(0, place - 1), max_size=3)) if place else []
        nodes.append(Node(tuple(reads), draw(st.integers(0, 9)), draw(st.booleans())))
    read = {source for node in nodes for source in node.reads}
    nodes = [
        Node(node.reads, node.bytes, node.movable and place in read)
        for place, node in enumerate(nodes)
    ]
    prices: dict[tuple[int, frozenset[int]], float] = {}

    def price(place: int, taken: frozenset[int]) -> float:
        cost = st.integers(1, 20) if not taken else st.sampled_from([1, 5, 10, 15, 30, inf])
        if (place, taken) not in prices:
            prices[place, taken] = draw(cost)
        return prices[place, taken]

    return Graph(tuple(nodes)), price


def every_plan(problem: Problem) -> list[frozenset[int]]:
    sets = (combinations(sorted(problem.component), n) for n in range(len(problem.component) + 1))
    return [frozenset(chosen) for each in sets for chosen in each]


@given(priced_graphs(), st.booleans())
def test_exact_is_the_best_of_all_plans(case: tuple[Graph, Price], memory: bool) -> None:
    graph, price = case
    for problem, plan in decide(graph, price, memory):
        assert plan.exact
        assert plan.value == problem.value(plan.virtual) != strategy.NOT_POSSIBLE
        assert plan.value == min(map(problem.value, every_plan(problem)))
        rival = greedy(problem)
        assert problem.value(frozenset()) >= rival.value >= plan.value


@given(priced_graphs())
def test_latency_needs_no_more_memory(case: tuple[Graph, Price]) -> None:
    graph, price = case
    virtual = virtual_in(decide(graph, price))
    assert graph.peak(virtual) <= graph.peak(frozenset())


@given(priced_graphs())
def test_components_are_independent(case: tuple[Graph, Price]) -> None:
    graph, price = case
    together = frozenset(graph.movable)
    everything = Problem(graph, together, price)
    parts = [Problem(graph, one, price) for one in graph.components]
    assert frozenset().union(*graph.components) == together
    assert sum(map(len, graph.components)) == len(together)
    assert everything.cycles(together) == sum(one.cycles(one.component) for one in parts)


CHAIN = Graph(
    (
        Node((), 100),
        Node((0,), 10, movable=True),  # a part of it
        Node((1,), 10),
        Node((1, 2), 10),
    )
)


def test_reading_through_keeps_the_source() -> None:
    """A large tensor of which little is needed would have to live longer."""
    assert CHAIN.peak(frozenset()) == 110
    assert CHAIN.peak(frozenset({1})) == 120
    assert CHAIN.final_readers(0, frozenset({1})) == (2, 3)

    def price(_place: int, taken: frozenset[int]) -> float:
        return 1.0 if taken else 10.0

    ((problem, plan),) = decide(CHAIN, price)
    assert plan == Plan(frozenset(), (30.0 + WRITTEN * 30.0,), True)
    assert problem.value(frozenset({1})) == strategy.NOT_POSSIBLE


def test_two_together_where_neither_alone() -> None:
    """A rule that takes both operands from where they are, or none: greedy misses it."""
    graph = Graph((Node((), 4), Node((0,), 4, True), Node((0,), 4, True), Node((1, 2), 4)))

    def price(_place: int, taken: frozenset[int]) -> float:
        return {0: 10.0, 1: inf, 2: 12.0}[len(taken)]

    ((problem, plan),) = decide(graph, price)
    assert plan.virtual == {1, 2}
    assert greedy(problem).virtual == frozenset()


def test_large_components_are_decided_greedily() -> None:
    """Forty tensors that one kernel reads, 2**40 plans: half of them are cheap to read through."""
    parts = [Node((), 4)] + [Node((0,), 4, True)] * 40 + [Node(tuple(range(1, 41)), 4)]
    asked: set[frozenset[int]] = set()

    def price(_place: int, taken: frozenset[int]) -> float:
        asked.add(taken)
        return 10.0 + sum(5.0 if place <= 20 else 15.0 for place in taken)

    ((_, plan),) = decide(Graph(tuple(parts)), price)
    cycles = 10.0 + 20 * 5.0 + 20 * 10.0
    assert plan.virtual == frozenset(range(1, 21)) and not plan.exact
    assert plan.value == pytest.approx((cycles + 20 * WRITTEN * 20.0,))
    assert len(asked) < 1000


PART = Graph((Node((), 4), Node((0,), 4, movable=True), Node((1,), 4)))


@pytest.mark.parametrize(
    ("joined", "weights", "virtual"),
    [
        ([15.0, 150.0, 1500.0], [1, 1, 1], True),  # cheaper at every size
        ([21.0, 150.0, 1500.0], [1, 1, 1], True),  # hardly dearer at one
        ([30.0, 100.0, 1000.0], [1, 1, 1], False),  # much dearer at one
        ([19.0, 210.0, 2150.0], [1, 1, 1], False),  # a little cheaper at the small one alone
        ([19.0, 210.0, 2150.0], [1, 0, 0], True),  # which is the one that counts
        ([20.1, 201.0, 2010.0], [1, 1, 1], True),  # as good: then nothing is written
    ],
)
def test_prices_over_sizes(joined: list[float], weights: list[int], virtual: bool) -> None:
    """At three sizes, apart they cost (10 + 10) times 1, 10 and 100."""

    def price(place: int, taken: frozenset[int]) -> np.ndarray:
        return np.array(joined if taken else [10.0, 100.0, 1000.0]) * (place > 0)

    ((_, plan),) = decide(PART, price, weights=np.array(weights) / sum(weights))
    assert plan.virtual == ({1} if virtual else set())


def test_a_rule_that_takes_it_at_no_size() -> None:
    def price(_place: int, taken: frozenset[int]) -> object:
        return inf if taken else np.array([10.0, 100.0])

    ((problem, plan),) = decide(PART, price, weights=np.array([1.0, 0.0]))
    assert plan.virtual == set()
    assert problem.value(frozenset({1})) == strategy.NOT_POSSIBLE
