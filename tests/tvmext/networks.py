"""Small ONNX networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, list[Any]]],
    outputs: Mapping[str, tuple[int, list[Any]]],
    weights: Mapping[str, np.ndarray],
) -> ModelProto:
    def values(specs: Mapping[str, tuple[int, list[Any]]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, *spec) for name, spec in specs.items()]

    graph = helper.make_graph(
        nodes,
        "network",
        values(inputs),
        values(outputs),
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def network() -> ModelProto:
    """ids -> embedding -> Add -> Relu -> MatMul: y, and the sum before it: s."""
    rng = np.random.default_rng(0)
    return model_of(
        [
            helper.make_node("Gather", ["table", "ids"], ["embedded"], name="embed"),
            helper.make_node("Add", ["embedded", "bias"], ["s"], name="shift"),
            helper.make_node("Relu", ["s"], ["positive"], name="relu"),
            helper.make_node("MatMul", ["positive", "weight"], ["y"], name="project"),
        ],
        {"ids": (INT64, ["batch"])},
        {"y": (FLOAT, ["batch", 4]), "s": (FLOAT, ["batch", 8])},
        {
            "table": rng.standard_normal((50, 8), dtype=np.float32),
            "bias": np.full(8, 0.5, np.float32),
            "weight": rng.standard_normal((8, 4), dtype=np.float32),
        },
    )


def broken(model: ModelProto) -> ModelProto:
    """The same with Abs where Relu was."""
    changed = ModelProto()
    changed.CopyFrom(model)
    for node in changed.graph.node:
        if node.op_type == "Relu":
            node.op_type = "Abs"
    return changed
