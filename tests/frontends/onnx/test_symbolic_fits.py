"""Dims of operands that a kernel walks together: those with names are solved, others refused."""

from __future__ import annotations

import pytest
from onnx import TensorProto

from tests.frontends.onnx.broken import model, node, value
from tvmext.errors import ModelError
from tvmext.frontends import load

X = (2, 3, 4, 4)
GATES = {"LSTM": 16, "GRU": 12, "RNN": 4}
INTEGERS = {
    ("OneHot", 0), ("OneHot", 1), ("RoiAlign", 2), ("MaxUnpool", 1), ("ReverseSequence", 1),
    ("TensorScatter", 2),
}  # fmt: skip
CASES = {
    "BatchNormalization": ([X, (3,), (3,), (3,), (3,)], {}),
    "Conv": ([X, (5, 3, 2, 2), (5,)], {}),
    "ConvTranspose": ([X, (3, 5, 2, 2), (5,)], {}),
    "DeformConv": ([X, (5, 3, 2, 2), (2, 8, 3, 3), (5,), (2, 4, 3, 3)], {}),
    "Gemm": ([(2, 3), (3, 4), (4,)], {}),
    "GridSample": ([X, (2, 2, 2, 2)], {}),
    "GroupNormalization": ([X, (3,), (3,)], {"num_groups": 3}),
    "InstanceNormalization": ([X, (3,), (3,)], {}),
    "LayerNormalization": ([X, (4,), (4,)], {}),
    "MaxRoiPool": ([X, (6, 5)], {"pooled_shape": [2, 2]}),
    "MaxUnpool": ([(1, 1, 2, 2), (1, 1, 2, 2)], {"kernel_shape": [2, 2]}),
    "OneHot": ([(3,), (), (2,)], {}),
    "QuantizeLinear": ([X, (3,)], {}),
    "Range": ([(1,), (1,), (1,)], {}),
    "RMSNormalization": ([X, (4,)], {}),
    "ReverseSequence": ([(4, 5), (5,)], {}),
    "RoiAlign": ([X, (6, 4), (6,)], {}),
    "TensorScatter": ([(2, 4, 8, 5), (2, 4, 2, 5), (2,)], {}),
    **{
        op: ([(5, 2, 3), (1, gates, 3), (1, gates, 4), (1, 2 * gates)], {"hidden_size": 4})
        for op, gates in GATES.items()
    },
}


def of(op, shapes, attributes):
    kinds = [TensorProto.INT64 if (op, k) in INTEGERS else 1 for k in range(len(shapes))]
    inputs = [value(f"x{k}", shape, kind) for k, (shape, kind) in enumerate(zip(shapes, kinds))]
    names = [one.name for one in inputs]
    return model([node(op, names, **attributes)], inputs=inputs, opset=24)


def changed(shapes, at, axis, size):
    dims = [*shapes[at][:axis], size, *shapes[at][axis + 1 :]]
    return [*shapes[:at], dims, *shapes[at + 1 :]]


@pytest.mark.parametrize("op", [op for op in CASES if op != "MaxRoiPool"])
def test_operands_that_do_not_fit(op):
    shapes, attributes = CASES[op]
    assert load(of(op, shapes, attributes)).dims == {}
    last = len(shapes) - 1
    assert load(of(op, changed(shapes, last, 0, "n"), attributes)).dims == {}
    with pytest.raises(ModelError, match=f"{op} 'node_y' needs"):
        load(of(op, changed(shapes, last, 0, 7), attributes))


@pytest.mark.parametrize(
    ("op", "at", "axis"),
    [("GridSample", 1, 3), ("DeformConv", 2, 1), ("DeformConv", 2, 3), ("DeformConv", 4, 1),
     ("MaxRoiPool", 1, 1), ("MaxUnpool", 1, 3), ("RoiAlign", 1, 1), ("TensorScatter", 1, 1),
     ("LSTM", 1, 2), ("LSTM", 2, 1), ("LSTM", 3, 1)],
)  # fmt: skip
def test_dims_that_only_one_operand_names(op, at, axis):
    shapes, attributes = CASES[op]
    assert load(of(op, changed(shapes, at, axis, "n"), attributes)).dims == {}


@pytest.mark.parametrize("scale", [(2, 3, 4, 4), (2, 3), (2, 1, 4, 4)])
def test_a_scale_per_element_without_blocks(scale):
    with pytest.raises(ModelError, match="QuantizeLinear 'node_y' cannot take"):
        load(of("QuantizeLinear", [X, scale], {}))


def test_a_scale_per_block():
    shapes = [(2, 8, 4), (2, "n", 4)]
    assert load(of("QuantizeLinear", shapes, {"axis": 1, "block_size": 4})).dims == {}
    with pytest.raises(ModelError, match="QuantizeLinear 'node_y' needs 3 == 2"):
        load(of("QuantizeLinear", [(2, 8, 4), (2, 3, 4)], {"axis": 1, "block_size": 4}))
