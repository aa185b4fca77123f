"""Every movement operator, alone and in chains, against NumPy: all elements, several sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.passes.virtual.programs import STEPS, Program, programs, start
from tvmext.frontends.dims import symbol
from tvmext.passes.virtual import operations as ops
from tvmext.passes.virtual.evaluate import materialize
from tvmext.passes.virtual.tensor import compose, physical

QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck)}
N, M = symbol("n"), symbol("m")
SIZES = [{"n": 5, "m": 4}, {"n": 6, "m": 1}, {"n": 1, "m": 3}, {"n": 12, "m": 2}]
STATIC = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple)
SYMBOLIC = st.sampled_from(
    [(N,), (N, 4), (2, N, 3), (N, M), (N, 12, M), (N * 4, 6), (1, N + M, 4), (M, N, 2, 2)]
)


def check(program: Program) -> None:
    for binding, arrays, expected in zip(program.bindings, program.arrays, program.values):
        actual = materialize(program.tensor, arrays, binding)
        np.testing.assert_array_equal(actual, expected, err_msg=f"{binding} {program.log}")


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
@settings(max_examples=25, **QUIET)
@given(data=st.data())
def test_one_operator(step, data) -> None:
    program = start(data.draw(STATIC), [{}])
    step(data.draw, program)
    check(program)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
@settings(max_examples=15, **QUIET)
@given(data=st.data())
def test_one_operator_of_symbolic_size(step, data) -> None:
    program = start(data.draw(SYMBOLIC), SIZES)
    step(data.draw, program)
    check(program)


@settings(max_examples=200, **QUIET)
@given(programs(STATIC, [{}], 6))
def test_chains(program: Program) -> None:
    check(program)


@settings(max_examples=150, **QUIET)
@given(programs(SYMBOLIC, SIZES, 6))
def test_chains_of_symbolic_sizes(program: Program) -> None:
    check(program)


@settings(max_examples=60, **QUIET)
@given(programs(SYMBOLIC, SIZES, 3), st.data())
def test_composing_two_chains_is_one_chain(first: Program, data) -> None:
    """A chain on a physical tensor, whose home is then told to be virtual."""
    name = "middle"
    second = start(first.tensor.shape, SIZES)
    second.tensor = physical(name, first.tensor.shape)
    second.arrays, second.values = [dict(a) for a in first.arrays], list(first.values)
    for _ in range(2):
        data.draw(st.sampled_from(STEPS))(data.draw, second)
    second.tensor = compose(second.tensor, {name: first.tensor})
    assert name not in {home.name for home in second.tensor.homes}
    check(second)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_and_back(mode: str) -> None:
    x = np.arange(2 * 8 * 3 * 2).reshape(2, 8, 3, 2)
    deep = physical("x", (N, 8, 3, M))
    out = materialize(ops.depth_to_space(deep, 2, mode), {"x": x}, {"n": 2, "m": 2})
    if mode == "DCR":
        expected = x.reshape(2, 2, 2, 2, 3, 2).transpose(0, 3, 4, 1, 5, 2)
        wide = physical("x", (N, 2, 6, 2 * M))
        again = materialize(ops.space_to_depth(wide, 2), {"x": out}, {"n": 2, "m": 2})
        np.testing.assert_array_equal(again, x)
    else:
        expected = x.reshape(2, 2, 2, 2, 3, 2).transpose(0, 1, 4, 2, 5, 3)
    np.testing.assert_array_equal(out, expected.reshape(2, 2, 6, 4))
