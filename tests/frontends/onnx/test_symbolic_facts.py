"""Facts are sound: where the guards hold, so does what was stated, and simplifying is exact."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from tests.frontends.formulas import NAMES, build, compute, formulas, sizes
from tvmext.errors import DimError, ModelError
from tvmext.frontends.dims import Dim, evaluate, parse, symbol
from tvmext.frontends.onnx.symbolic import infer
from tvmext.frontends.onnx.symbolic_facts import Facts

checked = settings(max_examples=200, deadline=None, derandomize=True)


def new_facts() -> Facts:
    return Facts({name: Dim(name, low=1) for name in NAMES}, {n: k for k, n in enumerate(NAMES)})


def valid_sizes(facts: Facts, values: dict[str, int]) -> dict[str, int] | None:
    """Sizes of all dims for these of the free ones, None if the facts rule them out."""
    free = {name: values[name] for name in facts.ranges}
    if not all(guard.holds(free) for guard in facts.guards):
        return None
    return {**free, **{name: evaluate(size, free) for name, size in facts.values.items()}}


def state(facts: Facts, statement: str, left: object, right: object) -> bool:
    """States it; whether it can hold at all."""
    try:
        if statement == "==":
            facts.require_equal(build(left), build(right), "here")
        elif statement == ">=":
            facts.assume_at_least(build(left), build(right), "here")
        else:
            facts.require_divides(left, build(right), "here")
        facts.restate()
    except ModelError:
        return False
    return True


def holds(statement: str, left: object, right: object, values: dict[str, int]) -> bool:
    a, b = compute(left, values), compute(right, values)
    return {"==": a == b, ">=": a >= b, "divides": b % a == 0 if a else b == 0}[statement]


statements = st.tuples(st.sampled_from(["==", ">="]), formulas, formulas) | st.tuples(
    st.just("divides"), st.integers(1, 12), formulas
)


@checked
@given(st.lists(statements, min_size=1, max_size=3), formulas, sizes)
def test_where_the_guards_hold_so_do_the_statements(said, formula, values):
    facts = new_facts()
    possible = all(state(facts, *statement) for statement in said)
    if not possible:
        # the values given must then break one of the statements
        assert not all(holds(*statement, values) for statement in said)
        return
    valid = valid_sizes(facts, values)
    if valid is not None:
        assert all(holds(*statement, valid) for statement in said)
        simplified = facts.simplify(build(formula))
        assert evaluate(simplified, valid) == compute(formula, valid)


@pytest.mark.parametrize(
    ("left", "right", "simplified", "guards"),
    [
        ("min(512, a)", "a", {"min(512, a) + b": "a + b"}, ["a <= 512"]),
        ("4*floordiv(a, 4)", "a", {"floordiv(a, 2)": "2*floordiv(a, 4)"}, ["4 divides a"]),
        ("4*floordiv(a, 4)", "a", {"floordiv(a + 7, 8)": "floordiv(a + 4, 8)"}, ["4 divides a"]),
        ("2*floordiv(a, 2)*b", "a*b", {"2*floordiv(a, 2)": "a"}, ["2 divides a"]),
        (
            "4*floordiv(a, 2)*floordiv(b, 2)",
            "a*b",
            {"2*floordiv(b, 2)": "b"},
            ["2 divides a", "2 divides b"],
        ),
        ("a", "b + c", {"a*b": "b*b + b*c"}, []),
        ("2*a", "b", {"floordiv(b, 2)": "a"}, []),
        ("a*b*3", "a*c*3", {"c": "b"}, []),
        ("2*a", "3*b", {"a": "a"}, ["2*a == 3*b"]),
        ("min(100, a + b) - min(100, a)", "b", {"min(100, a)": "a"}, ["a + b <= 100", "a <= 100"]),
    ],
)
def test_equation(left, right, simplified, guards):
    facts = new_facts()
    facts.require_equal(parse(left), parse(right), "here")
    facts.restate()
    assert {e: str(facts.simplify(parse(e))) for e in simplified} == simplified
    assert sorted(str(guard) for guard in facts.guards if guard.right != 1) == sorted(guards)


def test_a_contradiction_says_where_and_what():
    facts = new_facts()
    facts.assume_at_least(symbol("a"), 8, "Slice 'x'")
    with pytest.raises(ModelError, match="Add 'y' needs a == 7"):
        facts.require_equal(symbol("a"), 7, "Add 'y'")
    facts.bound = True
    with pytest.raises(DimError, match="Add 'y' needs a == 7"):
        facts.require_equal(symbol("a"), 7, "Add 'y'")


def test_what_only_the_run_knows_never_enters_the_dims():
    facts = new_facts()
    count = facts.unknown("NonZero", 1)
    assert facts.unknown("NonZero", 1) == count
    facts.require_equal(symbol("a"), 2 * count + 1, "Concat 'y'")
    assert facts.values == {}
    assert facts.guards == ()
    facts.require_equal(count, symbol("b"), "MatMul 'y'")
    assert facts.simplify(count) == symbol("b")
    assert facts.ranges.keys() == set(NAMES)


bounds = st.integers(-12, 12) | st.sampled_from([2**31 - 1, -(2**31), 2**63 - 1, -(2**63)])


@checked
@given(bounds, bounds, st.sampled_from([1, 2, 3, -1, -2]), st.integers(0, 12), st.booleans())
def test_slice_is_that_of_numpy(start, end, step, size, symbolic):
    """Every start, end and step that ONNX Runtime takes, on a dim with and without a name."""
    dim = "n" if symbolic else size
    node = helper.make_node("Slice", ["x", "starts", "ends", "axes", "steps"], ["y"])
    constants = {"starts": start, "ends": end, "axes": 0, "steps": step}
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [dim])],
        [helper.make_empty_tensor_value_info("y")],
        [helper.make_tensor(k, onnx.TensorProto.INT64, [1], [v]) for k, v in constants.items()],
    )
    shapes = infer(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]))
    values = {"n": size} if symbolic else {}
    if shapes.is_known("y") and all(guard.holds(values) for guard in shapes.guards):
        stop = None if step < 0 and end < -(2**31) + 2 else end
        expected = np.zeros(size)[start:stop:step].shape
        assert tuple(evaluate(d, values) for d in shapes.values["y"].shape) == expected
