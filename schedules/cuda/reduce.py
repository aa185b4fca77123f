"""A reduction by the threads of a row: shares, then joined so that every thread has the result.

acc = init;  for i = lane, lane + threads, ...: acc = op(acc, value(i))
inside a warp     acc = op(acc, acc of the thread whose number differs in bit b)      for each b
between warps     through shared memory, by halves
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import ForKind, Stmt

from tvmext.arch.cuda import WARP

from ..kernel.axes import merged, product
from ..kernel.emit import Size, allocate, block, ceildiv, index, known, loop
from ..kernel.stages import COMBINE, Stage
from .launch import at_outer, code, finished, replaced, sync, when

FULL = 0xFFFFFFFF
"""All threads of a warp take part in a shuffle."""


@dataclass(frozen=True)
class Share:
    """Thread `lane` of the `threads` that work on a row, which is the `slot`-th of its block.

    `valid` is false where there are no rows left: such a thread takes part in every barrier, and
    reads and writes nothing.
    """

    lane: Expr
    slot: Expr
    threads: int
    rows: int
    along: bool
    valid: Expr

    def each(self, total: Size, body: Callable[[Expr], Stmt]) -> Stmt:
        """`body` for the indices below `total` that are this thread's."""
        if self.threads == 1:
            return loop(total, lambda i: when(self.valid, body(i)))
        return loop(
            ceildiv(total, self.threads),
            lambda o: when(
                tirx.And(self.valid, o * self.threads + self.lane < index(total)),
                body(o * self.threads + self.lane),
            ),
            name="o",
        )


At = Callable[[Expr], dict[Var, Expr]]
"""What the axes of a stage are in a lane."""


def reduced(stage: Stage, at: At, share: Share, lanes: int = 1) -> Stmt:
    """`lanes` neighbouring elements of a reduction, and what follows from them."""
    groups = merged(stage, stage.reduce)
    total = known(product(group.extent for group in groups))
    accs = [allocate([lanes], str(w.buffer.ty.dtype), w.buffer.name, "local") for w in stage.writes]

    def each(body: Callable[[Expr], Stmt]) -> Stmt:
        return loop(lanes, body, ForKind.VECTORIZED, "lane")

    def clear(acc: Var, init: Expr) -> Stmt:
        return each(lambda lane: tirx.BufferStore(acc, init, [lane]))

    start = [clear(acc, write.init) for acc, write in zip(accs, stage.writes)]
    steps = share.each(
        total,
        lambda i: each(lambda lane: _step(stage, accs, lane, at(lane) | at_outer(groups, i))),
    )
    joins = [_join(acc, str(w.op), share) for acc, w in zip(accs, stage.writes)]
    done = each(lambda lane: finished(stage, [acc[lane] for acc in accs], at(lane)))
    target = stage.epilogue.writes if stage.epilogue else stage.writes
    if any(write.buffer.scope() != "local" for write in target):
        mine = share.valid if share.threads == 1 else tirx.And(share.valid, share.lane.equal(0))
        done = when(mine, done)
    return block(*map(tirx.AllocBuffer, accs), *start, steps, *joins, done)


def _step(stage: Stage, accs: list[Var], lane: Expr, values: dict[Var, Expr]) -> Stmt:
    """Combine one more element into the accumulators."""
    binds, results = code(stage.point, values)
    own = {w.buffer: acc[lane] for w, acc in zip(stage.writes, accs)}
    combined = [
        COMBINE[w.op](acc[lane], value) if w.op else replaced(value, own)
        for w, acc, value in zip(stage.writes, accs, results)
    ]
    if len(accs) > 1:
        # Every new value is made from the old ones of all.
        names = [Var(w.buffer.name, v.ty) for w, v in zip(stage.writes, combined)]
        binds += [tirx.Bind(name, value) for name, value in zip(names, combined)]
        combined = list(names)
    return block(*binds, *(tirx.BufferStore(a, v, [lane]) for a, v in zip(accs, combined)))


def _join(acc: Var, op: str, share: Share) -> Stmt | None:
    """Every thread of the row gets what all of them have found."""
    if share.threads == 1:
        return None
    zero = index(0)
    combine = COMBINE[op]
    parts: list[Stmt] = []
    warps = share.threads
    if share.along:
        for bit in (16, 8, 4, 2, 1):
            other = tirx.op.tvm_warp_shuffle_xor(
                tirx.const(FULL, "uint32"), acc[zero], bit, WARP, WARP
            )
            parts.append(tirx.BufferStore(acc, combine(acc[zero], other), [zero]))
        warps = share.threads // WARP
    if warps == 1:
        return block(*parts)
    # [row of the block][warp], or [thread of the row][row of the block] where rows are neighbours.
    buffer = allocate([warps * share.rows], str(acc.ty.dtype), "partial", "shared")
    number = share.lane // WARP if share.along else share.lane
    place: Callable[[Expr], Expr] = (
        (lambda w: share.slot * warps + w)
        if share.along
        else (lambda w: w * share.rows + share.slot)
    )
    parts += [
        tirx.AllocBuffer(buffer),
        tirx.BufferStore(buffer, acc[zero], [place(number)]),
        sync(),
        tirx.BufferStore(acc, buffer[place(index(0))], [zero]),
        loop(
            warps - 1,
            lambda w: tirx.BufferStore(acc, combine(acc[zero], buffer[place(w + 1)]), [zero]),
            name="w",
        ),
        # The next reduction may use the same memory.
        sync(),
    ]
    return block(*parts)
