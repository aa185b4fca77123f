"""What converters refuse: the error names the node and says why."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.frontends.onnx.stock import one_node
from tvmext.errors import UnsupportedError
from tvmext.frontends import load

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 4)).astype(np.float32)
IMAGE = RNG.standard_normal((2, 3, 7, 6)).astype(np.float32)


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


DECLINED = {
    "data-dependent size": ("NonZero", [X], {}, "depends on data"),
    "training": (
        "BatchNormalization",
        [IMAGE, *[np.abs(floats(3)) for _ in range(4)]],
        {"training_mode": 1, "outputs": 3},
        "training",
    ),
    "more than there are": (
        "TopK",
        [X],
        {"constants": {1: np.int64([5])}, "outputs": 2},
        "k is 5, of 4 elements",
    ),
}


@pytest.mark.parametrize("name", DECLINED)
def test_declined_with_a_reason(name):
    op, arrays, options, reason = DECLINED[name]
    proto, _ = one_node(op, arrays, **options)
    with pytest.raises(UnsupportedError) as caught:
        load(proto)
    (unsupported,) = caught.value.ops
    assert (unsupported.op_type, unsupported.node) == (op, "the_node")
    assert reason in unsupported.reason


def test_an_if_that_the_run_decides():
    branch = helper.make_graph(
        [helper.make_node("Exp", ["x"], ["t"])],
        "branch",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, [2])],
    )
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], "choice", then_branch=branch, else_branch=branch)],
        "graph",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with pytest.raises(UnsupportedError, match="'choice': its condition is known only at run time"):
        load(proto)
