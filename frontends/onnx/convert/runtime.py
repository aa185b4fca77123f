"""Operators whose shapes, axes and bounds are tensors (sizes.py computes the sizes)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import relax, te, tirx
from tvm.ir import Expr, Var

from ..builder import Call, DeclinedError
from .sizes import (
    Scalars,
    all_of,
    count,
    expr,
    int64,
    integers,
    kernel,
    matched,
    out_of,
    product,
    scalar,
    sizes,
)


def reshape(call: Call) -> relax.Expr:
    """0 copies a dim, -1 takes what is left; sizes that do not fit give -1 everywhere."""
    copies, wanted = not call.attr("allowzero", 0), out_of(call)

    def target(scalars: Scalars, x: Var, shape: Var) -> list[Expr]:
        dims = []
        for k in range(len(wanted)):
            size = shape[int64(k)]
            if copies:
                own = x.shape[k] if k < len(x.shape) else int64(-2)
                size = tirx.Select(size.equal(int64(0)), expr(own), size)
            dims.append(scalars.keep(size))
        total = scalars.keep(product(x.shape))
        open_ = [size.equal(int64(-1)) for size in dims]
        rest = product([tirx.Select(o, int64(1), size) for o, size in zip(open_, dims)])
        left = scalars.keep(tirx.floordiv(total, tirx.max(scalars.keep(rest), int64(1))))
        dims = [scalars.keep(tirx.Select(o, left, size)) for o, size in zip(open_, dims)]
        fits = tirx.And(product(dims).equal(total), all_of(size >= int64(0) for size in dims))
        fits = scalars.keep(fits)
        return [tirx.Select(fits.equal(int64(1)), size, int64(-1)) for size in dims]

    if count(call, 1) != len(wanted):
        raise DeclinedError("the number of dims of its result is not known")
    data = call.tensor(0)
    if wanted:
        matched(call, sizes(call, target, data, integers(call, 1)), wanted)
    return call.reshape(data, wanted)


def together(call: Call, tensors: list[relax.Expr]) -> list[relax.Expr]:
    """Two operands, broadcast here if nobody can tell before the run which dims are 1."""
    shapes = [call.shape(0), call.shape(1)]
    pairs = list(zip(*(shape[::-1] for shape in shapes)))
    if all(a == b or 1 in (a, b) for a, b in pairs):
        return tensors
    wanted, rank = out_of(call), max(map(len, shapes))

    def joint(_: Scalars, x: Var, y: Var) -> list[Expr]:
        dims = []
        for d in range(-rank, 0):
            a, b = (expr(t.shape[d]) if -d <= len(t.shape) else int64(1) for t in (x, y))
            fits = tirx.Select(tirx.Or(a.equal(b), b.equal(int64(1))), a, int64(-1))
            dims.append(tirx.Select(a.equal(int64(1)), b, fits))
        return dims

    matched(call, sizes(call, joint, *tensors), wanted)
    out = call.shape_expr(wanted)

    def read(x: te.Tensor, *extents: Expr) -> te.Tensor:
        def element(*at: Expr) -> Expr:
            own = at[len(at) - len(x.shape) :]
            return x(*(tirx.Select(expr(n).equal(1), int64(0), i) for n, i in zip(x.shape, own)))

        return te.compute(extents, element, name="broadcast")

    return [call.emit(kernel(call, read, [t, *out.values], "broadcast")) for t in tensors]


def squeeze(call: Call) -> relax.Expr:
    rank, number, wanted = call.rank(0), count(call, 1), out_of(call)

    def target(scalars: Scalars, x: Var, axes: Var) -> list[Expr]:
        left = [_is_not_in(axes, number, d, rank) for d in range(rank)]
        return _chosen(scalars, left, x.shape, len(wanted))

    data = call.tensor(0)
    if wanted:
        matched(call, sizes(call, target, data, integers(call, 1)), wanted)
    return call.reshape(data, wanted)


def unsqueeze(call: Call) -> relax.Expr:
    rank, number = call.rank(0), count(call, 1)
    wanted = out_of(call)

    def target(scalars: Scalars, x: Var, axes: Var) -> list[Expr]:
        dims, place = [], int64(0)
        for d in range(rank + number):
            old = scalars.keep(_is_not_in(axes, number, d, rank + number))
            size = int64(-1)
            for k in range(rank):
                size = tirx.Select(place.equal(int64(k)), expr(x.shape[k]), size)
            dims.append(tirx.Select(old.equal(int64(1)), size, int64(1)))
            place = scalars.keep(place + old)
        return dims

    data = call.tensor(0)
    matched(call, sizes(call, target, data, integers(call, 1)), wanted)
    return call.reshape(data, wanted)


def along(call: Call, build: Callable[[int], relax.Expr], index: int) -> relax.Expr:
    """What `build` makes for the axis that an operand names: every axis is computed, one chosen."""
    rank = call.rank(0)
    axis = call.emit(relax.op.reshape(integers(call, index), []))
    result = build(rank - 1)
    for d in range(rank - 1):
        hit = call.emit(
            relax.op.logical_or(
                call.emit(relax.op.equal(axis, scalar(d))),
                call.emit(relax.op.equal(axis, scalar(d - rank))),
            )
        )
        result = call.emit(relax.op.where(hit, call.emit(build(d)), call.emit(result)))
    return result


def arange(call: Call) -> relax.Expr:
    """start + i * delta for ceil((limit - start) / delta) numbers i."""
    op, dtype = relax.op, call.dtype(0)
    start, limit, delta = (call.emit(op.reshape(call.tensor(k), [1])) for k in range(3))
    wide = "int64" if "int" in dtype else "float64"
    first, last, step = (call.emit(op.astype(t, wide)) for t in (start, limit, delta))
    if wide == "int64":

        def number(_: Scalars, *bounds: Var) -> list[Expr]:
            a, b, s = (bound[int64(0)] for bound in bounds)
            up = tirx.floordiv(b - a + tirx.max(s, int64(1)) - 1, tirx.max(s, int64(1)))
            width = tirx.max(-s, int64(1))
            down = tirx.floordiv(a - b + width - 1, width)
            counted = tirx.max(int64(0), tirx.Select(s > int64(0), up, down))
            return [tirx.Select(s.equal(int64(0)), int64(-1), counted)]
    else:

        def number(_: Scalars, *bounds: Var) -> list[Expr]:
            a, b, s = (bound[int64(0)] for bound in bounds)
            exact = tirx.ceil((b - a) / s)
            most = tirx.const(2.0**53, "float64")
            inside = tirx.And(exact <= most, exact >= -most)  # neither is true of NaN
            none = tirx.const(0.0, "float64")
            counted = tirx.Cast("int64", tirx.max(none, tirx.Select(inside, exact, none)))
            return [tirx.Select(inside, counted, int64(-1))]

    (size,) = out_of(call)
    matched(call, sizes(call, number, first, last, step), [size])
    steps = call.emit(op.arange(call.prim(0), call.prim(size), call.prim(1), "int64"))
    scaled = call.emit(op.multiply(call.emit(op.astype(steps, dtype)), delta))
    return op.add(scaled, start)


def top_k(call: Call, keys: relax.Expr) -> list[relax.Expr]:
    """All elements in the order of `keys`, of which the first k are taken: at most their number."""
    axis, data = call.axis(-1, call.rank(0)), call.tensor(0)
    if call.dtype(0) == "uint32":
        raise DeclinedError("k is known only at run time, of elements of uint32")
    wanted = out_of(call)[axis]

    def number(_: Scalars, x: Var, k: Var) -> list[Expr]:
        given = k[int64(0)]
        return [tirx.Select(given <= expr(x.shape[axis]), given, int64(-1))]

    matched(call, sizes(call, number, data, integers(call, 1)), [wanted])
    descends = bool(call.attr("largest", 1))
    order = call.emit(relax.op.argsort(keys, axis, descends, "int64"))
    ends = [call.prim(0)], [call.prim(wanted)]
    first = call.emit(relax.op.strided_slice(order, [axis], *ends, assume_inbound=True))
    return [relax.op.gather_elements(data, first, axis), first]


def split(call: Call) -> list[relax.Expr]:
    """Parts one after another; their sizes add up to the axis."""
    axis = call.axis(0, call.rank(0))
    parts = [out_of(call, k)[axis] for k in range(len(call.node.output))]
    data = call.tensor(0)

    def given(_: Scalars, x: Var, split: Var) -> list[Expr]:
        found = [split[int64(k)] for k in range(len(parts))]
        fits = sum(found[1:], found[0]).equal(expr(x.shape[axis]))
        return [tirx.Select(fits, size, int64(-1)) for size in found]

    if count(call, 1) != len(parts):
        raise DeclinedError("sizes for another number of parts")
    matched(call, sizes(call, given, data, integers(call, 1)), parts)
    found, start = [], call.prim(0)
    for size in parts:
        end = start + call.prim(size)
        found.append(
            call.emit(relax.op.strided_slice(data, [axis], [start], [end], assume_inbound=True))
        )
        start = end
    return found


def define_one(call: Call, index: int, wanted: Any) -> None:
    """A size is the only number of an operand."""
    matched(call, sizes(call, lambda _, given: [given[int64(0)]], integers(call, index)), [wanted])


def trilu(call: Call) -> relax.Expr:
    """x where column - row >= k, the upper triangle, or <= k, the lower one; else 0."""
    op, shape = relax.op, call.shape(0)
    rows, columns = (
        call.emit(op.arange(call.prim(0), call.prim(n), call.prim(1), "int64")) for n in shape[-2:]
    )
    beyond = call.emit(op.subtract(columns, call.emit(call.reshape(rows, (shape[-2], 1)))))
    limit = call.emit(op.reshape(integers(call, 1), []))
    compare = op.greater_equal if call.attr("upper", 1) else op.less_equal
    zero = call.emit(op.zeros([], call.dtype(0)))
    return op.where(call.emit(compare(beyond, limit)), call.tensor(0), zero)


def _is_not_in(axes: Var, number: int, axis: int, rank: int) -> Expr:
    """Whether `axis` is none of the axes, which may count from the end."""
    return all_of(
        tirx.And(axes[int64(k)] != int64(axis), axes[int64(k)] != int64(axis - rank))
        for k in range(number)
    )


def _chosen(scalars: Scalars, chosen: Sequence[Expr], values: Sequence[Any], n: int) -> list[Expr]:
    """The first n of the values that are chosen; -1 where there are not so many."""
    found, seen = [int64(-1)] * n, int64(0)
    for one, value in zip(chosen, values):
        one = scalars.keep(one)
        here = [tirx.And(one.equal(int64(1)), seen.equal(int64(j))) for j in range(n)]
        found = [
            scalars.keep(tirx.Select(mine, expr(value), old)) for mine, old in zip(here, found)
        ]
        seen = scalars.keep(seen + one)
    return found
