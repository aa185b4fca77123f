"""Index expressions in their ranges: minimal on the chains that networks have, never wrong."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmext.frontends.dims import evaluate, floordiv, maximum, minimum, parse, symbol
from tvmext.passes.virtual.scope import Scope

N, S = symbol("n"), symbol("s")
X, Y, Z = symbol("_x0"), symbol("_x1"), symbol("_x2")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (floordiv(Y * 64 + Z, 64), Y),
        ((Y * 64 + Z) % 64, Z),
        (floordiv(X * 768 + Y * 64 + Z, 64) % 12, Y),
        (floordiv(X + N * Y, N), Y),
        ((X + N * Y) % N, X),
        (floordiv(X + N * Y, N * 3), floordiv(Y, 3)),
        (floordiv(X + N * Y, N * S), floordiv(Y, S)),
        (floordiv(Z + 128 * Y, 256), floordiv(Y, 2)),
        (floordiv(Y % 4 * 64 + Z, 256), 0),
        (floordiv(Y + 12 * X + 24, 12), X + 2),
        (minimum(X, N), X),
        (maximum(X - N, 0), 0),
        (minimum(Y + 2, 20), Y + 2),
    ],
    ids=str,
)
def test_simplest_form(value, expected) -> None:
    scope = Scope({"_x0": N, "_x1": 12, "_x2": 64})
    assert scope.simplify(value) == expected


def test_an_axis_of_one_element_has_index_zero() -> None:
    assert Scope({"_x0": 1}).simplify(X + 3) == 3


def test_an_element_exists_so_its_dims_are_not_zero() -> None:
    scope = Scope({"_x0": N * 4, "_x1": S - 3})
    assert scope.proves(N - 1)
    assert scope.proves(S - 4)
    assert not scope.proves(N - 2)
    assert not Scope({}).proves(N - 1)


def test_modulus_is_bounded() -> None:
    scope = Scope({"_x0": N, "_x1": 12})
    assert scope.proves(6 - X % 7)
    assert scope.proves(S - 1 - X % S)
    assert scope.proves(12 - (Y % 4) * 4)
    assert not scope.proves(11 - (Y % 4) * 4)


TERMS = st.sampled_from(["_x0", "_x1", "_x2", "3*_x0", "4*_x1", "6*_x2", "n*_x0", "2", "n", "-5"])
SUMS = st.lists(TERMS, min_size=1, max_size=4).map(" + ".join)
QUOTIENTS = st.tuples(SUMS, st.sampled_from(["2", "3", "4", "6", "12", "n", "2*n"]))
VALUES = st.lists(QUOTIENTS, min_size=1, max_size=2)


@settings(max_examples=300, deadline=None)
@given(VALUES, SUMS, st.tuples(*[st.sampled_from([1, 2, 3, 4, N, 2 * N, N + 1])] * 3))
def test_simplified_is_equal_everywhere(quotients, rest, extents) -> None:
    value = parse(rest)
    for above, below in quotients:
        value = value + floordiv(value + parse(above), parse(below))
    scope = Scope({f"_x{axis}": extent for axis, extent in enumerate(extents)})
    simple, bounds = scope.simplify(value), scope.bounds(value)
    for n in (1, 2, 3):
        sizes = [evaluate(extent, {"n": n}) for extent in extents]
        for point in product(*map(range, sizes)):
            values = {"n": n} | {f"_x{axis}": x for axis, x in enumerate(point)}
            exact = evaluate(value, values)
            assert evaluate(simple, values) == exact, f"{value} -> {simple} at {values}"
            assert bounds[0] is None or evaluate(bounds[0], values) <= exact
            assert bounds[1] is None or evaluate(bounds[1], values) >= exact
