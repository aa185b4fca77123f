"""Consumers that run when a sum is complete: those that read an element of it more than once."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.ir import Expr, Var

from ..kernel.analysis import Axis, Block, substitute
from ..kernel.contraction import Contraction, size
from ..kernel.emit import PARALLEL, SERIAL, VECTORIZED, Size, block, index, known, loop, unravel
from .math import approximate

PARALLEL_ELEMENTS = 1 << 16
"""Elements below which a parallel launch costs more than it saves."""


def followed(total: Contraction, body: tirx.Stmt, lanes: int, parallel: bool) -> tirx.Stmt:
    """`body`, which computes the sum, between its own buffers and what comes after it."""
    return block(
        *(tirx.AllocBuffer(buffer) for buffer in total.kept),
        body,
        *(sweep(consumer, lanes, parallel) for consumer in total.after),
    )


def sweep(consumer: Block, lanes: int, parallel: bool) -> tirx.Stmt:
    """Every element of a spatial block, in vectors along the last axis."""
    units = {axis.var: index(0) for axis in consumer.axes if axis.size == 1}
    axes = [axis for axis in consumer.axes if axis.size != 1]
    if not axes:
        return _element(consumer, units)
    *outer, last = axes
    elements = size(axes)
    many = not isinstance(elements, int) or elements >= PARALLEL_ELEMENTS

    def row(flat: Expr) -> tirx.Stmt:
        fixed = {**units, **unravel(flat, outer)}
        return along(known(last.extent), lanes, _at(consumer, fixed, last))

    return loop(size(outer), row, PARALLEL if parallel and many else SERIAL, "row")


def _at(consumer: Block, fixed: dict[Var, Expr], last: Axis) -> Callable[[Expr], tirx.Stmt]:
    return lambda i: _element(consumer, {**fixed, last.var: i})


def _element(consumer: Block, point: dict[Var, Expr]) -> tirx.Stmt:
    store = consumer.stores[0]
    names, value = approximate(substitute(store.value, point))
    where = [substitute(i, point) for i in store.indices]
    binds = (tirx.Bind(var, expr) for var, expr in names)
    return block(*binds, tirx.BufferStore(store.buffer, value, where))


def along(extent: Size, lanes: int, put: Callable[[Expr], tirx.Stmt]) -> tirx.Stmt:
    """A loop in vectors, its remainder element by element."""
    whole = extent // lanes
    done = whole * lanes
    return block(
        loop(
            known(whole),
            lambda v: loop(lanes, lambda lane: put(v * lanes + lane), VECTORIZED, "lane"),
        ),
        loop(known(extent % lanes), lambda i: put(i + done)),
    )
