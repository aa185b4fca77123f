"""If, Loop and Scan: their bodies become functions, which the library calls (frontends/machine.py).

Loop   flag, i, v = cond and 0 < M, 0, v0
       while flag:  c, v, row = body(i, v);   flag, i = c and i + 1 < M, i + 1
Scan   the same, with  M = the size of what it walks along,  of which the body takes step i
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from tvm import relax
from tvm.ir import GlobalVar

from ... import machine
from ...dims import Expr
from ...storage import stored
from .. import graph as graphs
from ..builder import Builder, Call, Converter, DeclinedError, Result
from ..control import Body, analyse
from ..symbolic_control import loop_body, scan_plan, varying
from ..symbolic_facts import Facts
from ..symbolic_node import Node, Size, Value

End = Callable[[Builder, Sequence[str]], list[relax.Expr]]
"""What a function returns, of the names of its body's outputs."""
Start = Callable[[Builder], None]

LIMIT = "tvmext limit"
"""An input of the bodies of loops: the number of iterations, at most."""


def _if(call: Call) -> Result:
    graphs_of = [call.attributes[name] for name in ("then_branch", "else_branch")]
    captured = sorted(set().union(*map(graphs.captures, graphs_of)))
    bodies = [_analyse(call, captured=captured)(graph, []) for graph in graphs_of]
    passed = _passed(call, bodies[0])
    then = _function(call, bodies[0], passed, _all)
    same = bodies[1] is bodies[0]
    otherwise = then if same else _function(call, bodies[1], passed, _all)
    arguments = [*_dims(call, bodies[0]), *map(call.builder.tensor, passed)]
    results = [_type(call, k) for k in range(len(call.node.output))]
    return _parts(call, machine.choose(_scalar(call, 0), then, otherwise, arguments, results))


def _loop(call: Call) -> Result:
    limited = call.has(0)
    extra = [(LIMIT, Value("int64", ()))] if limited else []
    carried = [call.builder.value(name) for name in call.node.input[2:]]
    graph = call.attributes["body"]
    body = loop_body(graph, carried, varying(call.node), _analyse(call, extra=extra))
    number, condition, *names = body.inputs
    passed = _passed(call, body)

    def end(builder: Builder, outputs: Sequence[str]) -> list[relax.Expr]:
        goes_on = _reshaped(builder, builder.tensor(outputs[0]), "bool")
        following = builder.bb.emit(relax.op.add(builder.tensor(number), _int64(1)))
        if limited:
            below = builder.bb.emit(relax.op.less(following, builder.tensor(LIMIT)))
            goes_on = builder.bb.emit(relax.op.logical_and(goes_on, below))
        return [goes_on, following, *map(builder.tensor, outputs[1:])]

    limit = [_scalar(call, 0)] if limited else []
    inputs = [condition, number, *names, *(name for name, _ in extra), *passed]
    function = _function(call, body, inputs, end)
    flag = _scalar(call, 1) if call.has(1) else relax.const(np.array(True))
    if limited:
        some = call.emit(relax.op.less(_int64(0), limit[0]))
        flag = call.emit(relax.op.logical_and(flag, some))
    states = [_int64(0), *(call.tensor(2 + k) for k in range(len(carried)))]
    rest = [*limit, *map(call.builder.tensor, passed)]
    return _run(call, body, function, flag, states, rest)


def _scan(call: Call) -> Result:
    values = [call.builder.value(name) if name else Value("", None) for name in call.node.input]
    node = Node(call.node, values, Facts(dict(call.builder.shapes.dims), {}), call.version)
    plan = scan_plan(node)
    if plan is None:
        raise DeclinedError("a Scan over batches, of operator set 8, or of unknown shapes")
    count, begin, steps = plan
    graph = call.attributes["body"]
    whole = [f"{value.name} of every step" for value in graph.input[len(begin) :]]
    extra = list(zip(whole, values[len(begin) :]))
    inputs = list(zip((v.name for v in graph.input), [*begin, *steps], strict=True))
    body = _analyse(call, extra=[*extra, (LIMIT, Value("int64", ()))])(graph, inputs)
    names, taken = body.inputs[: len(begin)], body.inputs[len(begin) :]
    axes = call.attr("scan_input_axes", [0] * len(whole))
    backward = call.attr("scan_input_directions", [0] * len(whole))
    passed = _passed(call, body)

    def start(builder: Builder) -> None:
        for name, source, axis, reverse in zip(taken, whole, axes, backward):
            builder.values[name] = _step(builder, source, axis, bool(reverse))

    def end(builder: Builder, outputs: Sequence[str]) -> list[relax.Expr]:
        following = builder.bb.emit(relax.op.add(builder.values[NUMBER], _int64(1)))
        goes_on = builder.bb.emit(relax.op.less(following, builder.tensor(LIMIT)))
        return [goes_on, following, *map(builder.tensor, outputs)]

    function = _function(call, body, [FLAG, NUMBER, *names, LIMIT, *whole, *passed], end, start)
    limit = _size(call, count)
    flag = call.emit(relax.op.less(_int64(0), limit))
    states = [_int64(0), *(call.tensor(k) for k in range(len(begin)))]
    rest = [limit, *(call.tensor(len(begin) + k) for k in range(len(whole)))]
    rest += map(call.builder.tensor, passed)
    results = _run(call, body, function, flag, states, rest, scan=True)
    return [*results[: len(begin)], *_placed(call, results[len(begin) :])]


FLAG, NUMBER = "tvmext flag", "tvmext number"
"""Parameters of the body of a Scan that ONNX does not have: its condition and the step."""


def _step(builder: Builder, source: str, axis: int, backward: bool) -> relax.Expr:
    """What a Scan takes of an input in one step."""
    number, shape = builder.values[NUMBER], builder.value(source).shape or ()
    if backward:
        last = builder.bb.emit(relax.op.subtract(builder.tensor(LIMIT), _int64(1)))
        number = builder.bb.emit(relax.op.subtract(last, number))
    tensor = builder.tensor(source)
    return builder.bb.emit(relax.op.take(tensor, number, axis % len(shape), mode="wrap"))


def _placed(call: Call, rows: Sequence[relax.Expr]) -> list[relax.Expr]:
    """Rows in the order and along the axis that the Scan wants."""
    axes = call.attr("scan_output_axes", [0] * len(rows))
    backward = call.attr("scan_output_directions", [0] * len(rows))
    placed = []
    for tensor, axis, reverse in zip(rows, axes, backward):
        rank = tensor.ty.ndim
        order = list(range(1, rank))
        order.insert(axis % rank, 0)
        if reverse:
            tensor = call.emit(relax.op.flip(tensor, 0))
        if order != list(range(rank)):
            tensor = call.emit(relax.op.permute_dims(tensor, order))
        placed.append(tensor)
    return placed


def _run(
    call: Call,
    body: Body,
    function: GlobalVar,
    flag: relax.Expr,
    states: Sequence[relax.Expr],
    rest: Sequence[relax.Expr],
    *,
    scan: bool = False,
) -> list[relax.Expr]:
    """The loop, and what it gives without the number of iterations."""
    carried = len(states) - 1
    values = body.outputs()[carried if scan else 1 + carried :]
    rows = [_row(call, body, value) for value in values]
    types = [_type(call, k) for k in range(carried)]
    types += [relax.TensorType(ndim=row.ndim + 1, dtype=str(row.dtype)) for row in rows]
    results = [relax.TensorType([], "int64"), *types]
    made = machine.loop(function, _dims(call, body), flag, states, rest, rows, results)
    parts = _parts(call, made)[1:]
    if scan:  # the number of rows is known, and their dims where the body tells them
        parts[carried:] = [
            _counted(call, part, row, body, k)
            for k, (part, row) in enumerate(zip(parts[carried:], values), carried)
        ]
    return parts


def _counted(call: Call, part: relax.Expr, row: Value, body: Body, k: int) -> relax.Expr:
    """Rows with the dims that the output of a Scan has, before its dims are in order."""
    shape = list(call.builder.value(call.node.output[k]).shape or ())
    axes = call.attr("scan_output_axes")
    axis = axes[k - (len(call.node.output) - len(axes))] % len(shape) if axes else 0
    shape.insert(0, shape.pop(axis))
    call.builder.define(shape)
    return call.match(part, relax.TensorType(call.shape_expr(shape), str(part.ty.dtype)))


def _row(call: Call, body: Body, value: Value) -> relax.TensorType:
    """The type of a row; what only the body knows of its dims counts as 0."""
    shape = body.outward(value.shape)
    if shape is None or not value.dtype:
        raise DeclinedError("a result of its body has an unknown number of dims")
    sizes = call.shape_expr([0 if n is None else n for n in shape])
    return relax.TensorType(sizes, stored(value.dtype))


def _analyse(
    call: Call,
    *,
    captured: Sequence[str] | None = None,
    extra: Sequence[tuple[str, Value]] = (),
) -> partial[Body]:
    """`analyse` with what is known around the node."""
    builder = call.builder
    return partial(
        analyse,
        scope=builder.shapes.values,
        model=builder.model,
        bodies=builder.shapes.bodies,
        constants=builder.constants,
        captured=captured,
        extra=extra,
    )


def _function(
    call: Call, body: Body, inputs: Sequence[str], end: End, start: Start | None = None
) -> GlobalVar:
    from ..driver import add_body

    return add_body(call.builder, body, inputs, end, start)


def _all(builder: Builder, outputs: Sequence[str]) -> list[relax.Expr]:
    return [builder.tensor(name) for name in outputs]


def _passed(call: Call, body: Body) -> list[str]:
    """The captured values that are tensors at run time; the body knows the others."""
    return [name for name in body.captured if call.builder.known(name) is None]


def _dims(call: Call, body: Body) -> list[relax.Expr]:
    """The sizes that the body has names for, as it wants them: one shape, or nothing."""
    return [call.shape_expr(list(body.dims.values()))] if body.dims else []


def _type(call: Call, index: int) -> relax.TensorType:
    value = call.builder.value(call.node.output[index]) if call.wants(index) else None
    if value is None:
        return relax.ObjectType()
    if value.shape is None or not value.dtype:
        raise DeclinedError("the type or the number of dims of a result is not known")
    return relax.TensorType(ndim=len(value.shape), dtype=stored(value.dtype))


def _parts(call: Call, whole: relax.Expr) -> list[relax.Expr]:
    tuple_ = call.emit(whole)
    return [call.emit(relax.TupleGetItem(tuple_, k)) for k in range(len(tuple_.ty.fields))]


def _scalar(call: Call, index: int) -> relax.Expr:
    """An input of one element as a tensor without dims."""
    return _reshaped(call.builder, call.tensor(index), call.dtype(index))


def _reshaped(builder: Builder, tensor: relax.Expr, dtype: str) -> relax.Expr:
    if tensor.ty.ndim == 0:
        return tensor
    return builder.bb.emit(relax.op.reshape(tensor, []))


def _size(call: Call, size: Size) -> relax.Expr:
    """A size as a tensor."""
    if not isinstance(size, Expr):
        return _int64(size)
    tensor = call.emit(relax.op.shape_to_tensor(call.shape_expr([size])))
    return call.emit(relax.op.reshape(tensor, []))


def _int64(value: int) -> relax.Expr:
    return relax.const(np.array(value, np.int64), "int64")


CONVERTERS: dict[str, Converter] = {"If": _if, "Loop": _loop, "Scan": _scan}
