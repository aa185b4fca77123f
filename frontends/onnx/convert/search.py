"""Results that hold as many elements as the data has of a kind: NonZero, Compress, Unique."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import relax, te, tirx
from tvm.ir import Expr, Var
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from ...dims import product
from ...nest import serial_loops
from ..builder import Call, Converter, Result
from .sizes import expr, int64, kernel, matched, out_of


def _non_zero(call: Call) -> Result:
    return _places(call, call.tensor(0), out_of(call)[1])


def _compress(call: Call) -> Result:
    """The rows whose condition is true."""
    data, axis = call.tensor(0), call.attr("axis")
    if axis is None:
        data, axis = call.emit(relax.op.reshape(data, (-1,))), 0
    wanted = out_of(call)[axis]
    rows = call.emit(call.reshape(call.emit(_places(call, call.tensor(1), wanted)), (wanted,)))
    return relax.op.take(data, rows, axis % data.ty.ndim, mode="wrap")


def _places(call: Call, data: relax.Expr, count: Any) -> relax.Expr:
    """where[d, k] = index d of the k-th element of `data` that is not zero; names their number."""
    found = data
    if str(data.ty.dtype) != "bool":
        zero = call.emit(relax.op.zeros([], str(data.ty.dtype)))
        found = call.emit(relax.op.not_equal(data, zero))
    number = call.emit(relax.op.sum(call.emit(relax.op.astype(found, "int64"))))
    matched(call, call.emit(relax.op.reshape(number, (1,))), [count])

    def compute(mask: te.Tensor, extent: Expr) -> te.Tensor:
        return te.extern(
            [(len(mask.shape), extent)],
            [mask],
            lambda read, written: _fill(read[0], written[0]),
            dtype="int64",
            name="places",
        )

    (extent,) = call.shape_expr([count]).values
    return kernel(call, compute, [found, extent], "places")


def _fill(mask: Var, where: Var) -> tirx.Stmt:
    with IRBuilder() as ib:
        with T.seq_scope():
            seen = T.alloc_buffer((1,), "int64", scope="local")
            _put(seen, int64(0), 0)

            def element(at: Sequence[Expr]) -> None:
                place = seen[int64(0)]
                with T.If(tirx.And(mask[tuple(at)], place < where.shape[1])), T.Then():
                    for d, index in enumerate(at):
                        _put(where, index, d, place)
                    _put(seen, place + int64(1), 0)

            serial_loops(mask.shape, element)
        return ib.get()


def _unique(call: Call) -> Result:
    """Rows that differ, where each is first, which each row is, and how often each comes.

    A stable merge sort of the rows' numbers puts equal rows side by side.
    """
    data, axis, shape = call.tensor(0), call.attr("axis"), call.shape(0)
    if axis is None:
        rows = data = call.emit(relax.op.reshape(data, (-1, 1)))
    else:
        axis %= len(shape)
        order = [axis, *(k for k in range(len(shape)) if k != axis)]
        rows = call.emit(relax.op.permute_dims(data, order))
        rows = call.emit(
            call.reshape(rows, (shape[axis], product(shape[:axis] + shape[axis + 1 :])))
        )
    if str(rows.ty.dtype) in ("float16", "bfloat16"):
        rows = call.emit(relax.op.astype(rows, "float32"))
    if str(rows.ty.dtype) == "bool":
        rows = call.emit(relax.op.astype(rows, "uint8"))
    kept = bool(call.attr("sorted", 1))

    def compute(x: te.Tensor) -> list[te.Tensor]:
        size = expr(x.shape[0])
        return te.extern(
            [(size,)] * 5 + [(1,)],
            [x],
            lambda read, written: _group(read[0], *written, kept=kept),
            dtype=["int64"] * 6,
            name="unique",
        )

    made = call.emit(kernel(call, compute, [rows], "unique"))
    count = out_of(call)[axis or 0]
    matched(call, call.emit(relax.TupleGetItem(made, 5)), [count])
    first, counts, inverse = (call.emit(relax.TupleGetItem(made, k)) for k in (2, 3, 4))
    end = [call.prim(count)]
    first, counts = (
        call.emit(relax.op.strided_slice(t, [0], [call.prim(0)], end, assume_inbound=True))
        for t in (first, counts)
    )
    y = call.emit(relax.op.take(data, first, axis or 0, mode="wrap"))
    if axis is None:
        y = call.emit(call.reshape(y, (count,)))
    return [y, first, inverse, counts][: len(call.node.output)]


def _group(
    x: Var,
    order: Var,
    other: Var,
    first: Var,
    counts: Var,
    inverse: Var,
    number: Var,
    *,
    kept: bool,
) -> tirx.Stmt:
    size = expr(x.shape[0])
    with IRBuilder() as ib:
        with T.seq_scope():
            width, left, right, sign = (
                T.alloc_buffer((1,), "int64", scope="local") for _ in range(4)
            )
            _sort(x, order, other, size, (width, left, right, sign))
            _put(number, int64(0), 0)
            with T.serial(0, size) as k:
                _compare(x, order[tirx.max(k - 1, int64(0))], order[k], sign)
                new = tirx.Or(k.equal(int64(0)), sign[int64(0)] != int64(0))
                with T.If(new), T.Then():
                    _put(number, number[int64(0)] + 1, 0)
                _put(inverse, number[int64(0)] - 1, order[k])
            if not kept:
                _renumber(order, inverse, number, size)
            with T.serial(0, number[int64(0)]) as u:
                _put(counts, int64(0), u)
            with T.serial(0, size) as k:
                u = T.bind(inverse[k])
                with T.If(counts[u].equal(int64(0))), T.Then():
                    _put(first, k, u)
                _put(counts, counts[u] + 1, u)
        return ib.get()


def _renumber(order: Var, inverse: Var, number: Var, size: Expr) -> None:
    """Groups in the order in which they come first."""
    with T.serial(0, number[int64(0)]) as u:
        _put(order, int64(-1), u)
    _put(number, int64(0), 0)
    with T.serial(0, size) as k:
        u = T.bind(inverse[k])
        with T.If(order[u] < 0), T.Then():
            _put(order, number[int64(0)], u)
            _put(number, number[int64(0)] + 1, 0)
        _put(inverse, order[u], k)


def _sort(x: Var, order: Var, other: Var, size: Expr, local: Sequence[Var]) -> None:
    """Runs of 1, 2, 4, .. rows are merged; of equal rows the first one stays first."""
    width, left, right, sign = local
    zero, last = int64(0), tirx.max(size - 1, int64(0))
    with T.serial(0, size) as k:
        _put(order, k, k)
    _put(width, int64(1), 0)
    with T.While(width[zero] < size):
        both = T.bind(width[zero] * 2)
        with T.serial(0, tirx.floordiv(size + both - 1, both)) as run:
            begin = T.bind(run * both)
            middle = T.bind(tirx.min(begin + width[zero], size))
            end = T.bind(tirx.min(begin + both, size))
            _put(left, begin, 0)
            _put(right, middle, 0)
            with T.serial(0, end - begin) as k:
                a = T.bind(order[tirx.min(left[zero], last)])
                b = T.bind(order[tirx.min(right[zero], last)])
                _compare(x, a, b, sign)
                ordered = tirx.Or(right[zero] >= end, sign[zero] <= 0)
                takes = T.bind(tirx.And(left[zero] < middle, ordered))
                _put(other, tirx.Select(takes, a, b), begin + k)
                _put(left, left[zero] + takes.astype("int64"), 0)
                _put(right, right[zero] + tirx.Not(takes).astype("int64"), 0)
        with T.serial(0, size) as k:
            _put(order, other[k], k)
        _put(width, both, 0)


def _compare(x: Var, a: Expr, b: Expr, sign: Var) -> None:
    """-1, 0 or 1 for rows in lexicographic order; what is not a number comes last."""
    _put(sign, int64(0), 0)
    with T.serial(0, expr(x.shape[1])) as k:
        one, two = T.bind(x[a, k]), T.bind(x[b, k])
        below, above = _less(one, two), _less(two, one)
        found = tirx.Select(below, int64(-1), tirx.Select(above, int64(1), int64(0)))
        with T.If(sign[int64(0)].equal(int64(0))), T.Then():
            _put(sign, found, 0)


def _less(a: Expr, b: Expr) -> Expr:
    if not str(a.ty.dtype).startswith("float"):
        return a < b
    return tirx.Or(a < b, tirx.And(tirx.isnan(b), tirx.Not(tirx.isnan(a))))


def _put(buffer: Var, value: Expr, *at: Any) -> None:
    T.buffer_store(buffer, value, [int64(i) if isinstance(i, int) else i for i in at])


CONVERTERS: dict[str, Converter] = {
    "Compress": _compress,
    "NonZero": _non_zero,
    "Unique": _unique,
}
