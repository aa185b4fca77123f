"""If, Loop and Scan compiled with all passes, against ONNX Runtime."""

from __future__ import annotations

import resource

import numpy as np
import onnx
import pytest

import tvmext
from tvmext.errors import TvmextError, UnsupportedError

ort = pytest.importorskip("onnxruntime", reason="the reference; pip install 'tvmext[verify]'")


def model(text: str, opset: int = 17) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> {text}')


def expected(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(proto.SerializeToString(), options)
    return session.run(None, feeds)


def check(text: str, *cases: dict[str, np.ndarray]) -> tvmext.CompiledModel:
    proto = model(text)
    compiled = tvmext.compile(proto)
    for feeds in cases:
        got = compiled.run(feeds).values()
        for one, other in zip(got, expected(proto, feeds), strict=True):
            assert (one.dtype, one.ndim) == (other.dtype, other.ndim)
            if not one.size == other.size == 0:  # dims of rows that never came are anything
                assert one.shape == other.shape
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    return compiled


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def int64(value: int) -> np.ndarray:
    return np.array(value, np.int64)


SEVERAL = """agraph (int64 n, float[b, 4] x, float[4, 4] w)
    => (float[b, 4] y, float[b, 4] z, float[k, b, 4] s)
{
  y, z, s = Loop <body = one (int64 i, bool c, float[b, 4] p, float[b, 4] q)
      => (bool d, float[b, 4] r, float[b, 4] p2, float[b, 4] row) {
    d = Identity(c)
    m = MatMul(q, w)
    t = Tanh(m)
    r = Add(t, x)
    p2 = Identity(p)
    row = Sub(p, q)
  }> (n, , x, x)
}"""


def test_carried_values_change_places_and_rows_are_kept():
    """A state that is the other one of the iteration before must not be overwritten by it."""
    sizes = [(0, 2), (1, 2), (5, 3), (40, 1)]
    w = floats(4, 4) / 2
    check(SEVERAL, *({"n": int64(n), "x": floats(b, 4), "w": w} for n, b in sizes))


WHILE = """agraph (float[2] x, float limit) => (float[2] y, float[k, 2] s)
{
  go = Constant <value = bool {1}> ()
  none = Constant <value_int = 9223372036854775807> ()
  y, s = Loop <body = one (int64 i, bool c, float[2] p) => (bool d, float[2] q, float[2] row) {
    q = Add(p, p)
    total = ReduceSum <keepdims = 0> (q)
    d = Less(total, limit)
    row = Identity(q)
  }> (none, go, x)
}"""


def test_a_condition_ends_the_loop():
    x = np.float32([1, 2])
    check(WHILE, *({"x": x, "limit": np.array(v, np.float32)} for v in (1, 100, 1e9)))


NESTED = """agraph (int64 n, float[m, 3] x) => (float[3] y, float[k, j, 3] s)
{
  zero = Constant <value_floats = [0.0, 0.0, 0.0]> ()
  y, s = Loop <body = outer (int64 i, bool c, float[3] p)
      => (bool d, float[3] q, float[j, 3] rows) {
    d = Identity(c)
    fi = Cast <to = 1> (i)
    q, rows = Scan <num_scan_inputs = 1, body = inner (float[3] a, float[3] e)
        => (float[3] b, float[3] o) {
      g = Mul(e, fi)
      b = Add(a, g)
      two = Constant <value_float = 2.0> ()
      o = Mul(b, two)
    }> (p, x)
  }> (n, , zero)
}"""


def test_a_scan_in_a_loop():
    check(NESTED, *({"n": int64(n), "x": floats(m, 3)} for n, m in ((0, 2), (3, 4), (2, 1))))


GROWING = """agraph (int64 n, float[a] x) => (float[k] y)
{
  y = Loop <body = one (int64 i, bool c, float[j] p) => (bool d, float[l] q) {
    d = Identity(c)
    q = Concat <axis = 0> (p, x)
  }> (n, , x)
}"""


def test_a_carried_value_grows():
    check(GROWING, *({"n": int64(n), "x": floats(3)} for n in (0, 1, 6)))


CHOICE = """agraph (bool c, float[n, 4] x, float[4, 5] w) => (float[n, 4] y, float[n, 5] z)
{
  y, z = If <then_branch = yes () => (float[n, 4] a, float[n, 5] b) {
      a = Relu(x)
      b = MatMul(a, w)
    }, else_branch = no () => (float[n, 4] e, float[n, 5] f) {
      e = Identity(x)
      g = MatMul(x, w)
      f = Neg(g)
    }> (c)
}"""


def test_a_choice_takes_what_is_around_it():
    w = floats(4, 5)
    check(
        CHOICE,
        *({"c": np.array(c), "x": floats(n, 4), "w": w} for c in (0 > 1, True) for n in (1, 7)),
    )


LONG = """agraph (int64 n, float[64] x) => (float[64] y)
{
  y = Loop <body = one (int64 i, bool c, float[64] p) => (bool d, float[64] q) {
    d = Identity(c)
    h = Constant <value_float = 0.5> ()
    r = Mul(p, h)
    q = Add(r, x)
  }> (n, , x)
}"""


def test_many_iterations_in_constant_memory():
    compiled = tvmext.compile(model(LONG))
    x = floats(64)
    compiled.run(int64(1000), x)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (got,) = compiled.run(int64(100_000), x).values()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8192  # KiB
    np.testing.assert_allclose(got, 2 * x, rtol=1e-5)


def test_a_negative_number_of_iterations_is_none():
    compiled = tvmext.compile(model(LONG))
    x = floats(64)
    np.testing.assert_array_equal(compiled.run(int64(-5), x)["y"], x)


RAGGED = """agraph (int64 n, float[4] x) => (float[a] y, float[k, r] s)
{
  y, s = Loop <body = one (int64 i, bool c, float[j] p) => (bool d, float[l] q, float[l] row) {
    d = Identity(c)
    q = Concat <axis = 0> (p, x)
    row = Identity(q)
  }> (n, , x)
}"""


def test_rows_of_different_sizes_are_an_error():
    compiled = tvmext.compile(model(RAGGED))
    with pytest.raises(TvmextError, match="different sizes"):
        compiled.run(int64(3), floats(4))


def test_what_a_body_lacks_is_named():
    proto = model(LONG)
    (loop,) = proto.graph.node
    inner = loop.attribute[0].g.node
    (node,) = (n for n in inner if n.op_type == "Add")
    node.op_type, node.domain, node.name = "Unheard", "com.example", "the_node"
    proto.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    with pytest.raises(UnsupportedError, match=r"com.example::Unheard .*the_node"):
        tvmext.compile(proto)
