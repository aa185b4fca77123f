"""Models that break a rule of ONNX: each gives an error that says what, where and what to try."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from tests.frontends.onnx.broken import (
    body,
    calling,
    external,
    in_function,
    looping,
    loops,
    model,
    node,
    referring,
    value,
    weight,
    with_sparse,
    with_weight,
)
from tvmext.errors import ModelError, UnsupportedError
from tvmext.frontends import load

BAD_MODELS = {
    "empty proto": (ModelProto(), "holds no graph"),
    "empty graph": (model([], inputs=[], outputs=[]), "holds no graph"),
    "no outputs": (model([node()], outputs=[]), "has no outputs"),
    "opset 0": (model([node()], opset=0), "version 0"),
    "opset from the future": (model([node()], opset=10**9), "version 1000000000"),
    "no opset": (
        helper.make_model(model([node()]).graph, opset_imports=[helper.make_opsetid("a.b", 1)]),
        "which operator set",
    ),
    "negative opset": (model([node()], opset=-5), "version -5"),
    "negative dim of an input": (model([node()], inputs=[value("x", [2, -3])]), "negative dim -3"),
    "negative dim of a weight": (with_weight(weight(dims=[-2, -3])), "negative dim"),
    "input without a type": (
        model([node()], inputs=[onnx.ValueInfoProto(name="x")]),
        "not a tensor",
    ),
    "input without a rank": (model([node()], inputs=[value("x", None)]), "no shape"),
    "cycle": (
        model([node("Add", ("x", "b"), ("a",)), node("Relu", ("a",), ("b",)), node(inputs=("b",))]),
        "cycle: node_a <- node_b <- node_a",
    ),
    "a node that reads itself": (model([node("Add", ("x", "y"))]), "cycle: node_y <- node_y"),
    "missing input of a node": (model([node("Add", ("x", "w"))]), "'node_y' (Add) reads 'w'"),
    "output that nothing computes": (model([node(outputs=("z",))]), "computes the output 'y'"),
    "two nodes of one name of value": (model([node(), node("Exp")]), "defines 'y' twice"),
    "an output named as an input": (model([node(outputs=("x",)), node()]), "defines 'x' twice"),
    "two weights of one name": (
        model([node("Add", ("x", "w"))], weights=[weight(), weight()]),
        "two initializers named 'w'",
    ),
    "too few inputs": (model([node("Add")]), "node 'node_y' (Add) is not valid"),
    "unknown attribute": (model([node(color="blue")]), "node 'node_y' (Relu) is not valid"),
    "terabyte of dims": (with_weight(weight(dims=[1 << 20, 1 << 18])), "holds 24"),
    "dims beyond 64 bits": (with_weight(weight(dims=[1 << 40] * 4)), "holds 24"),
    "too little data": (with_weight(weight(raw_data=b"1234")), "need 24 bytes, but it holds 4"),
    "unknown data type": (with_weight(weight(data_type=99)), "unknown data type 99"),
    "IR from the future": (model([node()], ir=1 << 40), "version 1099511627776 of IR"),
    "input without a name": (model([node()], inputs=[value("", [2])]), "without a name"),
    "a needed input left out": (model([node("Sum", ("x", ""))]), "one of its inputs 'data_0'"),
    "a dim that no memory holds": (model([node()], inputs=[value("x", [1 << 40])]), "no memory"),
    "dims that no memory holds": (model([node()], inputs=[value("x", [1 << 30] * 2)]), "no memory"),
    "two hundred dims": (model([node()], inputs=[value("x", [1] * 200)]), "200 dims"),
    "an attribute of a function": (model([referring()]), "takes 'alpha' from a function"),
    "If without a branch": (
        model([node("If", ("x",), then_branch=body(1))], inputs=[value("x", [], 9)]),
        "attribute 'else_branch' is missing",
    ),
    "branches of other outputs": (
        model([node("If", ("x",), then_branch=body(1), else_branch=body(2))]),
        "has a else_branch of 0 inputs and 2 outputs",
    ),
    "sparse indices outside": (with_sparse([2, 3], [7]), "do not fit dims [2, 3]"),
    "sparse indices that are no integers": (with_sparse([2, 3], [0.5], float), "do not fit"),
    "sparse without dims": (with_sparse([], [[1, 0]]), "do not fit dims []"),
    "a function that calls itself": (calling(1, "f0"), "the function 'f0' calls itself"),
    "functions in functions": (calling(500, "Relu"), "more than 64 deep"),
    "no version of another domain": (
        helper.make_model(
            model([node()]).graph,
            opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("a.b", 0)],
        ),
        "version 0 of a.b",
    ),
    "a Loop without a body in a function": (
        in_function(helper.make_node("Loop", ["a", ""], ["c"])),
        "node 'y' (Loop) is not valid",
    ),
    "a function that reads what nothing makes": (
        in_function(helper.make_node("Add", ["a", "b"], ["c"])),
        "node 'y' (Add) reads 'b'",
    ),
    "loops in loops": (loops(9), "nests loops more than 8 deep"),
    "functions that double": (calling(30, "Relu"), "more than 1048576 nodes"),
    "sparse dims around a 0": (with_sparse([0, 1 << 62, 1 << 40], []), "which no memory holds"),
    "dims around a 0": (
        with_weight(weight(dims=[0, 1 << 62, 1 << 40], raw_data=b"")),
        "which no memory holds",
    ),
    "dims of an input around a 0": (
        model([node()], inputs=[value("x", [0, 1 << 30, 1 << 30])]),
        "no memory holds",
    ),
    "a weight of 65 dims": (
        with_weight(weight(dims=[1] * 65, raw_data=bytes(4))),
        "has 65 dims",
    ),
    "a part of negative size": (
        model(
            [node("Split", ("x", "w"), ("a", "b")), node("Relu", ("a",))],
            weights=[weight(array=np.array([5, -2]))],
            inputs=[value("x", [3, 2])],
        ),
        "Split 'node_a' needs -2 >= 0",
    ),
    "more cut off than there is": (
        model([node("Pad", ("x", "w"))], weights=[weight(array=np.array([0, 0, 0, -4]))]),
        "Pad 'node_y': a tensor of dims [2, -1]; none can be negative",
    ),
    "sizes that are floats": (
        model([node("Reshape", ("x", "w"))], weights=[weight(array=np.float32([3, 2]))]),
        "Reshape 'node_y': input 1 is float32, which the operator does not take",
    ),
    "choices of two types": (
        model([node("Less", ("x", "x"), ("b",)), node("Where", ("b", "b", "x"))]),
        "Where 'node_y': input 1 is bool and input 2 float32, not of one type",
    ),
    "a type of no version": (
        model([node("MaxPool", kernel_shape=[2])], inputs=[value("x", [1, 1, 4], 9)]),
        "MaxPool 'node_y': input 0 is bool, which the operator does not take",
    ),
    "an attribute in a file": (
        model([node("ConstantOfShape", value=external(dims=[1], location="w.bin"))]),
        "attribute 'value' of node 'node_y' lies in a file",
    ),
    "a reduction that is none": (
        model(
            [node("ScatterElements", ("x", "i", "x"), reduction="avg")],
            inputs=[value("x", [3]), value("i", [3], 7)],
        ),
        "ScatterElements 'node_y' has the reduction 'avg'",
    ),
    "a type that is none": (
        model([node("BitCast", to=0)], opset=26),
        "BitCast 'node_y' cannot take float32",
    ),
    "a window of less than nothing": (
        model([node("MaxPool", kernel_shape=[-2])], inputs=[value("x", [1, 1, 8])]),
        "MaxPool 'node_y' has the kernel_shape [-2]; all have to be 1 or more",
    ),
    "a condition that is a float": (
        looping("f = Cast<to=1>(i) a = Add(v, f)", "f"),
        "the condition that its body gives is float32, not bool",
    ),
    "a value that becomes an integer": (
        looping("a = Cast<to=7>(v) d = Identity(c)", "d"),
        "what its body gives for value 0 is int64, not float32",
    ),
    "external without location": (with_weight(external(recipe="x")), "without a location"),
    "external data in memory": (with_weight(external(location="w.bin")), "given in memory"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_MODELS)
def test_bad_model(name):
    proto, message = BAD_MODELS[name]
    with pytest.raises(ModelError) as caught:
        load(proto)
    assert message in str(caught.value)
    assert caught.value.hint or "not a regular" in message


def test_unknown_operators_are_all_named():
    proto = model([
        node("Frobnicate", ("x",), ("a",)),
        helper.make_node("Twist", ["a"], ["b"], domain="my.ops", name="twist"),
        node("Relu", ("x",), ("c",)),
        helper.make_node("Twist", ["c"], ["d"], domain="my.ops", name="twist2"),
        node("Add", ("b", "d")),
    ])  # fmt: skip
    with pytest.raises(UnsupportedError) as caught:
        load(proto)
    assert [(op.op_type, op.domain, op.node) for op in caught.value.ops] == [
        ("Frobnicate", "", "node_a"),
        ("Twist", "my.ops", "twist"),
        ("Twist", "my.ops", "twist2"),
    ]
    assert str(caught.value).startswith("3 operators are not supported:\n  Frobnicate (opset ")
    assert caught.value.exit_code == 3


def test_an_input_that_is_not_supported_is_called_an_input():
    text = helper.make_tensor_value_info("x", TensorProto.STRING, ["n"])
    graph = helper.make_graph([node("Identity", ("x",))], "g", [text], [])
    graph.output.add().CopyFrom(helper.make_tensor_value_info("y", TensorProto.STRING, ["n"]))
    with pytest.raises(UnsupportedError) as caught:
        load(helper.make_model(graph))
    assert "1 value is not supported:\n  input 'x': strings are" in str(caught.value)


@pytest.mark.parametrize("op", ["Constant", "If", "Loop", "SequenceAt", "Shape"])
def test_an_operator_of_another_domain_is_none_of_ours(op):
    proto = model([helper.make_node(op, ["x"], ["y"], domain="my.ops")])
    proto.opset_import.append(helper.make_opsetid("my.ops", 1))
    with pytest.raises(UnsupportedError, match=f"my.ops::{op}"):
        load(proto)


def test_a_loop_in_a_loop_is_none_too_many():
    assert len(load(loops(2)).outputs[0].shape) == 1
