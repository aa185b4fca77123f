"""What one step of a quantization is worth in the values of an ONNX graph.

    q = QuantizeLinear(x, s, z)     a step of q is 1        round(x / s) + z
    y = DequantizeLinear(q, s, z)   a step of y is s        (q - z) * s

Where x / s is a half but for the rounding of float32, both neighbours are right, and what is
computed of either meets other halves: one such value in a million moves a third of the outputs of
a deep network, by a step or two (docs/networks.md).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import GraphProto, NodeProto, numpy_helper

STEPS = 2
"""How many of its steps a quantized value may be off."""

_KEEPING = frozenset(
    (
        *("Clip", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Relu", "Reshape"),
        *("Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    )
)
"""Operators of which no output is further off than the first input."""

Constants = Mapping[str, np.ndarray]


def steps(graph: GraphProto, constants: Constants) -> dict[str, float]:
    """{value: its step} of what a run quantizes; `constants` are weights by name."""
    values = {n.output[0]: _value(n) for n in graph.node if n.op_type == "Constant"}
    known = values | dict(constants)
    found: dict[str, float] = {}
    for node in graph.node:
        step = _step(node, found, known)
        if step is not None and 0 < step < np.inf:
            found |= dict.fromkeys(node.output, step)
    return found


def is_quantizing(node: NodeProto) -> bool:
    """Whether its output is one tensor, of integers that stand for rounded numbers."""
    return node.op_type == "QuantizeLinear" or node.op_type.startswith("QLinear")


def _step(node: NodeProto, found: Mapping[str, float], known: Constants) -> float | None:
    kind = node.op_type
    if is_quantizing(node):
        return 1.0 if kind != "QuantizeLinear" or _to_integers(node, known) else None
    if not node.input or node.input[0] not in found:
        return None
    if kind == "DequantizeLinear":
        scale = known.get(node.input[1])
        return None if scale is None else float(np.abs(scale).max(initial=0.0))
    return found[node.input[0]] if kind in _KEEPING else None


def _to_integers(node: NodeProto, known: Constants) -> bool:
    """Whether the steps of a QuantizeLinear are equal, which those of small floats are not."""
    if len(node.input) < 3 or not node.input[2]:
        return not any(attribute.name == "output_dtype" for attribute in node.attribute)
    zero = known.get(node.input[2])
    return zero is not None and zero.dtype.kind in "iu"


def _value(node: NodeProto) -> np.ndarray:
    """What a Constant is; no element where it is not one tensor or number."""
    for attribute in node.attribute:
        if attribute.name == "value":
            return numpy_helper.to_array(attribute.t)
        if attribute.name == "value_float":
            return np.array(attribute.f, np.float32)
    return np.zeros(0, np.float32)
