"""Grids of blocks of threads as TIR, and the code of a stage at a point."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm.tirx import ForKind, Stmt

from ..kernel.analysis import Axis, substitute
from ..kernel.axes import Group
from ..kernel.emit import Size, block, ceildiv, index, known, loop
from ..kernel.stages import Point, Stage, Write

_THREAD_INDEX = 1  # IterVarType kThreadIndex

Body = Callable[..., Stmt]


@dataclass(frozen=True)
class Block:
    """Threads per block along x, which are neighbours in a warp, and along y."""

    x: int
    y: int = 1

    @property
    def threads(self) -> int:
        return self.x * self.y


def launch(grid: Size, threads: Block, body: Callable[[Expr, Expr, Expr], Stmt]) -> Stmt:
    """One kernel: ``body(block, x, y)`` for every thread.

    CUDA does not launch empty grids: where the size is not known, one block finds nothing to do.
    """
    grid = known(grid)
    if isinstance(grid, int) and grid == 0:
        return tirx.Evaluate(index(0))
    if not isinstance(grid, int):
        grid = tirx.max(grid, index(1))
    extents = (("blockIdx.x", grid), ("threadIdx.x", threads.x), ("threadIdx.y", threads.y))
    names = [Var(tag.replace("Idx.", "_"), "int64") for tag, _ in extents]
    stmt = body(*names)
    for (tag, extent), var in reversed(list(zip(extents, names))):
        if tag == "threadIdx.y" and threads.y == 1:
            stmt = substitute(stmt, {var: index(0)})
            continue
        binding = tirx.IterVar(None, tag, _THREAD_INDEX, tag)
        stmt = tirx.For(var, index(0), index(extent), ForKind.THREAD_BINDING, stmt, binding)
    return stmt


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


def sync() -> Stmt:
    """Wait for all threads of the block; what they wrote to shared memory is seen after it."""
    return tirx.Evaluate(tirx.call_intrin("void", "tirx.tvm_storage_sync", "shared"))


def split(flat: Expr, extent: Size) -> tuple[Expr, Expr]:
    """(flat // extent, flat % extent) of two numbers that are not negative.

    TVM does not know the sign of a dim and guards its division against it; this form it does not.
    """
    if isinstance(known(extent), int):
        return flat // extent, flat % extent
    some = tirx.max(extent, index(1))  # a thread may come here before it learns that there is none
    return tirx.truncdiv(flat, some), tirx.truncmod(flat, some)


def among(block: Expr, extent: Size) -> tuple[Expr, Expr]:
    """As `split`, for the number of a block, which fits in 32 bits.

    A quotient of two unknowns of 64 bits is a call, around which registers go to memory.
    """
    if isinstance(known(extent), int):
        return split(block, extent)
    some = tirx.max(tirx.Cast("int32", extent), tirx.const(1, "int32"))
    number = tirx.Cast("int32", block)
    parts = (tirx.truncdiv(number, some), tirx.truncmod(number, some))
    return tirx.Cast("int64", parts[0]), tirx.Cast("int64", parts[1])


def when(condition: Expr | bool, then: Stmt, otherwise: Stmt | None = None) -> Stmt:
    """A branch, or what it comes to where the condition is known."""
    if isinstance(condition, bool):
        return then if condition else otherwise or tirx.Evaluate(index(0))
    return tirx.IfThenElse(condition, then, otherwise)


def code(point: Point, values: Mapping[Var, Expr]) -> tuple[list[Stmt], tuple[Expr, ...]]:
    """Statements that bind scalars, and the values, of a point at an index."""
    placed = point.at(dict(values))
    return [tirx.Bind(var, value) for var, value in placed.binds], placed.values


def store(write: Write, value: Expr, values: Mapping[Var, Expr]) -> Stmt:
    """One store of a stage, at an index."""
    where = [substitute(i, dict(values)) for i in write.indices]
    return tirx.BufferStore(write.buffer, value, where)


def element(stage: Stage, values: Mapping[Var, Expr]) -> Stmt:
    """An elementwise stage at an index."""
    binds, results = code(stage.point, values)
    return block(*binds, *(store(w, r, values) for w, r in zip(stage.writes, results)))


def finished(stage: Stage, results: Sequence[Expr], values: Mapping[Var, Expr]) -> Stmt:
    """Store what a reduction found, through its epilogue if it has one."""
    if stage.epilogue is None:
        return block(*(store(w, r, values) for w, r in zip(stage.writes, results)))
    own = {w.buffer: r for w, r in zip(stage.writes, results)}
    binds, outs = code(stage.epilogue.point, values)
    binds = [tirx.Bind(bind.var, replaced(bind.value, own)) for bind in binds]
    writes = zip(stage.epilogue.writes, outs)
    return block(*binds, *(store(w, replaced(out, own), values) for w, out in writes))


def replaced(expr: Expr, own: Mapping[Var, Expr]) -> Expr:
    """`expr` with loads of the reduction's own results replaced by what they are now."""
    return tvm_ffi.structural_map(expr, (TensorLoad, lambda load: own.get(load.source, load)))


def typed(values: Mapping[Var, Expr]) -> dict[Var, Expr]:
    """Values for variables, each in the type of its variable."""
    return {
        var: value if var.ty.dtype == value.ty.dtype else tirx.Cast(str(var.ty.dtype), value)
        for var, value in values.items()
    }


def unraveled(flat: Expr, extents: Sequence[Size]) -> list[Expr]:
    """The point at a position of the row-major product of `extents`."""
    at: list[Expr] = []
    for extent in reversed(extents[1:]):
        flat, here = split(flat, extent)
        at.append(here)
    return [flat, *reversed(at)] if extents else []


def axes_at(axes: Sequence[Axis], flat: Expr) -> dict[Var, Expr]:
    """What `axes` are at a position of their row-major product."""
    return dict(zip((a.var for a in axes), unraveled(flat, [known(a.extent) for a in axes])))


def at_outer(groups: Sequence[Group], flat: Expr) -> dict[Var, Expr]:
    """What the axes of `groups` are at a position of their row-major product."""
    values: dict[Var, Expr] = {}
    for group, here in zip(groups, unraveled(flat, [group.extent for group in groups])):
        values |= group.at(here)
    return values
