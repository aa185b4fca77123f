"""Slices whose bounds, axes or steps are tensors."""

from __future__ import annotations

from tvm import relax, te, tirx
from tvm.ir import Expr, Var

from ..builder import Call
from .sizes import Scalars, constant, count, expr, int64, integers, kernel, matched, out_of, sizes


def slice_(call: Call) -> relax.Expr:
    """y[i] = x[start + i*step] along each axis; start, step and number of i by a small kernel."""
    rank, number, wanted = call.rank(0), count(call, 1), out_of(call)
    data = call.tensor(0)
    operands = [integers(call, k) for k in (1, 2)]
    axes = integers(call, 3) if call.has(3) else constant(list(range(number)))
    steps = integers(call, 4) if call.has(4) else constant([1] * number)

    def bounds(scalars: Scalars, x: Var, *given: Var) -> list[Expr]:
        starts, ends, axes, steps = given
        found: list[list[Expr]] = []
        for d in range(rank):
            size = expr(x.shape[d])
            start, end, step = int64(0), size, int64(1)
            for k in range(number):
                place = axes[int64(k)]
                mine = tirx.Or(place.equal(int64(d)), place.equal(int64(d - rank)))
                start, end, step = (
                    tirx.Select(mine, one[int64(k)], old)
                    for one, old in ((starts, start), (ends, end), (steps, step))
                )
            start, end, step = map(scalars.keep, (start, end, step))
            found.append(_walk(size, start, end, step))
        return [part for k in range(3) for part in (row[k] for row in found)]

    table = sizes(call, bounds, data, *operands, axes, steps)
    lengths = call.emit(
        relax.op.strided_slice(table, [0], [2 * rank], [3 * rank], assume_inbound=True)
    )
    matched(call, lengths, wanted)
    out = call.shape_expr(wanted)

    def read(x: te.Tensor, table: te.Tensor, *extents: Expr) -> te.Tensor:
        def element(*at: Expr) -> Expr:
            places = []
            for d, i in enumerate(at):
                place = table[int64(d)] + i * table[int64(rank + d)]
                places.append(tirx.max(int64(0), tirx.min(place, expr(x.shape[d]) - 1)))
            return x(*places)

        return te.compute(extents, element, name="slice")

    return kernel(call, read, [data, table, *out.values], "slice")


def _walk(size: Expr, start: Expr, end: Expr, step: Expr) -> list[Expr]:
    """The first element of a slice, its step and number of elements, as Python has them."""
    zero, one = int64(0), int64(1)
    backward = step < zero

    def inside(bound: Expr) -> Expr:
        bound = tirx.Select(bound < zero, tirx.max(bound, -size) + size, bound)
        front = tirx.max(zero, tirx.min(bound, size))
        return front, tirx.max(-one, tirx.min(bound, size - 1))

    (first, last_first), (stop, _) = inside(start), inside(end)
    below = tirx.Select(end < zero, tirx.max(end, -size - 1) + size, tirx.min(end, size - 1))
    begin = tirx.Select(backward, last_first, first)
    forward_count = tirx.floordiv(
        tirx.max(zero, stop - first) + tirx.max(step, one) - 1, tirx.max(step, one)
    )
    width = tirx.max(-tirx.max(step, int64(-(2**62))), one)
    backward_count = tirx.floordiv(
        tirx.max(zero, last_first - tirx.max(-one, below)) + width - 1, width
    )
    number = tirx.Select(backward, backward_count, forward_count)
    return [begin, step, tirx.Select(step.equal(zero), -one, number)]
