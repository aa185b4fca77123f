"""Which integer inputs of an ONNX graph are indices, and into how many elements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from onnx import GraphProto, NodeProto, TensorProto

# Operators that hand on the values of their first input, whatever they do to the shape.
_MOVEMENT = frozenset(
    (
        *("Cast", "Concat", "Expand", "Flatten", "Identity", "Pad", "Reshape", "Slice", "Split"),
        *("Squeeze", "Tile", "Transpose", "Unsqueeze", "Abs", "Clip"),
    )
)
# Operators that index axis `axis` (default) of input 0 with input 1.
_GATHERS = {"Gather": 0, "GatherElements": 0, "ScatterElements": 0}
_PIXELS = 256


def index_limits(graph: GraphProto, shapes: Mapping[str, tuple[int | None, ...]]) -> dict[str, int]:
    """{input: exclusive upper bound} for the integer inputs whose values index something.

    `shapes` holds the shapes that are known, with None for a dynamic dim.
    """
    readers: dict[str, list[tuple[NodeProto, int]]] = {}
    for node in graph.node:
        for position, name in enumerate(node.input):
            readers.setdefault(name, []).append((node, position))
    limits: dict[str, int] = {}
    for value in graph.input:
        found = list(_limits_of(value.name, readers, shapes))
        if found:
            limits[value.name] = min(found)
        elif value.type.tensor_type.elem_type == TensorProto.UINT8:
            limits[value.name] = _PIXELS
    return limits


def _limits_of(
    name: str,
    readers: Mapping[str, list[tuple[NodeProto, int]]],
    shapes: Mapping[str, tuple[int | None, ...]],
) -> Iterator[int]:
    """The sizes that `name`, or a value with its elements, is used to index."""
    seen, waiting = {name}, [name]
    while waiting:
        for node, position in readers.get(waiting.pop(), ()):
            if limit := _limit(node, position, shapes):
                yield limit
            elif node.op_type in _MOVEMENT and position in _carried(node):
                fresh = [output for output in node.output if output not in seen]
                seen.update(fresh)
                waiting.extend(fresh)


def _carried(node: NodeProto) -> range:
    return range(len(node.input)) if node.op_type == "Concat" else range(1)


def _limit(
    node: NodeProto, position: int, shapes: Mapping[str, tuple[int | None, ...]]
) -> int | None:
    """How many elements input `position` of `node` chooses from; None if it does not index."""
    shape = shapes.get(node.input[0])
    if position != 1 or not shape:
        return None
    if node.op_type in _GATHERS:
        axis = next((a.i for a in node.attribute if a.name == "axis"), _GATHERS[node.op_type])
        return shape[axis] if -len(shape) <= axis < len(shape) else None
    if node.op_type in ("GatherND", "ScatterND"):
        return min((size for size in shape if size is not None), default=None)
    return None
