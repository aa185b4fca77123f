"""Random formulas over sizes: built in the algebra, and computed by Python's integers."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import strategies as st

from tvmext.frontends.dims import Expr, floordiv, maximum, minimum, symbol

NAMES = ("a", "b", "c")

# A formula is an int, a name, or (operator, left, right).
_LEAVES = st.integers(-20, 20) | st.sampled_from(NAMES)
_CONSTANT_DIVISORS = st.integers(1, 12) | st.integers(-5, -1)
formulas = st.recursive(
    _LEAVES,
    lambda inner: (
        st.tuples(st.sampled_from(["+", "-", "*", "min", "max"]), inner, inner)
        | st.tuples(st.sampled_from(["//", "%"]), inner, _CONSTANT_DIVISORS)
        | st.tuples(st.just("//"), inner, st.sampled_from(NAMES))
    ),
    max_leaves=10,
)
sizes = st.fixed_dictionaries({name: st.integers(1, 60) for name in NAMES})


def build(formula: object) -> int | Expr:
    """The formula in the algebra."""
    if isinstance(formula, str):
        return symbol(formula)
    if isinstance(formula, int):
        return formula
    op, left, right = formula
    left, right = build(left), build(right)
    match op:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "//":
            return floordiv(left, right)
        case "%":
            return left % right
        case "min":
            return minimum(left, right)
        case _:
            return maximum(left, right)


def compute(formula: object, values: Mapping[str, int]) -> int:
    """The formula in Python's integers."""
    if isinstance(formula, str):
        return values[formula]
    if isinstance(formula, int):
        return formula
    op, left, right = formula
    left, right = compute(left, values), compute(right, values)
    match op:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "//":
            return left // right
        case "%":
            return left % right
        case "min":
            return min(left, right)
        case _:
            return max(left, right)
