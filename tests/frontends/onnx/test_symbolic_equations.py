"""What symbolic propagation learns about dims, what it leaves to the run, and what it refuses."""

from __future__ import annotations

import onnx
import pytest

from tests.frontends.onnx.graphs import draw, graph
from tests.frontends.onnx.oracle import differences
from tvmext.errors import DimError, ModelError
from tvmext.frontends.dims import parse
from tvmext.frontends.onnx.symbolic import infer

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


@pytest.mark.parametrize(
    ("body", "guarded"),
    [
        ("q = Div(c, b) i = Concat<axis=0>(q, b) y = ConstantOfShape(i)", True),
        ("q = Mod(c, b) r = Div(q, two) y = ConstantOfShape(r)", True),
        ("d = Mul(b, two) q = Div(d, b) y = ConstantOfShape(q)", False),
    ],
)
def test_no_size_divides_by_zero(body, guarded):
    constants = "i0 = Constant<value_ints=[0]>() c = Constant<value_ints=[12]>()"
    two = "two = Constant<value_ints=[2]>()"
    shapes = infer(
        graph(13, "float[n] x", f"{constants} {two} s = Shape(x) b = Gather(s, i0) {body}")
    )
    assert ("n >= 1" in map(str, shapes.guards)) == guarded
    assert shapes.dims["n"].low == guarded


@pytest.mark.parametrize(
    ("inputs", "body", "guards"),
    [
        ("float[n] x", "p = Constant<value_ints=[-2, -3]>() y = Pad(x, p)", ["n >= 5"]),
        ("float[n] x", "p = Constant<value_ints=[-2, 2]>() y = Pad(x, p)", []),
        (
            "float[n] x, float[m] z",
            "p = Constant<value_ints=[-5, 0]>() c = Concat<axis=0>(x, z) y = Pad(c, p)",
            ["m + n >= 5"],
        ),
        (
            "float[1, 1, h, 4] x, float[1, 1, 3, 3] w",
            "y = ConvTranspose<pads=[3, 1, 3, 1]>(x, w)",
            ["h >= 4"],
        ),
    ],
)
def test_no_size_is_negative(inputs, body, guards):
    assert list(map(str, infer(graph(13, inputs, body)).guards)) == guards


@pytest.mark.parametrize(
    ("inputs", "body", "guards"),
    [
        ("float[n] x, int64[3] i", "y = Gather(x, i)", ["n >= 1"]),
        ("float[n] x, int64[0] i", "y = Gather(x, i)", []),
        ("float[n] x", "i = Constant<value_ints=[2, -5]>() y = Gather(x, i)", ["n >= 5"]),
        ("float[7] x, int64[k] i", "y = Gather(x, i)", []),
    ],
)
def test_an_index_needs_something_to_point_at(inputs, body, guards):
    assert list(map(str, infer(graph(13, inputs, body)).guards)) == guards


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
