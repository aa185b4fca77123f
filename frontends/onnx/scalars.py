"""Sizes that are data: elements of small integer inputs that reach a shape operand.

A decode step with a `position` input reads the first ``position + 1`` rows of its cache. The
element becomes a symbol as the dims are, so that everything behind it has a symbolic shape; main
reads it from the input and refuses a value for which the model is not valid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto
from tvm import relax

from tvmext.errors import UnsupportedError, UnsupportedOp

from ..dims import Guard, as_symbol, symbol
from . import graph as graphs
from .builder import Builder
from .prepare import Prepared

MAX_ELEMENTS = 4
SHAPE_OPERANDS = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Pad": (1,),
    "Range": (0, 1),
    "Reshape": (1,),
    "Slice": (1, 2),
    "Tile": (1,),
    "TopK": (1,),
}
"""Positions of the inputs that are sizes or bounds; a step or divisor could be 0."""
THROUGH = frozenset({
    "Add", "Cast", "Concat", "Gather", "Identity", "Max", "Min", "Mul", "Reshape", "Slice",
    "Squeeze", "Sub", "Unsqueeze",
})  # fmt: skip
"""Operators that hand a size on: only small integer arithmetic lies before a shape operand."""

Scalars = dict[str, np.ndarray]
"""{input: object array of one symbol per element}"""


def find(prepared: Prepared) -> Scalars:
    """The inputs whose elements sizes depend on."""
    graph = prepared.model.graph
    reached = _reached(graph.node, set(prepared.inputs))
    return {
        value.name: _symbols(value, graph)
        for value in graph.input
        if value.name in reached and value.name in prepared.inputs and _is_small_integer(value)
    }


def _is_left_to_the_run(node: NodeProto, known: Set[str]) -> bool:
    """Whether an operand is an input that may hold numbers that are no sizes.

    A Reshape has -1 for what is left; a Slice whose axes are inputs too counts from either end.
    """
    if node.op_type == "Slice":
        return any(name and name in known for name in node.input[3:5])
    return node.op_type == "Reshape" and not known.isdisjoint(node.input[1:])


def _reached(nodes: Sequence[NodeProto], known: Set[str]) -> set[str]:
    """Names that a shape operand is computed from; `known` are the inputs of the network."""
    needed: set[str] = set()
    for node in reversed(nodes):
        if graphs.domain_of(node):
            continue
        operands = SHAPE_OPERANDS.get(node.op_type, ())
        if not _is_left_to_the_run(node, known):
            needed.update(node.input[k] for k in operands if k < len(node.input))
        if node.op_type in THROUGH and not needed.isdisjoint(node.output):
            needed.update(node.input)
    return needed


def _is_small_integer(value: ValueInfoProto) -> bool:
    tensor = value.type.tensor_type
    if tensor.elem_type not in (TensorProto.INT64, TensorProto.INT32):
        return False
    # a dim that is not a number has the value 0
    dims = [dim.dim_value for dim in tensor.shape.dim]
    return tensor.HasField("shape") and 0 < math.prod(dims) <= MAX_ELEMENTS


def _symbols(value: ValueInfoProto, graph: GraphProto) -> np.ndarray:
    """One symbol per element, called `<input>_value<k>`, unlike every dim of the model."""
    taken = {dim.dim_param for v in graph.input for dim in v.type.tensor_type.shape.dim}
    base = "".join(c if c.isalnum() and c.isascii() else "_" for c in value.name) + "_value"
    while any(name.startswith(base) for name in taken):
        base += "_"
    dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    names = np.empty(dims, object)
    for k in range(names.size):
        names.flat[k] = symbol(f"{base}{k}")
    return names


def names(scalars: Scalars) -> frozenset[str]:
    """Names of all the symbols."""
    return frozenset(str(element) for array in scalars.values() for element in array.flat)


def bind(builder: Builder, scalars: Scalars) -> None:
    """Emit the reading of the symbols from their inputs; a run outside their limits fails."""
    for name, elements in scalars.items():
        tensor = builder.values[name]
        if builder.value(name).dtype != "int64":
            tensor = builder.bb.emit(relax.op.astype(tensor, "int64"))
        if elements.ndim != 1:
            tensor = builder.bb.emit(relax.op.reshape(tensor, (elements.size,)))
        guards = builder.shapes.guards
        limits = [_limits(str(element), guards) for element in elements.flat]
        lows, highs = (np.array(side, np.int64) for side in zip(*limits))
        inside = builder.bb.emit(relax.op.maximum(tensor, relax.const(lows, "int64")))
        inside = builder.bb.emit(relax.op.minimum(inside, relax.const(highs, "int64")))
        # one cast both reads the elements and requires that the limits leave them as they are
        both = builder.bb.emit(relax.op.concat([tensor, inside], 0))
        shape = builder.bb.emit(relax.op.tensor_to_shape(both))
        symbols = [builder.prims.symbols[str(element)] for element in elements.flat]
        builder.match(shape, relax.ShapeType([*symbols, *symbols]), _where(name, elements, guards))


def _where(name: str, elements: np.ndarray, guards: Sequence[Guard]) -> str:
    """The input, and the nodes that limit its elements."""
    own = {str(element) for element in elements.flat}
    reasons = {guard.reason: None for guard in guards if guard.reason and guard.names & own}
    return f"input '{name}'" + (f" ({'; '.join(reasons)})" if reasons else "")


def _limits(name: str, guards: Sequence[Guard]) -> tuple[int, int]:
    """The range of the symbol in which the guards that bound it hold."""
    low, high = 0, np.iinfo(np.int64).max
    for guard in guards:
        if as_symbol(guard.left) == name and isinstance(guard.right, int):
            if guard.op in ("<=", "=="):
                high = min(high, guard.right)
            if guard.op in (">=", "=="):
                low = max(low, guard.right)
    return low, int(high)


def other_guards(scalars: Scalars, guards: Sequence[Guard], source: str) -> tuple[Guard, ...]:
    """The guards over dims alone.

    Raises UnsupportedError if one ties an element to anything but a number.
    """
    own = names(scalars)

    def is_limit(guard: Guard) -> bool:
        ordered = guard.op in ("<=", ">=", "==")
        return ordered and as_symbol(guard.left) in own and isinstance(guard.right, int)

    for guard in guards:
        if guard.names & own and not is_limit(guard):
            reason = f"'{source}' is valid only if {guard}, which depends on data"
            raise UnsupportedError(
                [UnsupportedOp("a size from data", "", 0, guard.reason, reason)],
                hint="make the size a dim of an input, or a constant",
            )
    return tuple(guard for guard in guards if not guard.names & own)
