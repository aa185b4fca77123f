"""Symbolic rules of ai.onnx.ml's operators that have converters."""

from __future__ import annotations

from collections.abc import Callable

from .symbolic_node import Node, Value


def _trees(node: Node) -> Value | None:
    """y[rows, targets]"""
    shape = node.shape()
    if shape is None or len(shape) != 2:
        return None
    dtype = node.dtype() if node.op_type == "TreeEnsemble" else "float32"
    return node.value(dtype, (shape[0], node.attr("n_targets", 1)))


RULES: dict[str, Callable[[Node], Value | list[Value] | None]] = {
    "TreeEnsemble": _trees,
    "TreeEnsembleRegressor": _trees,
}
