"""Sizes of 0 and numbers that are none, through the whole compiler, against ONNX Runtime."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import tvmext
from tvmext.errors import DimError
from tvmext.frontends.dims import evaluate
from tvmext.options import Options

ort = pytest.importorskip("onnxruntime")

HEADS = """agraph (float[batch, seq, 12] x) => (float[batch, seq, 12] y)
<float[12, 12] w> {
    shape = Constant<value_ints=[0, 0, 3, 4]>() flat = Constant<value_ints=[0, 0, 12]>()
    q = MatMul(x, w) h = Reshape(q, shape)
    a = Transpose<perm=[0, 2, 1, 3]>(h) b = Transpose<perm=[0, 2, 3, 1]>(h)
    s = MatMul(a, b) p = Softmax<axis=-1>(s) c = MatMul(p, a)
    t = Transpose<perm=[0, 2, 1, 3]>(c) y = Reshape(t, flat)
}"""
CACHE = """agraph (float[batch, past, 8] p, float[batch, seq, 8] x) => (float[n, 8] y, float[8] m)
<float[8, 8] w> {
    shape = Constant<value_ints=[-1, 8]>() axes = Constant<value_ints=[0]>()
    c = Concat<axis=1>(p, x) f = Reshape(c, shape) y = MatMul(f, w)
    m = ReduceMax<keepdims=0>(y, axes)
}"""
WINDOWS = """agraph (float[batch, height, 8] x) => (float[n, 8] y) {
    one = Constant<value_ints=[1]>() zero = Constant<value_ints=[0]>()
    four = Constant<value_ints=[4]>() last = Constant<value_ints=[8]>()
    flat = Constant<value_ints=[-1, 8]>()
    s = Shape(x) b = Gather(s, zero) h = Gather(s, one) q = Div(h, four)
    t = Concat<axis=0>(b, q, four, last) w = Reshape(x, t)
    v = Transpose<perm=[2, 0, 1, 3]>(w) y = Reshape(v, flat)
}"""


def model(text: str) -> onnx.ModelProto:
    header = '<ir_version: 9, opset_import: ["" : 18]>'
    made = onnx.parser.parse_model(f"{header} {text}")
    rng = np.random.default_rng(0)
    for value in made.graph.value_info:  # the declared values are the weights
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        array = rng.standard_normal(shape, dtype=np.float32)
        made.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    return made


def expected(made: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    return ort.InferenceSession(made.SerializeToString()).run(None, feed)


@pytest.mark.parametrize("text", [HEADS, CACHE, WINDOWS], ids=["heads", "cache", "windows"])
def test_sizes_of_zero(text: str) -> None:
    made = model(text)
    compiled = tvmext.compile(made)
    dims = list(compiled.metadata.dims)
    for picked in itertools.product((0, 4), repeat=len(dims)):
        sizes = dict(zip(dims, picked))
        feed = {
            spec.name: np.ones([evaluate(dim, sizes) for dim in spec.shape], spec.dtype)
            for spec in compiled.inputs
        }
        got = compiled.run(feed)
        for array, wanted in zip(got.values(), expected(made, feed)):
            np.testing.assert_allclose(array, wanted, rtol=1e-4, atol=1e-5, err_msg=str(sizes))


def test_a_size_that_divides_must_not_be_zero() -> None:
    compiled = tvmext.compile(
        model("""agraph (float[batch, 2] x) => (float[n, batch] y) {
            twelve = Constant<value_ints=[12]>() zero = Constant<value_ints=[0]>()
            s = Shape(x) b = Gather(s, zero) q = Div(twelve, b) t = Concat<axis=0>(q, b)
            y = ConstantOfShape(t)
        }""")
    )
    assert compiled.run(np.ones((5, 2), np.float32))["y"].shape == (2, 5)
    with pytest.raises(DimError, match=r"batch >= 1.*batch = 0.*Div"):
        compiled.run(np.ones((0, 2), np.float32))


def test_nan_and_infinity() -> None:
    made = model("""agraph (float[n, m] x, float[n, m] z)
        => (float[n, m] a, float[n, m] b, float[n, m] c, bool[n, m] d, float[n, 1] e, int64[n] f,
            float[n, 1] g) {
        axes = Constant<value_ints=[1]>() low = Constant<value_float=-1.0>()
        high = Constant<value_float=6.0>()
        a = Max(x, z) b = Clip(x, low, high) c = Elu(x) d = IsNaN(x)
        e = ReduceMax(x, axes) f = ArgMax<axis=1, keepdims=0>(x) g = ReduceLogSumExp(x, axes)
    }""")
    inf, nan = np.inf, np.nan
    x = np.array([[nan, 1, 2], [-inf, -inf, -inf], [inf, 7, 0], [-2, nan, -inf]], np.float32)
    x = np.repeat(x, 7, axis=1)
    feed = {"x": x, "z": x[::-1].copy()}
    got = tvmext.compile(made).run(feed)
    for (name, array), wanted in zip(got.items(), expected(made, feed)):
        rows = slice(1, 3) if name in ("e", "f") else slice(None)  # of NaN there is no largest
        np.testing.assert_allclose(array[rows], wanted[rows], rtol=1e-5, atol=1e-6, err_msg=name)


def test_number_from_data_that_does_not_divide() -> None:
    """The size that a Reshape leaves open is right where the data fits, and an error elsewhere."""
    text = """agraph (float[n] x, float[3, 2] m) => (float[k, 2] y) {
        shape = Constant<value_ints=[-1, 3]>() p = NonZero(x) r = Reshape(p, shape)
        f = Cast<to=1>(r) y = MatMul(f, m)
    }"""
    made = model(text)
    compiled = tvmext.compile(made)
    for count in (0, 6, 7):
        feed = {"x": np.float32(np.arange(9) < count), "m": np.ones((3, 2), np.float32)}
        if count % 3:
            with pytest.raises(DimError):
                compiled.run(feed)
        else:
            np.testing.assert_allclose(compiled.run(feed)["y"], expected(made, feed)[0])


def test_a_padding_that_takes_more_than_there_is() -> None:
    """Before anything is made of it: of a dim, and of a number that the data leads to."""
    made = model("""agraph (float[n] x) => (float[k] y, float[l] z) {
        cut = Constant<value_ints=[-2, -3]>() flat = Constant<value_ints=[-1]>()
        p = NonZero(x) f = Cast<to=1>(p) r = Reshape(f, flat) y = Pad(r, cut) z = Pad(x, cut)
    }""")
    compiled = tvmext.compile(made)
    for feed in (np.float32([1, 1, 0, 1, 1, 1, 1]), np.ones(5, np.float32)):
        for got, wanted in zip(compiled.run(feed).values(), expected(made, {"x": feed})):
            np.testing.assert_array_equal(got, wanted)
    with pytest.raises(DimError, match="n >= 5, but n = 4; Pad 'z'"):
        compiled.run(np.ones(4, np.float32))
    with pytest.raises(DimError, match="sizes that do not fit the model: Pad 'y': "):
        compiled.run(np.float32([1, 1, 0, 1, 1, 0, 0]))


@pytest.mark.parametrize("level", [0, 2])
def test_sizes_that_do_not_fit_are_somebodys(level: int) -> None:
    """Of an input, of a node that an element limits, of a node that computes them in the run."""
    made = model("""agraph (float[4, 3] x, int64[2] n, int64[1] m, int64[2] s)
        => (float[a, b] y, float[c] z, float[d, e] w) {
        five = Constant<value_ints=[5]>() less = Sub(m, five)
        y = Tile(x, n) z = ConstantOfShape(less) w = Reshape(x, s)
    }""")
    compiled = tvmext.compile(made, options=Options(opt_level=level))
    feed = {
        "x": np.arange(12, dtype=np.float32).reshape(4, 3),
        "n": np.array([2, 3]),
        "m": np.array([7]),
        "s": np.array([-1, 6]),
    }
    for got, wanted in zip(compiled.run(feed).values(), expected(made, feed)):
        np.testing.assert_array_equal(got, wanted)
    for name, values, said in [
        ("n", [2, -3], "input 'n': size -3"),
        ("m", [3], r"input 'm' \(ConstantOfShape 'z'\): sizes 3 and 5, not equal"),
        ("s", [-2, -6], "Reshape 'w': size -1, or no size that fits"),
        ("s", [5, 2], "Reshape 'w': size -1, or no size that fits"),
    ]:
        with pytest.raises(DimError, match=f"do not fit the model: {said}"):
            compiled.run({**feed, name: np.array(values)})


def test_types_that_few_operators_see() -> None:
    made = model("""agraph (bool[4, 16] a, bool[4, 16] b, uint16[4, 16] u, float16[4, 16] h)
        => (bool[4, 16] same, uint16[4, 16] sign, float16[4, 1] total, bool[n] kinds) {
        axes = Constant<value_ints=[1]>()
        same = Equal(a, b) sign = Sign(u) total = ReduceLogSumExp(h, axes) kinds = Unique(a)
    }""")
    rng = np.random.default_rng(0)
    feed = {
        "a": rng.random((4, 16)) < 0.5,
        "b": rng.random((4, 16)) < 0.5,
        "u": rng.integers(0, 3, (4, 16)).astype(np.uint16),
        "h": rng.standard_normal((4, 16)).astype(np.float16),
    }
    got = tvmext.compile(made).run(feed)
    for array, wanted in zip(got.values(), ReferenceEvaluator(made).run(None, feed), strict=True):
        np.testing.assert_allclose(array, wanted, rtol=1e-2)


def test_loops_as_long_as_the_data_says() -> None:
    """A RoiAlign takes as many samples as a region is large."""
    made = model("""agraph (float[1, 2, 8, 8] x, float[3, 4] regions, int64[3] images)
        => (float[3, 2, 1, 1] y) { y = RoiAlign(x, regions, images) }""")
    rng = np.random.default_rng(0)
    feed = {
        "x": rng.standard_normal((1, 2, 8, 8), dtype=np.float32),
        "regions": np.array([[0, 0, 7, 7], [1, 2, 3, 4], [2, 2, 2.5, 6]], np.float32),
        "images": np.zeros(3, np.int64),
    }
    np.testing.assert_allclose(
        tvmext.compile(made).run(feed)["y"], expected(made, feed)[0], rtol=1e-4, atol=1e-5
    )


def test_no_element_has_a_value() -> None:
    """The shifted sums of a tensor without elements are a pad of a slice, of no piece at all."""
    text = """agraph (float[0, 0] x, int32 axis) => (float[0, 0] y) {
        y = CumSum<exclusive=1, reverse=1>(x, axis)
    }"""
    inputs = {"x": np.zeros((0, 0), np.float32), "axis": np.array(0, np.int32)}
    (y,) = tvmext.compile(model(text)).run(inputs).values()
    assert y.shape == (0, 0)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_images_without_rows(level: int) -> None:
    """The average of a window around no pixel, and reshapes to dims of 0 in other places."""
    made = model("""agraph (float[2, 3, 0, 5] x) => (float[2, 3, 0, 5] y, float[5, 0, 6] z) {
        y = LRN<size=3>(x) shape = Constant<value_ints=[5, 0, 6]>()
        a = Relu(x) b = Reshape<allowzero=1>(a, shape) z = Exp(b)
    }""")
    compiled = tvmext.compile(made, options=Options(opt_level=level))
    y, z = compiled.run({"x": np.zeros((2, 3, 0, 5), np.float32)}).values()
    assert (y.shape, z.shape) == ((2, 3, 0, 5), (5, 0, 6))


def test_results_without_elements_are_not_computed() -> None:
    """Kernels divide by the number of rows that are wanted, here none."""
    made = model("""agraph (float[1, 1, 8, 8] x, float[3, 4] rois, int64[3] batch)
        => (float[3, 1, 0, 5] y, float[1, 1, 0, 8] z) {
        y = RoiAlign<output_height=0, output_width=5, sampling_ratio=2>(x, rois, batch)
        sizes = Constant<value_ints=[1, 1, 0, 8]>() z = Resize(x, , , sizes)
    }""")
    feed = {"x": np.ones((1, 1, 8, 8), np.float32), "rois": np.ones((3, 4), np.float32)}
    y, z = tvmext.compile(made).run({**feed, "batch": np.zeros(3, np.int64)}).values()
    assert (y.shape, z.shape) == ((3, 1, 0, 5), (1, 1, 0, 8))


@pytest.mark.parametrize("level", [0, 1])
def test_reshapes_of_which_nothing_can_be_proven(level: int) -> None:
    """A view needs no proof that the dims of both sides have one product."""
    made = model("""agraph (float[2, n, 30] x) => (float[2, 3, 6, depth] y) {
        shape = Constant<value_ints=[2, 6, 3, -1]>()
        a = Relu(x) b = Reshape(a, shape) y = Transpose<perm=[0, 2, 1, 3]>(b)
    }""")
    compiled = tvmext.compile(made, options=Options(opt_level=level))
    for n in (0, 3, 6):
        x = np.random.default_rng(n).standard_normal((2, n, 30), dtype=np.float32)
        np.testing.assert_array_equal(compiled.run({"x": x})["y"], expected(made, {"x": x})[0])
