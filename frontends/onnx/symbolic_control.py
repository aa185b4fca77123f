"""Symbolic shapes of If, Loop and Scan: those of their bodies, in terms of the dims outside.

What a loop carries may have another size after every iteration. A dim is taken to keep the size it
begins with until the body gives it another; then it is a symbol of its own (`varying`) in the body,
and a size that only the run knows after the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import onnx
from onnx import GraphProto

from tvmext.errors import ModelError

from . import graph as graphs
from .control import Bodies, Body, analyse
from .symbolic_facts import symbol_of
from .symbolic_node import Node, Shape, Size, Value

Analyse = Callable[..., Body]
"""``analyse`` of a graph with its inputs, in a scope."""


def infer(
    node: Node, scope: Mapping[str, Value], model: onnx.ModelProto, bodies: Bodies
) -> list[Value] | None:
    """The outputs of If, Loop or Scan; None where their inputs are not known well enough."""
    known = partial(analyse, scope=scope, model=model, bodies=bodies)
    match node.op_type:
        case "If":
            return _if(node, known)
        case "Loop":
            return _loop(node, known)
        case _:
            return _scan(node, known)


def _if(node: Node, known: Analyse) -> list[Value] | None:
    attributes = graphs.attributes(node.proto)
    both = [known(attributes[name], []) for name in ("then_branch", "else_branch")]
    values = []
    for k, (one, other) in enumerate(zip(*(body.outputs() for body in both), strict=True)):
        shapes = [body.outward(value.shape) for body, value in zip(both, (one, other))]
        dtype = one.dtype if one.dtype == other.dtype else ""
        values.append(_value(node, k, dtype, *shapes))
    return values


def _value(node: Node, k: int, dtype: str, *shapes: Sequence[Size | None] | None) -> Value:
    """An output that has one of these shapes; dims of which they do not agree are unknown."""
    first, *others = shapes
    if first is None or any(shape is None or len(shape) != len(first) for shape in others):
        return Value(dtype, None)
    dims: list[Size] = []
    for axis, size in enumerate(first):
        same = size is not None and all(
            shape is not None and shape[axis] == size for shape in others
        )
        dims.append(size if same and size is not None else node.unknown(axis, k))
    return node.value(dtype, dims)


def _loop(node: Node, known: Analyse) -> list[Value] | None:
    graph = graphs.attributes(node.proto)["body"]
    carried = [value or Value("", None) for value in node.inputs[2:]]
    body = loop_body(graph, carried, varying(node.proto), known)
    values = []
    _require_type(node, "the condition that its body gives", body.outputs()[0].dtype, "bool")
    for k, begin in enumerate(carried):
        end = body.outputs()[1 + k]
        _require_type(node, f"what its body gives for value {k}", end.dtype, begin.dtype)
        values.append(_value(node, k, begin.dtype, begin.shape, body.outward(end.shape)))
    for k, row in enumerate(body.outputs()[1 + len(carried) :], len(carried)):
        inner = body.outward(row.shape)
        shape = None if inner is None else (None, *inner)
        values.append(_value(node, k, row.dtype, shape))
    return values


def _require_type(node: Node, what: str, found: str, wanted: str) -> None:
    """Raises ModelError if a value has another type than the next iteration takes."""
    if found and wanted and found != wanted:
        raise ModelError(f"{node.where}: {what} is {found}, not {wanted}", hint="export it again")


def varying(proto: onnx.NodeProto) -> str:
    """How the dims begin that change from one iteration of this loop to the next."""
    name = next((name for name in proto.output if name), proto.name)
    return f"varying_{''.join(c if c.isalnum() and c.isascii() else '_' for c in name)}_"


def loop_body(graph: GraphProto, carried: Sequence[Value], prefix: str, known: Analyse) -> Body:
    """The body with the shapes that hold in every iteration."""
    names = [value.name for value in graph.input]
    state = [Value(value.dtype, value.shape) for value in carried]
    while True:  # each round has more varying dims
        values = [Value("int64", ()), Value("bool", ()), *state]
        body = known(graph, list(zip(names, values, strict=True)), varying=prefix)
        wider = [_widened(body, k, value, prefix) for k, value in enumerate(state)]
        if all(new.shape == old.shape for new, old in zip(wider, state)):
            return body
        state = wider


def _widened(body: Body, k: int, begin: Value, prefix: str) -> Value:
    """A carried value with a symbol for each dim that the body changes."""
    old = body.shapes.values[body.inputs[2 + k]].shape
    new = body.outputs()[1 + k].shape
    if begin.shape is None or old is None or new is None or len(new) != len(old):
        return Value(begin.dtype, None)
    dims = [
        size if before == after else symbol_of(f"{prefix}{k}_{axis}")
        for axis, (size, before, after) in enumerate(zip(begin.shape, old, new))
    ]
    return Value(begin.dtype, tuple(dims))


def _scan(node: Node, known: Analyse) -> list[Value] | None:
    plan = scan_plan(node)
    if plan is None:
        return None
    graph = graphs.attributes(node.proto)["body"]
    count, states, steps = plan
    values = [*(Value(v.dtype, v.shape) for v in states), *steps]
    body = known(graph, list(zip((v.name for v in graph.input), values, strict=True)))
    found = []
    for k, (value, end) in enumerate(zip(states, body.outputs())):
        _require_type(node, f"what its body gives for state {k}", end.dtype, value.dtype)
        found.append(_value(node, k, value.dtype, value.shape, body.outward(end.shape)))
    axes = node.attr("scan_output_axes", [0] * (len(body.outputs()) - len(states)))
    for (k, row), axis in zip(list(enumerate(body.outputs()))[len(states) :], axes):
        inner = body.outward(row.shape)
        if inner is None:
            found.append(Value(row.dtype, None))
            continue
        axis %= len(inner) + 1
        found.append(_value(node, k, row.dtype, (*inner[:axis], count, *inner[axis:])))
    return found


def scan_plan(node: Node) -> tuple[Size, list[Value], list[Value]] | None:
    """Iterations of a Scan, its states, and one step of each input that it walks along."""
    if node.opset < 9:
        return None
    count = node.attr("num_scan_inputs")
    values = [value or Value("", None) for value in node.inputs]
    states, walked = values[: len(values) - count], values[len(values) - count :]
    if any(value.shape is None or not value.shape for value in walked):
        return None
    axes = node.attr("scan_input_axes", [0] * count)
    steps, length = [], None
    for value, axis in zip(walked, axes):
        shape: Shape = value.shape or ()
        axis %= len(shape)
        if length is not None:
            node.facts.require_equal(shape[axis], length, node.where)
        length = shape[axis] if length is None else length
        steps.append(Value(value.dtype, shape[:axis] + shape[axis + 1 :]))
    return (length if length is not None else 0), states, steps
