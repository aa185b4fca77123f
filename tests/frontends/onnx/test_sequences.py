"""Sequences and optionals: nothing of them is left where their lengths are known."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, parser

from tests.frontends.onnx.stock import assert_matches
from tvmext.errors import UnsupportedError
from tvmext.frontends import load
from tvmext.frontends.onnx import sequences, with_elements
from tvmext.onnx_backend import InProcessBackend

HEADER = '<ir_version: 10, opset_import: ["" : 20]>\n'
X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def parse(text: str) -> ModelProto:
    return parser.parse_model(HEADER + text)


def test_lengths_that_follow_from_shapes():
    proto = parse("""
        main (float[n, 3, 4] x) => (float[m, 4] y, int64 count, float[n, 1, 4] z)
        <int64 first = {0}, int64 last = {-1}, int64 two = {2}>
        {
            parts = SplitToSequence <axis = 1> (x, two)
            front = SequenceInsert (parts, x, first)
            middle = SequenceErase (front, last)
            rows = SplitToSequence <axis = -2, keepdims = 0> (x)
            y = ConcatFromSequence <axis = 0> (rows)
            both = SequenceInsert (middle, x, last)
            count = SequenceLength (both)
            z = SequenceAt (parts, last)
        }""")
    assert_matches(load(proto), proto, {"x": X})


def test_position_of_the_run_and_new_axis():
    proto = parse("""
        main (float[n, 4] x, float[n, 4] y, int64 k) => (float[n, 4] z, float[n, 2, 4] both)
        {
            s = SequenceConstruct (x, y)
            z = SequenceAt (s, k)
            both = ConcatFromSequence <axis = 1, new_axis = 1> (s)
        }""")
    for k in (0, -1):
        assert_matches(load(proto), proto, {"x": X[0], "y": X[1], "k": np.array(k)})


LIST = """
    main (float[2, 3] x{more}) => (float[4, 2, 3] y, float[3, 2, 3] rows, int64 count)
    <int64 steps = {{3}}, bool on = {{1}}>
    {{
        begin = SequenceConstruct (x)
        s, rows = Loop ({steps}, on, begin) <body = step
            (int64 i, bool go, seq(float[2, 3]) old) => (bool next, seq(float[2, 3]) new, row)
        {{
            next = Identity (go)
            last = SequenceAt (old, i)
            row = Add (last, x)
            new = SequenceInsert (old, row)
        }}>
        y = ConcatFromSequence <axis = 0, new_axis = 1> (s)
        count = SequenceLength (s)
    }}"""


def test_loop_that_fills_a_sequence():
    x = X[0, :2, :3]
    y, rows, count = InProcessBackend.prepare(parse(LIST.format(more="", steps="steps"))).run([x])
    np.testing.assert_array_equal(y, [x, 2 * x, 3 * x, 4 * x])
    np.testing.assert_array_equal(rows, [2 * x, 3 * x, 4 * x])
    assert count == 4


def test_loop_of_unknown_length_is_refused():
    with pytest.raises(UnsupportedError, match=r"SequenceAt.*'old'"):
        load(parse(LIST.format(more=", int64 many", steps="many")))


BODIES = """
    main (float[2, 3, 4] x, bool c, int64 m) => (y)
    <int64 one = {1}, bool on = {1}>
    {
        s = SplitToSequence <axis = 0, keepdims = 0> (x)
        y0 = If (c) <
            then_branch = t () => (float[3, 4] a) { a = SequenceAt (s, one) },
            else_branch = e () => (float[3, 4] b) { x0 = SequenceAt (s, one)
                                                    zero = Sub (x0, x0)
                                                    q = SequenceConstruct (zero)
                                                    b = ConcatFromSequence <axis = 0> (q) }
        >
        y = Loop (m, on, y0) <body = step
            (int64 i, bool go, float[3, 4] v) => (bool on2, float[3, 4] w)
        {
            on2 = Identity (go)
            two = Constant <value_int = 2> ()
            at = Mod (i, two)
            e = SequenceAt (s, at)
            w = Add (v, e)
        }>
    }"""


def test_bodies_that_read_a_sequence_around_them():
    compiled = InProcessBackend.prepare(parse(BODIES))
    for c in (True, False):
        (y,) = compiled.run([X, np.array(c), np.array(3)])
        np.testing.assert_array_equal(y, X[1] * c + X[0] + X[1] + X[0])
    assert not compiled.bound


EDGES = """
    main (seq(float[n]) s, optional(float[3]) o)
        => (seq(float[n]) t, optional(float[3]) p, bool has)
    {
        t = SequenceMap (s) <body = twice (float[n] e) => (float[n] f) { f = Add (e, e) }>
        p = Identity (o)
        has = OptionalHasElement (o)
    }"""


@pytest.mark.parametrize("length", [0, 3])
@pytest.mark.parametrize("filled", [False, True])
def test_inputs_and_outputs(length, filled):
    elements = [np.arange(k + 1, dtype=np.float32) for k in range(length)]
    optional = np.ones(3, np.float32) if filled else None
    t, p, has = InProcessBackend.prepare(parse(EDGES)).run([elements, optional])
    assert len(t) == length
    for got, given in zip(t, elements):
        np.testing.assert_array_equal(got, 2 * given)
    assert bool(has) is filled
    assert (p is None) is not filled


def test_elements_are_inputs():
    proto = with_elements(parse(EDGES), {"s": [("float32", ["n"]), ("float32", [2])], "o": None})
    model = load(proto)
    assert [str(spec) for spec in model.inputs] == ["s[0]: float32[n]", "s[1]: float32[2]"]
    assert [spec.name for spec in model.outputs] == ["t[0]", "t[1]", "has"]


def test_sequence_of_unknown_length_is_refused_by_name():
    with pytest.raises(UnsupportedError, match="'s'"):
        load(parse(EDGES))


@pytest.mark.parametrize("declared", [onnx.TypeProto(), onnx.TypeProto(map_type={"key_type": 7})])
def test_an_output_that_is_declared_as_something_else(declared):
    proto = parse("main (float[2] x) => (y) { y = SequenceConstruct (x, x) }")
    proto.graph.output[0].type.CopyFrom(declared)
    assert [spec.name for spec in load(proto).outputs] == ["y[0]", "y[1]"]


def test_what_is_written_out_is_bounded(monkeypatch):
    monkeypatch.setattr(sequences, "MAX_NODES", 1 << 10)
    loop = "Loop (many, on, {}) <body = b{} (int64 i{}, bool g{}, {} a{}) => (bool h{}, {} z{}) {{"
    kind, text, end = "seq(float[1])", "", ""
    for depth in range(4):
        begin = "s" if depth == 0 else f"a{depth - 1}"
        text += f"z{depth - 1 if depth else 'x'} = " + loop.format(
            begin, *[depth] * 3, kind, depth, depth, kind, depth
        )
        text += f" h{depth} = Identity (g{depth}) "
        end += " }>"
    text += f"z3 = SequenceInsert (a3, x) {end}"
    proto = parse(
        "main (float[1] x) => (seq(float[1]) zx) <int64 many = {500}, bool on = {1}>"
        + f"{{ s = SequenceEmpty () {text} }}"
    )
    with pytest.raises(UnsupportedError):
        load(proto)
