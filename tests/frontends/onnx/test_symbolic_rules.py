"""Symbolic rules one by one: graphs with symbolic dims against ONNX Runtime at several sizes."""

from __future__ import annotations

import pytest

from tests.frontends.onnx.graphs import draw, graph
from tests.frontends.onnx.oracle import differences
from tvmext.frontends.onnx.symbolic import infer

# name: (opset, inputs, body, expected shape of y)
RULES = {
    "reshape, 0 and -1": (
        13,
        "float[n, m, 6] x",
        "s = Constant<value_ints=[0, -1, 3]>() y = Reshape(x, s)",
        "n, 2*m, 3",
    ),
    "reshape to computed dims": (
        13,
        "float[n, m, 6] x",
        """s = Shape(x) i = Constant<value_int=0>() d = Gather(s, i) z = Constant<value_ints=[0]>()
        u = Unsqueeze(d, z) k = Constant<value_ints=[-1]>() t = Concat<axis=0>(u, k)
        y = Reshape(x, t)""",
        "n, 6*m",
    ),
    "shape, start and end": (15, "float[n, m, 6] x", "y = Shape<start=1, end=-1>(x)", "1"),
    "flatten": (13, "float[n, m, 6] x", "y = Flatten<axis=-1>(x)", "m*n, 6"),
    "unsqueeze, attribute": (11, "float[n, m] x", "y = Unsqueeze<axes=[0, -1]>(x)", "1, n, m, 1"),
    "unsqueeze, input": (
        13,
        "float[n, m] x",
        "a = Constant<value_ints=[2, 1]>() y = Unsqueeze(x, a)",
        "n, 1, 1, m",
    ),
    "squeeze, attribute": (11, "float[1, n, 1] x", "y = Squeeze<axes=[-1]>(x)", "1, n"),
    "squeeze, all": (13, "float[1, 3, 1] x", "y = Squeeze(x)", "3"),
    "slice, attributes": (
        9,
        "float[n, m] x",
        "y = Slice<axes=[1], starts=[1], ends=[-1]>(x)",
        "n, m - 2",
    ),
    "slice, clamped": (
        13,
        "float[n, m] x",
        """b = Constant<value_ints=[0]>() e = Constant<value_ints=[4]>()
        a = Constant<value_ints=[-1]>() y = Slice(x, b, e, a)""",
        "n, min(4, m)",
    ),
    "slice, step": (
        13,
        "float[n, m] x",
        """b = Constant<value_ints=[1]>() e = Constant<value_ints=[9223372036854775807]>()
        a = Constant<value_ints=[1]>() s = Constant<value_ints=[3]>() y = Slice(x, b, e, a, s)""",
        "n, floordiv(m + 1, 3)",
    ),
    "slice, reversed": (
        13,
        "float[n, m] x",
        """b = Constant<value_ints=[-1]>() e = Constant<value_ints=[-9223372036854775808]>()
        a = Constant<value_ints=[0]>() s = Constant<value_ints=[-2]>() y = Slice(x, b, e, a, s)""",
        "floordiv(n + 1, 2), m",
    ),
    "slice of the last n": (
        13,
        "float[n, m] x, float[k, n] w",
        """s = Shape(w) b = Constant<value_ints=[0]>() e = Constant<value_ints=[1]>()
        k = Slice(s, b, e) t = Neg(k) f = Constant<value_ints=[2147483647]>()
        a = Constant<value_ints=[1]>() y = Slice(x, t, f, a)""",
        "n, min(k, m)",
    ),
    "split, attribute": (11, "float[n, 6] x", "y, z = Split<axis=1, split=[2, 4]>(x)", "n, 2"),
    "split, input": (
        13,
        "float[n, 6] x",
        "s = Constant<value_ints=[2, 4]>() y, z = Split<axis=1>(x, s)",
        "n, 2",
    ),
    "split, even": (13, "float[n, 6] x", "y, z = Split<axis=-1>(x)", "n, 3"),
    "split, uneven": (
        18,
        "float[n, m] x",
        "y, z = Split<axis=1, num_outputs=2>(x)",
        "n, floordiv(m + 1, 2)",
    ),
    "pad, input": (
        13,
        "float[n, m] x",
        "p = Constant<value_ints=[0, 1, 0, 2]>() y = Pad(x, p)",
        "n, m + 3",
    ),
    "pad, attribute": (10, "float[n, m] x", "y = Pad<pads=[0, 1, 0, -1]>(x)", "n, m"),
    "pad, axes": (
        18,
        "float[n, m] x",
        """p = Constant<value_ints=[1, 2]>() a = Constant<value_ints=[-1]>()
        y = Pad(x, p, , a)""",
        "n, m + 3",
    ),
    "expand": (
        13,
        "float[n, 1] x, float[m] w",
        """s = Shape(w) o = Constant<value_ints=[2, 1]>() t = Concat<axis=0>(o, s)
        y = Expand(x, t)""",
        "2, n, m",
    ),
    "tile": (
        13,
        "float[n, m] x",
        "r = Constant<value_ints=[2, 3]>() y = Tile(x, r)",
        "2*n, 3*m",
    ),
    "concat": (13, "float[n, m] x, float[n, k] w", "y = Concat<axis=-1>(x, w)", "n, k + m"),
    "gather": (
        13,
        "float[n, m] x",
        "i = Constant<value_ints=[0, 1, 0]>() y = Gather<axis=-1>(x, i)",
        "n, 3",
    ),
    "gather nd": (13, "float[n, m, 5] x, int64[k, 2] w", "y = GatherND(x, w)", "k, 5"),
    "top k, attribute": (9, "float[n, m] x", "y, z = TopK<axis=1, k=2>(x)", "n, 2"),
    "top k, input": (
        11,
        "float[n, m] x",
        "k = Constant<value_ints=[2]>() y, z = TopK<axis=0>(x, k)",
        "2, m",
    ),
    "one hot": (
        11,
        "int64[n, m] x",
        """d = Constant<value_int=5>() v = Constant<value_floats=[0.0, 1.0]>()
        y = OneHot<axis=1>(x, d, v)""",
        "n, 5, m",
    ),
    "one hot of constants": (
        11,
        "int64[n] x",
        """i = Constant<value_ints=[1, -1]>() d = Constant<value_int=3>()
        v = Constant<value_ints=[0, 1]>() y = OneHot(i, d, v)""",
        "2, 3",
    ),
    "range": (
        13,
        "float[n, m] x",
        """s = Size(x) a = Constant<value_int=0>() d = Constant<value_int=4>()
        y = Range(a, s, d)""",
        "floordiv(m*n + 3, 4)",
    ),
    "range, down": (
        13,
        "float[n] x",
        """s = Size(x) a = Constant<value_int=0>() d = Constant<value_int=-1>()
        y = Range(s, a, d)""",
        "n",
    ),
    "range of floats": (
        13,
        "float[n] x",
        """a = Constant<value_float=0.5>() b = Constant<value_float=3.0>()
        d = Constant<value_float=0.5>() y = Range(a, b, d)""",
        "5",
    ),
    "constant of shape": (13, "float[n, m] x", "s = Shape(x) y = ConstantOfShape(s)", "n, m"),
    "where of a shape": (
        13,
        "float[n, m] x",
        """s = Shape(x) a = Constant<value_ints=[-1, 7]>() b = Constant<value_ints=[-1, -1]>()
        c = Equal(a, b) t = Where(c, s, a) y = ConstantOfShape(t)""",
        "n, 7",
    ),
    "integer arithmetic": (
        13,
        "float[n, m] x",
        """s = Shape(x) two = Constant<value_ints=[2, 3]>() q = Div(s, two) r = Mod(s, two)
        p = Mul(q, two) a = Add(p, r) b = Max(a, two) c = Min(b, s) y = ConstantOfShape(c)""",
        "n, m",
    ),
    "float arithmetic": (
        13,
        "float[n, m] x",
        """s = Shape(x) f = Cast<to=1>(s) h = Constant<value_float=0.5>() g = Mul(f, h) k = Floor(g)
        l = Ceil(g) a = Add(k, l) i = Cast<to=7>(a) y = ConstantOfShape(i)""",
        "n, m",
    ),
    "product of a slice of the shape": (
        15,
        "float[n, m, 4] x",
        "s = Shape<start=1>(x) p = ReduceProd<keepdims=1>(s) y = ConstantOfShape(p)",
        "4*m",
    ),
    "reduction, attribute": (11, "float[n, m] x", "y = ReduceSum<axes=[1]>(x)", "n, 1"),
    "reduction, input": (
        13,
        "float[n, m] x",
        "a = Constant<value_ints=[0]>() y = ReduceSum<keepdims=0>(x, a)",
        "m",
    ),
    "mean, input": (
        18,
        "float[n, m] x",
        "a = Constant<value_ints=[-1]>() y = ReduceMean(x, a)",
        "n, 1",
    ),
    "matmul": (13, "float[n, 1, m, 4] x, float[k, 4, 5] w", "y = MatMul(x, w)", "n, k, m, 5"),
    "matmul of a vector": (13, "float[m] x, float[n, m, 3] w", "y = MatMul(x, w)", "n, 3"),
    "gemm": (13, "float[4, n] x, float[m, 4] w", "y = Gemm<transA=1, transB=1>(x, w)", "n, m"),
    "einsum": (
        13,
        "float[n, m, 4] x, float[4, k] w",
        'y = Einsum<equation="bij,jk->bki">(x, w)',
        "n, k, m",
    ),
    "conv": (
        13,
        "float[n, 2, h, w] x, float[3, 2, 3, 3] k",
        "y = Conv<strides=[2, 1], pads=[1, 0, 1, 0], dilations=[1, 2]>(x, k)",
        "n, 3, floordiv(h + 1, 2), w - 4",
    ),
    "conv, same": (
        13,
        "float[n, 2, h, w] x, float[3, 2, 3, 3] k",
        'y = Conv<strides=[2, 2], auto_pad="SAME_UPPER">(x, k)',
        "n, 3, floordiv(h + 1, 2), floordiv(w + 1, 2)",
    ),
    "conv transpose": (
        13,
        "float[n, 2, h, w] x, float[2, 3, 3, 3] k",
        "y = ConvTranspose<strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 0]>(x, k)",
        "n, 3, 2*h, 2*w - 1",
    ),
    "max pool, ceil": (
        13,
        "float[n, 2, h, w] x",
        "y = MaxPool<kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1>(x)",
        None,
    ),
    "average pool, padded ceil": (
        19,
        "float[n, 2, h, w] x",
        "y = AveragePool<kernel_shape=[2, 2], strides=[2, 3], pads=[1, 0, 1, 0], ceil_mode=1>(x)",
        None,
    ),
    "global pool": (13, "float[n, 2, h, w] x", "y = GlobalAveragePool(x)", "n, 2, 1, 1"),
    "depth to space": (
        13,
        "float[n, 8, h, w] x",
        "y = DepthToSpace<blocksize=2>(x)",
        "n, 2, 2*h, 2*w",
    ),
    "resize, scales": (
        13,
        "float[n, 2, h, w] x",
        "s = Constant<value_floats=[1.0, 1.0, 2.0, 0.5]>() y = Resize(x, , s)",
        "n, 2, 2*h, floordiv(w, 2)",
    ),
    "resize, opset 10": (
        10,
        "float[n, 2, h, w] x",
        "s = Constant<value=float[4] {1, 1, 1.5, 2}>() y = Resize(x, s)",
        "n, 2, h + floordiv(h, 2), 2*w",
    ),
    "resize, sizes": (
        13,
        "float[n, 2, h, w] x, float[k, l] z",
        """s = Shape(x) b = Constant<value_ints=[0]>() e = Constant<value_ints=[2]>()
        f = Slice(s, b, e) t = Shape(z) u = Concat<axis=0>(f, t) y = Resize(x, , , u)""",
        "n, 2, k, l",
    ),
    "resize, some axes": (
        18,
        "float[n, 2, h, w] x",
        "s = Constant<value_floats=[3.0]>() y = Resize<axes=[3]>(x, , s)",
        "n, 2, h, 3*w",
    ),
    "upsample": (
        9,
        "float[n, 2, h, w] x",
        "s = Constant<value=float[4] {1, 1, 2, 3}>() y = Upsample(x, s)",
        "n, 2, 2*h, 3*w",
    ),
    "lstm": (
        14,
        "float[n, m, 4] x, float[1, 12, 4] w, float[1, 12, 3] r",
        "y, z, c = LSTM<hidden_size=3>(x, w, r)",
        "n, 1, m, 3",
    ),
    "cast": (13, "float[n] x", "y = Cast<to=6>(x)", "n"),
}
SIZES = (
    {"n": 3, "m": 5, "k": 3, "l": 4, "h": 7, "w": 9},
    {"n": 4, "m": 6, "k": 7, "l": 11, "h": 12, "w": 8},
)


@pytest.mark.parametrize("name", RULES)
def test_rule(name):
    opset, inputs, body, expected = RULES[name]
    model = graph(opset, inputs, body)
    shapes = infer(model)
    if expected is not None:
        assert ", ".join(map(str, shapes.values["y"].shape)) == expected
    assert all(map(shapes.is_known, shapes.values))
    for sizes in SIZES:
        assert differences(shapes, model, draw(model, sizes)) == []
