"""What each operator on sequences and optionals is in terms of their elements (sequences.py).

A rule gives the nodes that take the place of one, or None if too little is known of its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from ..dims import Expr
from . import graph as graphs
from . import inline

if TYPE_CHECKING:
    from .sequences import Sequences

MAX_LENGTH = 1024
"""Elements of a sequence."""


def _empty(s: Sequences, node: NodeProto) -> list[NodeProto] | None:
    return s.as_list(node.output[0], [])


def _length(s: Sequences, node: NodeProto) -> list[NodeProto] | None:
    elements = s.lists.get(node.input[0])
    return None if elements is None else [constant(node.output[0], np.int64(len(elements)))]


def _position(s: Sequences, node: NodeProto, index: int, limit: int) -> int | None:
    """An input as a position below the limit, counted from the front."""
    position = s.known.int(node.input[index])
    if position is None or not -limit <= position < limit:
        return None
    return position % limit


def _at(s: Sequences, node: NodeProto) -> list[NodeProto] | None:
    elements = s.lists.get(node.input[0])
    if not elements:
        return None
    position = _position(s, node, 1, len(elements))
    if position is not None:
        return [identity(elements[position], node.output[0])]
    if s.known.shapes is None or s.known.ints(node.input[1]) is not None:
        return None
    return _gathered(s, elements, node)


def _gathered(s: Sequences, elements: list[str], node: NodeProto) -> list[NodeProto] | None:
    """By a position that only the run knows: a row of all elements, if they have one shape."""
    shapes = [s.known.shape(name) for name in elements]
    if shapes[0] is None or any(shape != shapes[0] for shape in shapes):
        return None
    name = node.output[0]
    nodes, rows = _stacked(s, elements, 0, f"{name}/rows")
    position = f"{name}/position"
    return [
        *nodes,
        constant(f"{position}/shape", np.zeros(0, np.int64)),
        helper.make_node("Reshape", [node.input[1], f"{position}/shape"], [position]),
        helper.make_node("Gather", [rows, position], [name], axis=0),
    ]


def _erase(s: Sequences, node: NodeProto) -> list[NodeProto] | None:
    elements = s.lists.get(node.input[0])
    if not elements:
        return None
    last = len(elements) - 1
    position = _position(s, node, 1, len(elements)) if len(node.input) > 1 else last
    if position is None:
        return None
    return s.as_list(node.output[0], elements[:position] + elements[position + 1 :])


def _insert(s: Sequences, node: NodeProto) -> list[NodeProto] | None:
    elements = s.lists.get(node.input[0])
    if elements is None:
        return None
    position: int | None = len(elements)
    if len(node.input) > 2 and node.input[2]:  # behind the last one is a position, -1 before it
        position = s.known.int(node.input[2])
        if position is None or not -len(elements) <= position <= len(elements):
            return None
        position += len(elements) if position < 0 else 0
    return s.as_list(node.output[0], [*elements[:position], node.input[1], *elements[position:]])


def _concat(s: Sequences, node: NodeProto) -> list[NodeProto] | None:
    elements, attributes = s.lists.get(node.input[0]), graphs.attributes(node)
    if not elements:
        return None
    if attributes.get("new_axis", 0):
        nodes, rows = _stacked(s, elements, attributes["axis"], f"{node.output[0]}/rows")
        return [*nodes, identity(rows, node.output[0])]
    return [helper.make_node("Concat", elements, node.output, axis=attributes["axis"])]


def _stacked(
    s: Sequences, elements: Sequence[str], axis: int, name: str
) -> tuple[list[NodeProto], str]:
    """Tensors side by side along a new axis."""
    axes, nodes = f"{name}/axes", []
    if s.known.versions.get("", 1) < 13:
        nodes = [
            helper.make_node("Unsqueeze", [x], [f"{name}/{k}"], axes=[axis])
            for k, x in enumerate(elements)
        ]
    else:
        nodes = [constant(axes, np.array([axis], np.int64))] + [
            helper.make_node("Unsqueeze", [x, axes], [f"{name}/{k}"])
            for k, x in enumerate(elements)
        ]
    rows = [f"{name}/{k}" for k in range(len(elements))]
    return [*nodes, helper.make_node("Concat", rows, [name], axis=axis)], name


def _split(s: Sequences, node: NodeProto) -> list[NodeProto] | None:
    attributes, name = graphs.attributes(node), node.output[0]
    given = node.input[1] if len(node.input) > 1 else ""
    axis, shape = attributes.get("axis", 0), s.known.shape(node.input[0])
    size = shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None
    sizes = _parts(s, given, size)
    if sizes is None or len(sizes) > MAX_LENGTH:
        return None
    names = [f"{name}/{k}" for k in range(len(sizes))]
    squeezed = not given and not attributes.get("keepdims", 1)
    parts = [f"{x}/part" for x in names] if squeezed else names
    nodes = _divided(s, node.input[0], given, sizes, axis, parts)
    if squeezed:
        for part, element in zip(parts, names):
            nodes += _squeezed(s, part, element, axis)
    made = s.as_list(name, names)
    return None if made is None else [*nodes, *made]


def _parts(s: Sequences, given: str, size: int | Expr | None) -> list[int] | list[None] | None:
    """Sizes of the parts; None in the place of those that only the run knows."""
    if not given:
        return [1] * size if isinstance(size, int) and size <= MAX_LENGTH else None
    shape, values = s.known.shape(given), s.known.ints(given)
    if shape is None:
        return None
    if len(shape) == 1 and (values is not None or s.known.versions.get("", 1) >= 13):
        count = shape[0]
        return values or ([None] * count if isinstance(count, int) and count else values)
    if shape or values is None or values[0] <= 0 or not isinstance(size, int):
        return None
    if -(-size // values[0]) > MAX_LENGTH:
        return None
    return [min(values[0], size - start) for start in range(0, size, values[0])]


def _divided(
    s: Sequences,
    data: str,
    given: str,
    sizes: Sequence[int | None],
    axis: int,
    names: Sequence[str],
) -> list[NodeProto]:
    if not sizes:
        return []
    if any(size is None for size in sizes):
        return [helper.make_node("Split", [data, given], names, axis=axis)]
    if len(sizes) == 1:
        return [identity(data, names[0])]
    if s.known.versions.get("", 1) < 13:
        return [helper.make_node("Split", [data], names, axis=axis, split=sizes)]
    return [
        constant(f"{names[0]}/sizes", np.array(sizes, np.int64)),
        helper.make_node("Split", [data, f"{names[0]}/sizes"], names, axis=axis),
    ]


def _squeezed(s: Sequences, part: str, name: str, axis: int) -> list[NodeProto]:
    if s.known.versions.get("", 1) < 13:
        return [helper.make_node("Squeeze", [part], [name], axes=[axis])]
    axes = f"{name}/axes"
    return [
        constant(axes, np.array([axis], np.int64)),
        helper.make_node("Squeeze", [part, axes], [name]),
    ]


def _map(s: Sequences, node: NodeProto) -> list[NodeProto] | None:
    """The body once per element of the first sequence; tensors are the same every time."""
    body, first = graphs.attributes(node)["body"], s.lists.get(node.input[0])
    if first is None or not s.may_write(body, len(first)):
        return None
    given = [s.lists.get(name) for name in node.input]
    if any(elements is not None and len(elements) != len(first) for elements in given):
        return None
    if any(e is None and not s.known.is_tensor(x) for e, x in zip(given, node.input)):
        return None
    nodes: list[NodeProto] = []
    made: list[list[str]] = [[] for _ in node.output]
    for k in range(len(first)):
        inputs = [x if e is None else e[k] for e, x in zip(given, node.input)]
        names = [f"{name}/{k}" for name in node.output]
        nodes += inline.body(body, f"{node.output[0]}/{k}", inputs, names)
        for elements, name in zip(made, names):
            elements.append(name)
    for name, elements in zip(node.output, made):
        listed = s.as_list(name, elements)
        if listed is None:
            return None
        nodes += listed
    return nodes


def _has_element(s: Sequences, node: NodeProto) -> list[NodeProto] | None:
    name = node.input[0] if node.input else ""
    if name and not s.has(name) and not s.known.is_tensor(name):
        return None
    filled = bool(name) and s.optionals.get(name, name) != ""
    return [constant(node.output[0], np.bool_(filled))]


def _get_element(s: Sequences, node: NodeProto) -> list[NodeProto] | None:
    inside = s.optionals.get(node.input[0], node.input[0])
    if not inside:
        return None
    known = s.has(inside) or node.input[0] in s.optionals
    if known and not s.has(inside):
        return [identity(inside, node.output[0])]
    return s.alias(inside, node.output[0])


RULES: dict[str, Callable[[Sequences, NodeProto], list[NodeProto] | None]] = {
    "ConcatFromSequence": _concat,
    "OptionalGetElement": _get_element,
    "OptionalHasElement": _has_element,
    "SequenceAt": _at,
    "SequenceEmpty": _empty,
    "SequenceErase": _erase,
    "SequenceInsert": _insert,
    "SequenceLength": _length,
    "SequenceMap": _map,
    "SplitToSequence": _split,
}


def identity(old: str, new: str) -> NodeProto:
    return helper.make_node("Identity", [old], [new])


def constant(name: str, value: Any) -> NodeProto:
    tensor = numpy_helper.from_array(np.asarray(value))
    return helper.make_node("Constant", [], [name], value=tensor)
