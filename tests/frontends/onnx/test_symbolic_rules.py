"""Symbolic rules one by one: graphs with symbolic dims against ONNX Runtime at several sizes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.frontends.onnx.oracle import differences
from tvmext.errors import DimError, ModelError
from tvmext.frontends.dims import evaluate, parse
from tvmext.frontends.onnx.symbolic import infer


def graph(opset: int, inputs: str, body: str, output: str = "y") -> onnx.ModelProto:
    """A model in ONNX's text form; the output's type is left to inference."""
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
    g ({inputs}) => (float {output}) {{ {body} }}"""
    return onnx.parser.parse_model(text)


def draw(model: onnx.ModelProto, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Inputs of these sizes."""
    rng = np.random.default_rng(0)
    arrays = {}
    for value in model.graph.input:
        tensor = value.type.tensor_type
        shape = [
            d.dim_value if d.HasField("dim_value") else evaluate(parse(d.dim_param), sizes)
            for d in tensor.shape.dim
        ]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        arrays[value.name] = rng.integers(0, 3, shape).astype(dtype)
    return arrays


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


# name: (inputs, body, dims that are solved, guards)
EQUATIONS = {
    "matmul solves for a dim": (
        "float[n, m] x, float[k, 4] w",
        "y = MatMul(x, w)",
        {"k": "m"},
        [],
    ),
    "concat solves for a dim": (
        "float[n, m] x, float[k, 4] w",
        "y = Concat<axis=1>(x, w)",
        {"k": "n"},
        [],
    ),
    "a broadcast solves for a dim": (
        "float[n, m] x, float[n, k] w",
        "y = Add(x, w)",
        {"k": "m"},
        [],
    ),
    "a broadcast with 1 solves nothing": ("float[n, m] x, float[n, 1] w", "y = Add(x, w)", {}, []),
    "a named dim is kept rather than an unnamed one": (
        "float[n, ?] x, float[n, m] w",
        "y = Add(x, w)",
        {"x_1": "m"},
        [],
    ),
    "a sum is solved for the dim that needs no minus": (
        "float[n, past] x, float[n, seq] z, float[n, total] w",
        "c = Concat<axis=1>(x, z) y = Add(c, w)",
        {"total": "past + seq"},
        [],
    ),
    "the total of a reshape": (
        "float[n, m] x, float[k, 2, 3] w",
        "s = Shape(w) y = Reshape(x, s)",
        {},
        ["m*n == 6*k"],
    ),
    "a dim that must be a multiple": (
        "float[n, m] x",
        "s = Constant<value_ints=[0, -1, 4]>() y = Reshape(x, s)",
        {},
        ["4 divides m"],
    ),
    "a slice that must be whole": (
        "float[n, m] x",
        """b = Constant<value_ints=[0]>() e = Constant<value_ints=[512]>()
        a = Constant<value_ints=[1]>() z = Slice(x, b, e, a) y = Add(x, z)""",
        {},
        ["m <= 512"],
    ),
    "an average of halves that must be whole": (
        "float[n, 1, h, w] x",
        """p = AveragePool<kernel_shape=[2, 2], strides=[2, 2]>(x)
        s = Constant<value_floats=[1.0, 1.0, 2.0, 2.0]>() q = Resize(p, , s) y = Add(x, q)""",
        {},
        ["h >= 2", "w >= 2", "2 divides h", "2 divides w"],
    ),
    "a dim that is used as 4 must be 4": (
        "float[n, m] x, float[4] w",
        "y = Add(x, w)",
        {"m": "4"},
        [],
    ),
    "an empty slice is not meant": (
        "float[n, m] x",
        """b = Constant<value_ints=[1]>() e = Constant<value_ints=[9999999999]>()
        a = Constant<value_ints=[1]>() y = Slice(x, b, e, a)""",
        {},
        ["m >= 1"],
    ),
    "a squeeze of every 1": ("float[n, 1, m] x", "y = Squeeze(x)", {}, ["m >= 2", "n >= 2"]),
    "a slice that begins inside": (
        "float[n, m] x",
        """b = Constant<value_ints=[2]>() e = Constant<value_ints=[4]>()
        a = Constant<value_ints=[1]>() y = Slice(x, b, e, a)""",
        {},
        ["m >= 2"],
    ),
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_equation(name):
    inputs, body, solved, guards = EQUATIONS[name]
    shapes = infer(graph(13, inputs, body))
    assert {dim: str(size) for dim, size in shapes.solved.items()} == solved
    assert sorted(map(str, shapes.guards)) == sorted(guards)
    assert solved.keys().isdisjoint(shapes.dims)


def test_exact_halves_are_one_size():
    """With 4 | h, h/2 and 2*(h/4) are one expression: Relax need not decide that they are equal."""
    model = graph(
        13,
        "float[n, 1, h, 4] x",
        """a = MaxPool<kernel_shape=[2, 1], strides=[2, 1]>(x)
        b = MaxPool<kernel_shape=[2, 1], strides=[2, 1]>(a)
        s = Constant<value_floats=[1.0, 1.0, 2.0, 1.0]>() c = Resize(b, , s) d = Add(a, c)
        e = Resize(d, , s) y = Add(x, e)""",
    )
    shapes = infer(model)
    assert shapes.values["a"].shape == shapes.values["c"].shape == shapes.values["d"].shape
    assert shapes.values["e"].shape == shapes.values["x"].shape
    assert "4 divides h" in map(str, shapes.guards)
    assert differences(shapes, model, draw(model, {"n": 2, "h": 12})) == []


def test_sizes_that_only_the_run_knows():
    model = graph(13, "float[n, m] x", "i = NonZero(x) j = Transpose(i) y = Cast<to=1>(j)")
    shapes = infer(model)
    assert not shapes.is_known("y")
    (name,) = shapes.unknown
    assert shapes.unknown[name] == ("i", 1)
    assert shapes.values["y"].shape == (parse(name), 2)
    assert shapes.guards == ()


@pytest.mark.parametrize(
    "body",
    [
        "s = Constant<value_floats=[1.0, 0.7]>() y = Resize(x, , s)",
        """s = Shape(x) f = Cast<to=1>(s) c = Constant<value_float=0.1>() g = Mul(f, c)
        h = Floor(g) i = Cast<to=7>(h) y = ConstantOfShape(i)""",
        """s = Constant<value_ints=[200]>() a = Cast<to=2>(s) b = Add(a, a) i = Cast<to=7>(b)
        y = ConstantOfShape(i)""",
    ],
)
def test_what_floats_round_and_bytes_wrap_is_not_known(body):
    shapes = infer(graph(13, "float[n, m] x", body))
    assert not shapes.is_known("y")


def test_sizes_that_are_data_are_not_taken_from_empty_scales():
    body = "e = Constant<value=float[0] {}>() y = Resize(x, e, e, s)"
    shapes = infer(graph(13, "float[n, m] x, int64[2] s", body))
    assert set(shapes.unknown.values()) == {("y", 0), ("y", 1)}


@pytest.mark.parametrize(
    ("inputs", "known", "unknown"),
    [
        ("int64[1] s, int64[1] e, int64[1] a", [], [0, 1, 2]),
        ("int64[1] s, int64[1] e", [1, 2], [0]),
        ("int64[2] s, int64[2] e", [2], [0, 1]),
    ],
)
def test_slice_by_data(inputs, known, unknown):
    names = ", ".join(part.split()[1] for part in inputs.split(", "))
    shapes = infer(graph(13, f"float[n, m, k] x, {inputs}", f"y = Slice(x, {names})"))
    value = shapes.values["y"]
    assert [value.shape[k] for k in known] == [shapes.values["x"].shape[k] for k in known]
    assert sorted(shapes.unknown.values()) == [("y", k) for k in unknown]
    assert len({str(value.shape[k]) for k in unknown}) == len(unknown)


def test_an_unknown_rank_is_no_shape():
    shapes = infer(graph(13, "float[n] x, int64[k] s", "y = Reshape(x, s)"))
    assert shapes.values["y"].shape is None
    assert not shapes.is_known("y")


def test_an_operator_that_nobody_knows():
    model = graph(13, "float[n, m] x", "z = Mystery(x) y = Relu(x)")
    assert infer(model).values["z"].shape is None


def test_an_operator_of_another_domain_is_not_taken_for_onnx():
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13, "acme" : 1]>
        g (float[n] x) => (float y) { y = acme.Relu(x) }"""
    )
    assert infer(model).values["y"].shape is None


@pytest.mark.parametrize(
    ("inputs", "body", "where"),
    [
        ("float[n, 4] x, float[5, 3] w", "y = MatMul(x, w)", "MatMul 'y' needs 4 == 5"),
        ("float[n, 4] x, float[n, 3] w", "y = Add(x, w)", "Add 'y' needs 4 == 3"),
        (
            "float[2, 3] x",
            "s = Constant<value_ints=[4, -1]>() y = Reshape(x, s)",
            "Reshape 'y' needs 4 divides 6",
        ),
    ],
)
def test_a_model_that_contradicts_itself_names_the_node(inputs, body, where):
    with pytest.raises(ModelError, match=where):
        infer(graph(13, inputs, body))


@pytest.mark.parametrize(
    ("inputs", "body"),
    [
        ("float[n, 4] x, float[n] w", "y = Concat<axis=0>(x, w)"),
        ("float[n, 4] x", "y = Transpose<perm=[0, 2]>(x)"),
        ("float[n] x, float[n, 4] w", "y = Conv(x, w)"),
        ("float[n, 4, 4, 4] x", "y = MaxPool(x)"),
    ],
)
def test_a_node_that_cannot_take_its_inputs_is_named(inputs, body):
    with pytest.raises(
        ModelError, match=r"(Concat|Transpose|Conv|MaxPool) 'y' cannot take float32"
    ):
        infer(graph(13, inputs, body))


def test_a_branch_is_not_entered():
    model = graph(
        13,
        "bool c, float[n, 4] x",
        """y = If<then_branch = t () => (float[n, 4] a) { a = Relu(x) },
                else_branch = e () => (float[n, 4] b) { b = Neg(x) }>(c)""",
    )
    value = infer(model).values["y"]
    assert value.dtype == "float32"
    assert value.shape is not None
    assert value.shape[1] == 4


def test_a_given_size_that_contradicts_the_model_is_the_users_mistake():
    model = graph(13, "float[n, m] x, float[k, 3] w", "y = MatMul(x, w)")
    assert infer(model, {"m": 4}).solved == {"m": 4, "k": 4}
    with pytest.raises(DimError, match="MatMul 'y' needs 4 == 5"):
        infer(model, {"m": 4, "k": 5})
    with pytest.raises(DimError, match="MatMul 'y'"):
        infer(model, {"m": 4, "k": (8, 16)})


def test_the_range_of_a_dim_that_is_solved_moves_to_the_one_that_is_left():
    model = graph(13, "float[n, m] x, float[k, 3] w", "y = MatMul(x, w)")
    shapes = infer(model, {"k": (2, 64)})
    assert shapes.dims["m"].range == "2:64"


@pytest.mark.parametrize(
    ("dim", "name", "label"),
    [
        ("batch", "batch", "batch"),
        ("unk::1", "unk_1", "unk::1"),
        ("batch-size", "batch_size", "batch-size"),
        ("2d", "dim_2d", "2d"),
        ("lambda", "dim_lambda", "lambda"),
        ("", "x_0", "x_0"),
        ("_u0", "u0", "_u0"),
    ],
)
def test_names_of_dims(dim, name, label):
    model = graph(13, "float[n, 4] x", "y = Relu(x)")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = dim
    shapes = infer(model)
    assert [(d.name, d.title) for d in shapes.dims.values()] == [(name, label)]
    assert infer(model, {label: 3}).values["y"].shape == (3, 4)


def test_an_expression_over_named_dims_is_one():
    model = graph(13, "float[past] a, float[seq] b, float[t] c", "y = Concat<axis=0>(a, b)")
    dim = model.graph.input[2].type.tensor_type.shape.dim[0]
    dim.dim_param = "past + seq"
    assert str(infer(model).values["c"].shape[0]) == "past + seq"
    dim.dim_param = "past + other"
    assert str(infer(model).values["c"].shape[0]) == "past_other"
