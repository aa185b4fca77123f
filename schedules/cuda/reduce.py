"""A reduction by the threads of a row: shares, then joined so that every thread has the result.

acc = init;  for i = lane, lane + threads, ...: acc = op(acc, value(i))
inside a warp     acc = op(acc, acc of the thread whose number differs in bit b)      for each b
between warps     through shared memory, one after another

Several accumulators that keep or take an element (the largest and its index) are joined alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm.tirx import Stmt

from tvmext.arch.cuda import WARP

from ..kernel.analysis import collect, substitute, variables
from ..kernel.axes import Group, merged, product
from ..kernel.emit import allocate, block, index, known, loop
from ..kernel.stages import COMBINE, Stage
from .launch import Share, at_outer, code, finished, replaced, sync, typed, when
from .vectors import neighbours
from .wide import in_runs

FULL = 0xFFFFFFFF
"""All threads of a warp take part in a shuffle."""

At = Callable[[Expr], dict[Var, Expr]]
"""What the axes of a stage are in a lane."""


def reduced(stage: Stage, at: At, share: Share, lanes: int = 1, width: int = 1) -> Stmt:
    """`lanes` neighbouring elements of a reduction, and what follows from them.

    `width` neighbours along the reduction are read at once (wide.py).
    """
    groups = merged(stage, stage.reduce)
    total = known(product(group.extent for group in groups))
    if not isinstance(total, int) and variables(total) & {axis.var for axis in stage.spatial}:
        # Bounds that depend on where the result goes (RoiAlign): for a place that there is.
        here = at(index(0))
        groups = [Group(group.axes, substitute(group.extent, here)) for group in groups]
        total = tirx.if_then_else(share.valid, index(substitute(total, here)), index(0))
    accs = [allocate([lanes], str(w.buffer.ty.dtype), w.buffer.name, "local") for w in stage.writes]

    def each(body: Callable[[Expr], Stmt]) -> Stmt:
        return neighbours(lanes, body, "lane")

    def clear(acc: Var, init: Expr) -> Stmt:
        return each(lambda lane: tirx.BufferStore(acc, init, [lane]))

    def step(stage: Stage, inner: dict[Var, Expr]) -> Stmt:
        inner = typed(inner)
        return each(lambda lane: _step(stage, accs, lane, at(lane) | inner))

    start = [clear(acc, write.init) for acc, write in zip(accs, stage.writes)]
    if width == 1:
        steps = share.each(total, lambda i: step(stage, at_outer(groups, i)))
    else:
        steps = in_runs(stage, groups, width, share, at(index(0)), step)
    joins = None if share.threads == 1 else _join(accs, joining(stage), share)
    done = each(lambda lane: finished(stage, [acc[lane] for acc in accs], at(lane)))
    target = stage.epilogue.writes if stage.epilogue else stage.writes
    if any(write.buffer.scope() != "local" for write in target):
        mine = share.valid if share.threads == 1 else tirx.And(share.valid, share.lane.equal(0))
        done = when(mine, done)
    return block(*map(tirx.AllocBuffer, accs), *start, steps, joins, done)


def _step(stage: Stage, accs: list[Var], lane: Expr, values: dict[Var, Expr]) -> Stmt:
    """Combine one more element into the accumulators."""
    binds, results = code(stage.point, values)
    own = {w.buffer: acc[lane] for w, acc in zip(stage.writes, accs)}
    combined = [
        COMBINE[w.op](acc[lane], value) if w.op else replaced(value, own)
        for w, acc, value in zip(stage.writes, accs, results)
    ]
    return block(*binds, _become(accs, combined, lane))


def _become(accs: Sequence[Var], values: Sequence[Expr], lane: Expr) -> Stmt:
    """``accs[lane] = values``, all of which are made from the old ones."""
    if len(accs) == 1:
        return tirx.BufferStore(accs[0], values[0], [lane])
    names = [Var(acc.name, value.ty) for acc, value in zip(accs, values)]
    binds = [tirx.Bind(name, value) for name, value in zip(names, values)]
    return block(*binds, *(tirx.BufferStore(acc, name, [lane]) for acc, name in zip(accs, names)))


Joining = Callable[[Sequence[Expr], Sequence[Expr]], Sequence[Expr]]
"""What two partial results of a reduction, a number per store, become together."""


def joining(stage: Stage) -> Joining | None:
    """How partial results are joined; None if only elements can be taken in."""
    ops = [write.op for write in stage.writes]
    if all(ops):
        return lambda a, b: [COMBINE[str(op)](x, y) for op, x, y in zip(ops, a, b)]
    return _choosing(stage)


def _choosing(stage: Stage) -> Joining | None:
    """Where every store keeps what it has or takes the element, as argmax does.

    What chooses between a result and an element then chooses between two results: reductions are
    commutative and associative, and begin with what is never chosen (te.comm_reducer).
    """
    own = {w.buffer: Var("own", w.init.ty) for w in stage.writes if w.init is not None}
    elements: list[tuple[Expr, Var]] = []
    values = [replaced(value, own) for value in stage.point.values]
    for write, value in zip(stage.writes, values):
        if not isinstance(value, tirx.Select):
            return None
        ways = [
            w for w in (value.true_value, value.false_value) if not w.same_as(own[write.buffer])
        ]
        if len(ways) != 1:
            return None
        elements.append((ways[0], Var("other", ways[0].ty)))

    def taken(node: Expr) -> Expr:
        return next((name for e, name in elements if tvm_ffi.structural_equal(node, e)), node)

    values = [tvm_ffi.structural_map(value, (Expr, taken), order="pre") for value in values]
    others = [name for _, name in elements]
    if any(collect(v, TensorLoad) or variables(v) - {*own.values(), *others} for v in values):
        return None

    def join(a: Sequence[Expr], b: Sequence[Expr]) -> list[Expr]:
        at = dict(zip(own.values(), a)) | dict(zip(others, b))
        return [substitute(value, at) for value in values]

    return join


def _join(accs: Sequence[Var], join: Joining | None, share: Share) -> Stmt:
    """Every thread of the row gets what all of them have found."""
    assert join is not None
    zero = index(0)

    def meet(others: Sequence[Expr]) -> Stmt:
        """The accumulators take in partial results, which are named where they are used twice."""
        names = [Var("other", other.ty) for other in others] if len(accs) > 1 else []
        binds = [tirx.Bind(name, other) for name, other in zip(names, others)]
        mine = [acc[zero] for acc in accs]
        return block(*binds, _become(accs, join(mine, names or others), zero))

    parts: list[Stmt] = []
    warps = share.threads
    if share.along:
        for bit in (16, 8, 4, 2, 1):
            mask = tirx.const(FULL, "uint32")
            parts.append(
                meet(
                    [tirx.op.tvm_warp_shuffle_xor(mask, acc[zero], bit, WARP, WARP) for acc in accs]
                )
            )
        warps = share.threads // WARP
    if warps == 1:
        return block(*parts)
    # [row of the block][warp], or [thread of the row][row of the block] where rows are neighbours.
    size = [warps * share.rows]
    shared = [allocate(size, str(acc.ty.dtype), "partial", "shared") for acc in accs]
    number = share.lane // WARP if share.along else share.lane
    place: Callable[[Expr], Expr] = (
        (lambda w: share.slot * warps + w)
        if share.along
        else (lambda w: w * share.rows + share.slot)
    )
    parts += [
        *map(tirx.AllocBuffer, shared),
        *(tirx.BufferStore(b, acc[zero], [place(number)]) for b, acc in zip(shared, accs)),
        sync(),
        *(tirx.BufferStore(acc, b[place(zero)], [zero]) for b, acc in zip(shared, accs)),
        loop(warps - 1, lambda w: meet([b[place(w + 1)] for b in shared]), name="w"),
        # The next reduction may use the same memory.
        sync(),
    ]
    return block(*parts)
