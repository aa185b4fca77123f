"""Elementwise stages inside a row: vector loops, and tiles turned in registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import BufferStore, ForKind, Stmt

from tvmext.arch import dtype_bits

from ..kernel import loops
from ..kernel.access import crossing
from ..kernel.analysis import constant, substitute, variables
from ..kernel.axes import Group, fused, merged
from ..kernel.loops import int64, local, sequence, strip
from .inside import Inside


def emit_map(inside: Inside) -> Stmt:
    """Loops over joined axes, the last of them in vectors."""
    groups = merged(inside.stage, inside.inner)
    if not groups:
        return inside.point({})
    *outer, last = groups
    kind = ForKind.SERIAL if outer else inside.kind
    return _over(
        outer,
        inside.kind,
        lambda at: strip(
            last.extent, inside.plan.lanes, lambda i: inside.point(at | last.at(i)), kind
        ),
    )


def emit_interleave(inside: Inside) -> Stmt:
    """Vectors along the axis before the last one, one for each index of that, stored in turns.

    y[.., i, r] = x[.., r, i]
    """
    lanes, write = inside.plan.lanes, inside.stage.writes[0]
    *outer, along, last = (Group((axis,), axis.extent) for axis in inside.inner)
    times, word = constant(last.extent), _word(inside.stage.point.values[0])
    assert times is not None
    moves = any(last.axes[0].var in variables(expr) for expr in inside.stage.point.exprs())
    kinds = times if moves else 1

    def tile(at: dict[Var, Expr]) -> Stmt:
        held = [local((lanes,), word, "held") for _ in range(kinds)]
        inside.buffers.extend(held)

        def vector(r: int) -> Stmt:
            def element(lane: Expr) -> Stmt:
                place = {
                    var: i + lane if var.same_as(along.axes[-1].var) else i for var, i in at.items()
                }
                binds, (value,) = inside.code(inside.stage.point, place | last.at(int64(r)))
                return sequence(
                    [*binds, BufferStore(held[r], tirx.reinterpret(word, value), [lane])]
                )

            return loops.vector(lanes, element)

        *zeros, first = inside.indices(write, at | last.at(int64(0)))
        parts = []
        for start in range(0, times * lanes, lanes):
            places = [divmod(start + lane, times) for lane in range(lanes)]
            order = [tirx.const(r % kinds * lanes + i, "int32") for i, r in places]
            value = tirx.Shuffle([h[_ramp(int64(0), lanes)] for h in held], order)
            value = tirx.reinterpret(f"{write.buffer.ty.dtype}x{lanes}", value)
            parts.append(BufferStore(write.buffer, value, [*zeros, _ramp(first + start, lanes)]))
        return sequence([*map(vector, range(kinds)), *parts])

    def line(at: dict[Var, Expr]) -> Stmt:
        whole = along.extent // lanes

        def rest(i: Expr) -> Stmt:
            fixed = at | along.at(whole * lanes + i)
            return loops.loop(times, lambda r: inside.point(fixed | last.at(r)))

        kind = ForKind.SERIAL if outer else inside.kind
        tiles = loops.loop(whole, lambda t: tile(at | along.at(t * lanes)), kind)
        return sequence([tiles, loops.loop(along.extent - whole * lanes, rest)])

    return _over(outer, inside.kind, line)


def emit_transpose(inside: Inside) -> Stmt:
    """Square tiles: what is contiguous along another axis is turned in registers first.

    What is left over at the right and at the bottom is done element by element.
    """
    side = inside.plan.lanes
    groups = merged(inside.stage, inside.inner)
    along = groups[inside.plan.across]
    *outer, last = [group for group in groups if group is not along]
    right, bottom = (group.extent // side * side for group in (last, along))

    def columns(at: dict[Var, Expr], a: Expr, start: Expr) -> Stmt:
        """One row of the output from column `start` on."""
        at = at | along.at(a)
        return strip(last.extent - start, side, lambda b: inside.point(at | last.at(start + b)))

    def all_of(at: dict[Var, Expr]) -> Stmt:
        def stripe(a: Expr) -> Stmt:
            tiles = loops.loop(
                last.extent // side,
                lambda b: _tile(inside, at, along, last, a * side, b * side),
            )
            edge = loops.loop(side, lambda i: columns(at, a * side + i, right))
            return sequence([tiles, edge])

        stripes = loops.loop(along.extent // side, stripe, ForKind.SERIAL if outer else inside.kind)
        rest = loops.loop(along.extent - bottom, lambda i: columns(at, bottom + i, int64(0)))
        return sequence([stripes, rest])

    return _over(outer, inside.kind, all_of)


def _tile(inside: Inside, at: dict[Var, Expr], along: Group, last: Group, a: Expr, b: Expr) -> Stmt:
    """One square: what lies across the order of the store is turned, then all of it computed."""
    side = inside.plan.lanes
    across = crossing(inside.stage, along.axes[-1], last.axes[-1])
    loaded, columns = [], []
    for load in across:
        rows = []
        for row in range(side):
            where = inside.rows | at | along.at(a) | last.at(b + row)
            *zeros, offset = (substitute(index, where) for index in load.indices)
            vector = load.source[(*zeros, _ramp(offset, side))]
            rows.append(tirx.reinterpret(f"{_word(load)}x{side}", vector))
        binds, values = turned(rows)
        held = [local((side,), _word(load), "turned") for _ in values]
        inside.buffers += held
        loaded += binds
        loaded += [BufferStore(h, v, [_ramp(int64(0), side)]) for h, v in zip(held, values)]
        columns.append(held)

    def stored(row: int) -> Stmt:
        own = [(load, held[row]) for load, held in zip(across, columns)]

        def element(lane: Expr) -> Stmt:
            values = at | along.at(a + row) | last.at(b + lane)
            back = [(load, tirx.reinterpret(load.ty.dtype, held[lane])) for load, held in own]
            return inside.point(values, back)

        return loops.vector(side, element)

    return sequence([*loaded, *map(stored, range(side))])


def _word(value: Expr) -> str:
    """What elements are shuffled as: TVM rewrites bfloat16, but no vectors of it that are bound."""
    dtype = str(value.ty.dtype)
    plain = dtype.startswith(("int", "uint", "float16", "float32", "float64", "bool"))
    return dtype if plain else f"uint{dtype_bits(dtype)}"


def _ramp(start: Expr, lanes: int) -> Expr:
    return tirx.Ramp(start, int64(1), lanes)


def turned(rows: Sequence[Expr]) -> tuple[list[Stmt], list[Expr]]:
    """The transpose of a square of vectors, and the statements that compute it.

    Interleaving row i with row i + n/2 turns a square after log2(n) rounds: every round rotates
    the bits of an element's (row, column) number by one.
    """
    side = len(rows)
    binds: list[Stmt] = []

    def bind(value: Expr) -> Var:
        var = Var("turned", value.ty)
        binds.append(tirx.Bind(var, value))
        return var

    low = [lane // 2 + side * (lane % 2) for lane in range(side)]
    high = [index + side // 2 for index in low]
    current: list[Expr] = [bind(row) for row in rows]
    for _ in range(side.bit_length() - 1):
        pairs = zip(current[: side // 2], current[side // 2 :])
        current = [
            bind(tirx.Shuffle([one, other], [tirx.const(i, "int32") for i in order]))
            for one, other in pairs
            for order in (low, high)
        ]
    return binds, current


def _over(outer: Sequence[Group], kind: ForKind, body: Callable[[dict[Var, Expr]], Stmt]) -> Stmt:
    """Loops over groups of axes: one for all if it is to be spread over the cores."""

    def at(indices: Sequence[Expr]) -> Stmt:
        values: dict[Var, Expr] = {}
        for group, index in zip(outer, indices):
            values |= group.at(index)
        return body(values)

    extents = [group.extent for group in outer]
    if outer and kind == ForKind.PARALLEL:
        return fused(extents, at, kind)
    return loops.nest(extents, at)
