"""Tiny ONNX models for tests of the command line, sound and broken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Shape = Sequence[int | str | None]
WEIGHT = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


def model(
    nodes: Sequence[NodeProto],
    inputs: dict[str, Shape],
    outputs: dict[str, Shape],
    weights: dict[str, np.ndarray] | None = None,
    opset: int = 17,
    **domains: int,
) -> ModelProto:
    """A float32 model of the given nodes."""
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(a, n) for n, a in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    opsets += [helper.make_opsetid(name.replace("_", "."), v) for name, v in domains.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def linear(batch: int | str = "batch", weight: np.ndarray = WEIGHT) -> ModelProto:
    """y = relu(x @ w), x: [batch, 4], y: [batch, 3]."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="project"),
        helper.make_node("Relu", ["h"], ["y"], name="activate"),
    ]
    return model(nodes, {"x": [batch, 4]}, {"y": [batch, 3]}, {"w": weight})


def moving() -> ModelProto:
    """y = softmax(exp(softmax(x).T)), x: [batch, 4]; "swap" is the node that only moves data."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["a"], name="first"),
        helper.make_node("Transpose", ["a"], ["b"], name="swap", perm=[1, 0]),
        helper.make_node("Exp", ["b"], ["c"], name="grow"),
        helper.make_node("Softmax", ["c"], ["y"], name="last"),
    ]
    return model(nodes, {"x": ["batch", 4]}, {"y": [4, "batch"]})


def truncated(path: Path) -> None:
    path.write_bytes(linear().SerializeToString()[:-40])


def random_bytes(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(4096))


def empty_file(path: Path) -> None:
    path.write_bytes(b"")


def empty_graph(path: Path) -> None:
    path.write_bytes(model([], {}, {}).SerializeToString())


def unknown_operator(path: Path) -> None:
    node = helper.make_node("Frobnicate", ["x"], ["y"], name="middle", domain="com.example")
    net = model([node], {"x": [2]}, {"y": [2]}, com_example=1)
    path.write_bytes(net.SerializeToString())


def cycle(path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="second"),
    ]
    path.write_bytes(model(nodes, {"x": [2]}, {"b": [2]}).SerializeToString())


def wrong_reduction(path: Path) -> None:
    """What a converter refuses, in the middle of a function."""
    nodes = [helper.make_node("ScatterElements", ["x", "i", "x"], ["y"], "put", reduction="avg")]
    net = model(nodes, {"x": [2]}, {"y": [2]}, {"i": np.array([0, 1])})
    path.write_bytes(net.SerializeToString())


def wrong_opset(path: Path) -> None:
    net = linear()
    net.opset_import[0].version = 999
    path.write_bytes(net.SerializeToString())


def data_outside_the_folder(path: Path) -> None:
    path.write_bytes(_with_external_data("../../etc/passwd").SerializeToString())


def missing_weights(path: Path) -> None:
    path.write_bytes(_with_external_data("weights.bin").SerializeToString())


def negative_dim(path: Path) -> None:
    path.write_bytes(linear(batch=-3).SerializeToString())


def _with_external_data(location: str) -> ModelProto:
    net = linear()
    weight = net.graph.initializer[0]
    size = len(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
        weight.external_data.add(key=key, value=value)
    return net


BROKEN: dict[Callable[[Path], None], tuple[int, str]] = {
    truncated: (2, "not an ONNX model"),
    random_bytes: (2, "not an ONNX model"),
    empty_file: (2, "holds no graph"),
    empty_graph: (2, "holds no graph"),
    unknown_operator: (3, r"com\.example::Frobnicate .* node 'middle'"),
    cycle: (2, "cycle: .*first"),
    wrong_reduction: (2, "'put' has the reduction 'avg'"),
    wrong_opset: (2, "version 999"),
    data_outside_the_folder: (2, r"'\.\./\.\./etc/passwd', outside the model's folder"),
    missing_weights: (2, r"weights\.bin"),
    negative_dim: (2, "negative dim -3"),
}
"""{writer of the file: (exit code, pattern of the message)}"""
