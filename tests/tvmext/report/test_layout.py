"""Boxes lie below what they read and beside, never on, each other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tvmext.report.layout import GAP_X, arrange


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[tuple[float, float]], list[tuple[int, int]]]:
    count = draw(st.integers(0, 14))
    sizes = [(draw(st.integers(10, 200)), draw(st.integers(10, 60))) for _ in range(count)]
    pairs = st.tuples(st.integers(0, max(count - 1, 0)), st.integers(0, max(count - 1, 0)))
    arrows = draw(st.sets(pairs, max_size=3 * count))
    return sizes, sorted((a, b) for a, b in arrows if a < b)


@given(graphs())
def test_boxes_are_below_and_apart(
    graph: tuple[list[tuple[float, float]], list[tuple[int, int]]],
) -> None:
    sizes, arrows = graph
    layout = arrange(sizes, arrows)
    for start, end in arrows:
        assert layout.corners[start][1] + sizes[start][1] < layout.corners[end][1]
    for (x, y), (w, h) in zip(layout.corners, sizes):
        assert x >= -1e-6
        assert x + w <= layout.width + 1e-6
        assert y + h <= layout.height + 1e-6
    for k, (x, y) in enumerate(layout.corners):
        for n, (other, top) in enumerate(layout.corners[:k]):
            if y == top:
                left, right = sorted([(x, sizes[k][0]), (other, sizes[n][0])])
                assert left[0] + left[1] + GAP_X <= right[0] + 1e-6
    for (start, end), route in zip(arrows, layout.routes):
        assert route[0][1] <= route[-1][1]
        assert len(route) >= 2
        assert (route[-1][1], route[0][1]) == (
            layout.corners[end][1],
            layout.corners[start][1] + sizes[start][1],
        )


def test_a_chain_is_straight() -> None:
    layout = arrange([(40, 10), (100, 10), (60, 10)], [(0, 1), (1, 2)])
    assert len({x for route in layout.routes for x, _ in route}) == 1
