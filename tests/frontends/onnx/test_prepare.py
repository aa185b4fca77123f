"""Preparation: the same network with less in it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from tests.frontends.onnx.stock import assert_matches, run
from tvmext.errors import ModelError, UnsupportedError
from tvmext.frontends import load
from tvmext.frontends.onnx import driver, prepare, scalars, symbolic
from tvmext.frontends.onnx.load import load as load_source

HEADER = '<ir_version: 10, opset_import: ["" : 20, "own" : 1]>\n'


def parse(text: str) -> ModelProto:
    return parser.parse_model(HEADER + text)


def prepared(text: str) -> prepare.Prepared:
    return prepare.prepare(load_source(parse(text)), driver.operators())


def operators(result: prepare.Prepared) -> Counter[str]:
    return Counter(node.op_type for node in result.model.graph.node)


def test_constants_are_folded():
    result = prepared("""
        main (float[2, 3] x) => (float[2, 3] y)
        <float[3, 2] w = {1, 2, 3, 4, 5, 6}, float two = {2}>
        {
            t = Transpose(w)
            s = Mul(t, two)
            y = Add(x, s)
        }""")
    assert operators(result) == {"Add": 1}
    np.testing.assert_array_equal(result.constants["s"], [[2, 6, 10], [4, 8, 12]])
    assert result.constants.keys() == {"s"}


def test_moves_of_large_weights_stay_views():
    weight = np.zeros((1 << 12, 1 << 12), np.float32)
    proto = parse(
        "main (float[1, 4096] x) => (y) { i = Identity(w)  t = Transpose(i) y = MatMul(x, t) }"
    )
    proto.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    source = load_source(proto)
    result = prepare.prepare(source, driver.operators())
    assert np.shares_memory(result.constants["t"], source.constants["w"])


def test_nothing_random_or_huge_is_folded():
    result = prepared("""
        main (float[1] x) => (y, r)
        <int64[2] dims = {1048576, 1048576}>
        {
            c = ConstantOfShape(dims)
            y = Add(x, c)
            r = RandomUniform <shape = [2]> ()
        }""")
    assert operators(result) == {"ConstantOfShape": 1, "Add": 1, "RandomUniform": 1}


def test_dead_nodes_and_weights_go():
    result = prepared("""
        main (float[2] x) => (y) <float[2] w = {1, 2}>
        { dead = Add(x, w)  y = Relu(x)  deader = Exp(dead) }""")
    assert operators(result) == {"Relu": 1}
    assert not result.constants


def test_nodes_are_sorted():
    proto = parse("main (float[2] x) => (y) { a = Exp(x)  b = Neg(a)  y = Relu(b) }")
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    result = prepare.prepare(load_source(proto), driver.operators())
    assert [node.op_type for node in result.model.graph.node] == ["Exp", "Neg", "Relu"]


FUNCTION = """
    main (float[N, 3] x) => (y) { a = own.twice (x)  y = own.twice (a) }
    <domain: "own", opset_import: ["" : 20]>
    twice (x) => (y) { two = Constant <value_float: float = 2.0> ()  y = Mul(x, two) }
"""


@pytest.mark.parametrize("op", ["ConstantOfShape (w)", "Expand (x, w)", "Tile (x, w)"])
def test_sizes_in_a_matrix_are_not_folded(op):
    weights = "<float[2] x = {1, 1}, int64[2, 2] w = {1, 1, 1, 1}>"
    result = prepared("main () => (y) " + weights + "{ y = " + op + "}")
    assert operators(result) == {op.split()[0]: 1}


def test_a_reshape_of_the_first_operator_set_beside_a_small_input():
    proto = parse("main (float[2, 3] x, int64[1] k) => (y) { y = Reshape <shape = [3, 2]> (x) }")
    proto.opset_import[0].version = 1
    assert load(proto).outputs[0].shape == (3, 2)


def test_local_functions_are_inlined():
    result = prepared(FUNCTION)
    assert operators(result) == {"Mul": 2}
    proto = parse(FUNCTION)
    assert_matches(load(proto), proto, {"x": np.ones((4, 3), np.float32)})


def test_a_function_that_a_graph_of_its_node_leaves_incomplete():
    """The graph has an output that nothing in it computes, so that the body misses a value."""
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["B", "H", "L", "S"])
    other = helper.make_tensor_value_info("K", TensorProto.FLOAT, [1, 2, 4, 8])
    scaled = helper.make_node("Tanh", ["scores"], ["scaled"])
    body = helper.make_graph([scaled], "score_mod", [scores], [other])
    node = helper.make_node(
        "FlexAttention", ["Q", "K", "V"], ["Y"], domain="ai.onnx.preview", score_mod=body
    )
    shape = TensorProto.FLOAT, [1, 2, 4, 8]
    inputs = [helper.make_tensor_value_info(name, *shape) for name in "QKV"]
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("Y", *shape)])
    opsets = [helper.make_opsetid("", 24), helper.make_opsetid("ai.onnx.preview", 1)]
    proto = helper.make_model(graph, opset_imports=opsets)
    with pytest.raises(UnsupportedError, match="FlexAttention"):
        load(proto)


BRANCHES = """
    y = If (c) <
        then_branch = then_graph () => (float[2] t) { one = Exp(x) t = Neg(one) },
        else_branch = else_graph () => (float[2] e) { one = Abs(x) e = Sqrt(one) }
    >
"""


def test_an_if_with_a_constant_condition_is_inlined():
    result = prepared(
        "main (float[2] x) => (y) <bool c = {1}> {" + BRANCHES + "}",
    )
    assert operators(result) == {"Exp": 1, "Neg": 1, "Identity": 1}


def test_a_condition_without_elements_is_none():
    with pytest.raises(ModelError, match=r"of node '.*' has 0 elements"):
        prepared("main (float[2] x) => (y) <bool[0] c = {}> {" + BRANCHES + "}")


def test_an_if_that_the_sizes_decide_is_inlined():
    condition = """n = Shape(z)  b = Greater(n, limit)
        axes = Constant <value_ints: ints = [0]> ()  c = Squeeze(b, axes)"""
    proto = parse(
        "main (float[2] x, float[N] z) => (y) <int64[1] limit = {4}> {" + condition + BRANCHES + "}"
    )
    for size in (3, 9):
        model = load(proto, {"N": size})
        feeds = {"x": np.float32([4, 9]), "z": np.zeros(size, np.float32)}
        (want,) = ReferenceEvaluator(proto).run(None, feeds)
        np.testing.assert_allclose(run(model, feeds)[0], want, rtol=1e-5)


def test_equal_nodes_find_once():
    """Also behind others that are equal; not of what is random."""
    result = prepared("""
        main (float[4] x) => (int64[1, n] a, int64[1, m] b, int64[1, k] c, int64[1, j] d)
        {
            p = Relu(x)  q = Relu(x)  r = RandomNormalLike(x)  s = RandomNormalLike(x)
            a = NonZero(p)  v = NonZero(q)  b = Neg(v)  c = NonZero(r)  d = NonZero(s)
        }""")
    assert operators(result)["NonZero"] == 3
    assert operators(result)["Identity"] == 1


def test_captured_names_keep_their_scope():
    """Both branches name a value `one`, as does nothing outside: no clash after inlining."""
    text = (
        "main (float[2] x) => (z) <bool c = {0}> {" + BRANCHES + " one = Neg(y) z = Add(one, y) }"
    )
    proto = parse(text)
    assert_matches(load(proto), proto, {"x": np.float32([4, 9])})


def test_large_constants_are_typed_inputs_of_the_graph():
    weight = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[64, 64], raw_data=bytes(16384)
    )
    proto = parse("main (float[64] x) => (y) { y = MatMul(x, w) }")
    proto.graph.initializer.append(weight)
    result = prepare.prepare(load_source(proto), driver.operators())
    assert [value.name for value in result.model.graph.input] == ["x", "w"]
    assert result.inputs == ("x",)
    assert result.model.ByteSize() < 1000


class TestScalars:
    """Sizes that are elements of inputs."""

    text = """
        main (float[8] x, int64[1] position, int64[1] other) => (y, o)
        <int64[1] zero = {0}, int64[1] one = {1}>
        { end = Add(position, one)  y = Slice(x, zero, end, zero)  o = Neg(other) }"""

    def test_only_what_reaches_a_shape_operand_is_one(self):
        assert list(scalars.find(prepared(self.text))) == ["position"]

    def test_dims_behind_it_are_symbolic(self):
        result = prepared(self.text)
        shapes = symbolic.infer(result.model, {}, scalars.find(result))
        assert str(shapes.values["y"].shape[0]) == "min(7, position_value0) + 1"


def test_checker_accepts_what_is_prepared():
    result = prepared("main (float[N, 2] x) => (float[N, 2] y) { a = Relu(x)  y = Exp(a) }")
    onnx.checker.check_model(result.model)
