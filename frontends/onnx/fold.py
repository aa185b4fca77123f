"""Constant folding with NumPy: nodes whose inputs are all constants, within a bounded size.

Only operators whose output size follows from the inputs are folded, so a hostile model cannot make
the compiler compute or allocate more than it holds itself. Movements of large weights stay views.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from onnx import NodeProto
from onnx.reference import ReferenceEvaluator

from . import graph as graphs

MAX_ELEMENTS = 1 << 24
"""A folded tensor may have this many elements, or as many as its inputs together."""

ELEMENTWISE = frozenset(
    [
        "Abs",
        "Add",
        "And",
        "Cast",
        "Ceil",
        "Clip",
        "Cos",
        "Div",
        "Equal",
        "Erf",
        "Exp",
        "Floor",
        "Greater",
        "GreaterOrEqual",
        "IsInf",
        "IsNaN",
        "Less",
        "LessOrEqual",
        "Log",
        "Max",
        "Mean",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "Pow",
        "Reciprocal",
        "Relu",
        "Round",
        "Sigmoid",
        "Sign",
        "Sin",
        "Softplus",
        "Sqrt",
        "Sub",
        "Sum",
        "Tanh",
        "Where",
        "Xor",
    ]
)
SHRINKING = frozenset(
    [
        "Gather",
        "GatherElements",
        "GatherND",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "Slice",
        "Split",
        "Concat",
        "Trilu",
        "CumSum",
        "ScatterND",
        "ScatterElements",
        "ArgMax",
        "ArgMin",
        "Shape",
        "Size",
    ]
)

Arrays = list[np.ndarray]


def fold(node: NodeProto, inputs: Arrays, versions: Mapping[str, int]) -> Arrays | None:
    """The outputs of `node` for constant `inputs`, or None if it is not to be folded.

    An omitted optional input is an empty position in `node.input` and has no entry in `inputs`.
    """
    if graphs.domain_of(node) or any(array.dtype == object for array in inputs):
        return None
    try:
        if move := _MOVES.get(node.op_type):
            return move(node, inputs)
        size = _output_size(node, inputs)
    except (ArithmeticError, IndexError, TypeError, ValueError):  # operands that do not fit
        return None
    if size is None or size > max(MAX_ELEMENTS, sum(array.size for array in inputs)):
        return None
    feeds = dict(zip((name for name in node.input if name), inputs))
    try:
        with np.errstate(all="ignore"):
            outputs = ReferenceEvaluator(node, opsets=dict(versions)).run(None, feeds)
    except Exception:  # whatever the evaluator cannot do stays in the graph
        return None
    return [np.asarray(output) for output in outputs]


def _output_size(node: NodeProto, inputs: Arrays) -> int | None:
    """Elements of the result; None for operators that are not folded."""
    shapes = [array.shape for array in inputs]
    if node.op_type in ELEMENTWISE:
        return math.prod(np.broadcast_shapes(*shapes))
    if node.op_type in SHRINKING:
        return sum(array.size for array in inputs) * max(1, inputs[-1].size)
    if node.op_type == "ConstantOfShape":
        return math.prod(map(int, inputs[0]))
    if node.op_type == "Expand":
        return math.prod(np.broadcast_shapes(shapes[0], tuple(map(int, inputs[1]))))
    if node.op_type == "MelWeightMatrix":
        return int(inputs[0].item()) * (int(inputs[1].item()) // 2 + 1)
    if node.op_type == "Tile":
        return inputs[0].size * math.prod(map(int, inputs[1]))
    if node.op_type == "Range":
        start, limit, step = (array.reshape(-1)[0].item() for array in inputs)
        return max(0, math.ceil((limit - start) / step))
    return None


def _identity(node: NodeProto, inputs: Arrays) -> Arrays:
    return inputs


def _transpose(node: NodeProto, inputs: Arrays) -> Arrays | None:
    perm = graphs.attributes(node).get("perm")
    if perm is not None and sorted(perm) != list(range(inputs[0].ndim)):
        return None
    return [inputs[0].transpose(perm)]


def _reshape(node: NodeProto, inputs: Arrays) -> Arrays | None:
    data, target = inputs[0], [int(size) for size in inputs[1].reshape(-1)]
    if not graphs.attributes(node).get("allowzero", 0):
        if any(size == 0 and axis >= data.ndim for axis, size in enumerate(target)):
            return None
        target = [data.shape[axis] if size == 0 else size for axis, size in enumerate(target)]
    return [data.reshape(target)]


def _axes(node: NodeProto, inputs: Arrays) -> list[int] | None:
    if len(inputs) > 1:
        return [int(axis) for axis in inputs[1].reshape(-1)]
    return graphs.attributes(node).get("axes")


def _unsqueeze(node: NodeProto, inputs: Arrays) -> Arrays | None:
    axes = _axes(node, inputs)
    return None if axes is None else [np.expand_dims(inputs[0], tuple(axes))]


def _squeeze(node: NodeProto, inputs: Arrays) -> Arrays | None:
    axes = _axes(node, inputs)
    return [np.squeeze(inputs[0], None if axes is None else tuple(axes))]


_MOVES: dict[str, Callable[[NodeProto, Arrays], Arrays | None]] = {
    "Identity": _identity,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
}
