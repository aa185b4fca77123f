"""The algebra of sizes against plain Python integers, and named dims, guards and bindings."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.frontends.formulas import NAMES, build, compute, formulas, sizes
from tvmext.errors import DimError
from tvmext.frontends.dims import (
    Dim,
    Expr,
    Guard,
    at_least,
    bind_dims,
    bounds,
    ceildiv,
    evaluate,
    maximum,
    minimum,
    parse,
    refine,
    substitute,
    symbol,
)

checked = settings(max_examples=200, deadline=None, derandomize=True)


@checked
@given(formulas, sizes)
def test_value_is_that_of_python_integers(formula, values):
    assert evaluate(build(formula), values) == compute(formula, values)


@checked
@given(formulas)
def test_text_reads_back_as_the_same_expression(formula):
    expression = build(formula)
    assert parse(str(expression)) == expression


@checked
@given(formulas, formulas)
def test_sums_and_products_have_one_form(left, right):
    a, b = build(left), build(right)
    assert a + b == b + a
    assert a * b == b * a
    assert (a + b) - b == a
    assert (a + b) * (a - b) == a * a - b * b
    assert hash(a + b) == hash(b + a)


@checked
@given(formulas, formulas, sizes)
def test_substitution_is_evaluation_in_two_steps(formula, replacement, values):
    size = compute(replacement, values)
    if size > 0:  # a symbol is a size, and divisors are not zero
        replaced = substitute(build(formula), {"a": build(replacement)})
        assert evaluate(replaced, values) == compute(formula, {**values, "a": size})


ranges = st.fixed_dictionaries(
    {name: st.tuples(st.integers(1, 30), st.integers(0, 30) | st.none()) for name in NAMES}
)


def dims_and_values(spans, offsets):
    """Dims of the spans (low, length), and sizes inside them."""
    dims, values = {}, {}
    for name, (low, length) in spans.items():
        dims[name] = Dim(name, low, None if length is None else low + length)
        values[name] = low + (offsets[name] if length is None else offsets[name] % (length + 1))
    return dims, values


@checked
@given(formulas, ranges, sizes)
def test_bounds_are_sound(formula, spans, offsets):
    dims, values = dims_and_values(spans, offsets)
    low, high = bounds(build(formula), dims)
    value = compute(formula, values)
    assert low is None or low <= value
    assert high is None or value <= high


@checked
@given(formulas, ranges, sizes)
def test_refining_keeps_the_value_inside_the_ranges(formula, spans, offsets):
    dims, values = dims_and_values(spans, offsets)
    refined = refine(build(formula), dims)
    assert evaluate(refined, values) == compute(formula, values)


h, w, s = symbol("h"), symbol("w"), symbol("s")


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (4 * h + w, "4*h + w"),
        ((6 * h * w) // h, "6*w"),
        ((6 * h * w) // (4 * h), "w + floordiv(w, 2)"),
        (((h + 1) // 2 + 1) // 2, "floordiv(h + 3, 4)"),
        ((h - 1) // 2 + 1, "floordiv(h + 1, 2)"),
        (4 * (h // 4) + h % 4, "h"),
        ((4 * h + 3) // 4, "h"),
        (ceildiv(h, 4), "floordiv(h + 3, 4)"),
        (minimum(512, s, minimum(300, s)), "min(300, s)"),
        (minimum(s + 4, 516), "min(512, s) + 4"),
        (minimum(2 * s, 1024), "2*min(512, s)"),
        (maximum(0, s - 2, -3), "max(2, s) - 2"),
        ((3 * h) // 4, "h - floordiv(h + 3, 4)"),
        (-((-h) // 4), "floordiv(h + 3, 4)"),
        (maximum(0, s + 1), "s + 1"),
        (h * h - h * h + 3, "3"),
        (-h, "-h"),
    ],
)
def test_normal_form(expression, text):
    assert str(expression) == text
    assert isinstance(expression, int | Expr)


def test_a_constant_is_an_int():
    assert isinstance(h - h, int)
    assert isinstance((h * 0) // 3, int)
    assert isinstance(minimum(3, 4), int)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (h, 0, True),
        (h, h + 1, False),
        (h, 1, None),
        (s, minimum(512, s), True),
        (minimum(512, s), 513, False),
        (h, 4 * (h // 4), True),
        (4 * (h // 4) + 3, h, True),
        (maximum(h, w), h, True),
    ],
)
def test_at_least(a, b, expected):
    assert at_least(a, b) is expected


def test_ranges_decide_comparisons():
    dims = {"s": Dim("s", 1, 512), "h": Dim("h", 8, 8)}
    assert at_least(s, 1, dims) is True
    assert refine(minimum(512, s), dims) == s
    assert refine(maximum(s, 600), dims) == 600
    assert refine((s + 511) // 512, dims) == 1
    assert refine(h * w, dims) == 8 * w


def test_bounds_are_exact_beyond_floats():
    big = 2**60 + 1
    assert bounds(h + big) == (big, None)


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("past + seq", symbol("past") + symbol("seq")),
        ("(((height - 1)//4)) + 1", (symbol("height") + 3) // 4),
        ("floor(h/2)", h // 2),
        ("Max(1, h)", maximum(1, h)),
        ("floormod(h, 4)", h % 4),
        ("h**2", h * h),
        ("7", 7),
    ],
)
def test_parse_reads_what_exporters_write(text, expression):
    assert parse(text) == expression


@pytest.mark.parametrize(
    "text",
    ["", "a b", "a/2", "f(a)", "a.b", "'a'", "1.5", "True", "lambda", "a if b else c", "a//0"],
)
def test_parse_refuses_what_is_no_size(text):
    with pytest.raises(DimError):
        parse(text)


def test_evaluating_without_a_size_says_which():
    with pytest.raises(DimError, match="needs the size of w"):
        (h * w).evaluate({"h": 3})


@pytest.mark.parametrize(
    ("guard", "holds", "fails"),
    [
        (Guard(s, "<=", 512), 512, 513),
        (Guard(s, ">=", 29), 29, 28),
        (Guard(4, "divides", s), 8, 9),
        (Guard(2 * (s // 2), "==", s), 6, 7),
    ],
)
def test_guard(guard, holds, fails):
    assert guard.holds({"s": holds})
    assert not guard.holds({"s": fails})
    assert Guard.from_json(guard.to_json()) == guard


def test_guard_reads_as_a_relation():
    assert str(Guard(s, "<=", 512, "Slice 'x'")) == "s <= 512"
    with pytest.raises(DimError):
        Guard(s, "<", 3)


def test_guard_needs_every_size_and_no_division_by_zero():
    guard = Guard(h // w, ">=", 1)
    assert guard.holds({"h": 3, "w": 2})
    assert not guard.holds({"h": 3, "w": 0})
    with pytest.raises(DimError, match="needs the size of w"):
        guard.holds({"h": 3})


def test_dim_checks_its_range():
    dim = Dim("seq", 1, 64)
    dim.check(1, "input 'x', axis 1")
    dim.check(64, "input 'x', axis 1")
    with pytest.raises(DimError, match=r"input 'x', axis 1: dim 'seq' is 65"):
        dim.check(65, "input 'x', axis 1")
    with pytest.raises(DimError, match="min <= opt <= max"):
        Dim("seq", 8, 4)


KNOWN = {"batch": Dim("batch"), "unk_1": Dim("unk_1", label="unk::1"), "seq": Dim("seq", high=512)}


def test_bind_dims_fixes_and_limits():
    sizes, free = bind_dims({"batch": 4, "seq": (1, 8, 64), "unk::1": (2, None)}, KNOWN)
    assert sizes == {"batch": 4}
    assert free["seq"] == Dim("seq", 1, 64, 8)
    assert free["unk_1"] == Dim("unk_1", 2, None, None, "unk::1")
    assert "batch" not in free


def test_bind_dims_without_a_request_keeps_everything():
    assert bind_dims(None, KNOWN) == ({}, KNOWN)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"bach": 4}, "the model has no dim 'bach'"),
        ({"batch": "4"}, "is given as '4'"),
        ({"batch": (1, 2, 3, 4)}, "is given as"),
        ({"batch": True}, "is given as True"),
        ({"batch": (5, 2)}, "has the range 5:2"),
        ({"batch": -1}, "given as -1"),
        ({"seq": 513}, "outside its range"),
    ],
)
def test_bind_dims_says_what_is_wrong(request_, message):
    with pytest.raises(DimError, match=message):
        bind_dims(request_, KNOWN)


def test_an_unknown_dim_is_told_the_known_ones():
    with pytest.raises(DimError) as caught:
        bind_dims({"bach": 4}, KNOWN)
    assert caught.value.hint == "its dims are batch, unk::1, seq"
